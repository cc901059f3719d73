"""The commands that fill tables: `table1` to `table3`, and `digits`."""

from typing import Annotated

from experiments.commands import front, options
from experiments.commands.options import WORKDIR
from experiments.config import paper

_ROWS = list(paper.TABLE1)
_METHODS = "SGD, SAM and ASAM"


def add_to(app: front.Commands) -> None:
    """Registers the commands, in the paper's order."""
    for number, dataset in ((1, "cifar10"), (2, "cifar100")):
        text = f"Table {number}: CIFAR-{dataset[5:]}, seven networks, {_METHODS}."
        _add_table(app, f"table{number}", text, dataset, _ROWS, [0.0], 5)
    text = f"Table 3: CIFAR-10 with 0 to 80% label noise, ResNet-32, {_METHODS}."
    rows, levels = [paper.TABLE3_MODEL], list(paper.NOISE_LEVELS)
    _add_table(app, "table3", text, "cifar10", rows, levels, paper.TABLE3_SEEDS)
    app.command()(digits)


def _add_table(
    app: front.Commands,
    name: str,
    text: str,
    dataset: str,
    rows: list[str],
    levels: list[float],
    runs: int,
) -> None:
    @app.command(name, help=text)
    @options.grouped
    def table(
        models: options.Names = None,
        methods: options.Names = None,
        noise: options.Noise = None,
        seeds: options.Seeds = runs,
        epochs: options.Epochs = None,
        subset: options.Subset = None,
        dtype: options.Dtype = "float32",
        cutout: options.Cutout = 0,
        recipe: options.Recipe = "paper",
        *,
        running: options.Running,
    ) -> None:
        from experiments.commands.train_and_report import train_and_report
        from experiments.config import plans

        configs = plans.table(
            dataset,
            options.split(models) or rows,
            methods=options.split(methods),
            noise=options.levels(noise) or levels,
            seeds=seeds,
            epochs=epochs,
            subset=subset,
            dtype=dtype,
            cutout=cutout,
            recipe=recipe,
        )
        train_and_report(configs, running.options())


def digits(
    noise: options.Noise = None,
    seeds: options.Seeds = 5,
    sweep: Annotated[bool, front.Option(help="Also SAM and ASAM at other radii.")] = False,
    workdir: options.Workdir = WORKDIR,
    time_limit: options.TimeLimit = None,
) -> None:
    """The default comparison at 0 to 80% label noise, with --sweep over the radius, too."""
    from experiments.commands.train_and_report import train_and_report
    from experiments.config import plans
    from experiments.training import runner

    levels = options.levels(noise) or list(paper.NOISE_LEVELS)
    configs = plans.digits_sweep(levels, seeds) if sweep else plans.digits(levels, seeds)
    train_and_report(configs, runner.Options(workdir, time_limit=time_limit))
