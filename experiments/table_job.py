"""What `table1`, `table2` and `table3` do: plan, train what is missing, report."""

import dataclasses

from experiments import paper, plans, report, runner
from experiments.config import RunConfig


@dataclasses.dataclass(frozen=True)
class Rows:
    """Which rows of a table; None for all of the paper's. `epochs` are SAM's; SGD gets twice."""

    models: list[str] | None = None
    methods: list[str] | None = None
    seeds: int = 5
    epochs: int | None = None
    subset: int | None = None
    dtype: str = "float32"


def table1(dataset: str, rows: Rows, options: runner.Options) -> None:
    """Tables 1 and 2, by the data set."""
    _run(_plan(dataset, rows, list(paper.TABLE1), [0.0]), options)


def table3(rows: Rows, noise: str | None, options: runner.Options) -> None:
    """Table 3: levels of label noise."""
    _run(_plan("cifar10", rows, [paper.TABLE3_MODEL], plans.noise_levels(noise)), options)


def _plan(dataset: str, rows: Rows, models: list[str], noise: list[float]) -> list[RunConfig]:
    return plans.table(
        dataset,
        models if rows.models is None else rows.models,
        methods=rows.methods,
        noise=noise,
        seeds=rows.seeds,
        epochs=rows.epochs,
        subset=rows.subset,
        dtype=rows.dtype,
    )


def _run(configs: list[RunConfig], options: runner.Options) -> None:
    runner.run_all(configs, options, announce=True)
    path, _ = report.write(options.workdir)
    print(f"All {len(configs)} runs are finished; the table is in {path}.")
