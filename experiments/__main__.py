"""The command line: `python -m experiments [COMMAND]`; without a command, the embedded default.

Commands load what they need when they run, so that --help answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from experiments.commands import benchmarks, figures, options, train
from experiments.commands.options import WORKDIR
from experiments.config import paper
from experiments.training import allocator

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=False,
)
app.add_typer(benchmarks.app, name="benchmark")
app.add_typer(figures.app)
_ROWS = list(paper.TABLE1)


@app.callback(invoke_without_command=True)
def default(
    context: typer.Context,
    workdir: options.Workdir = WORKDIR,
    time_limit: options.TimeLimit = None,
) -> None:
    """Reproduces the ASAM paper's tables and figures.

    Without a command: SGD, SAM and ASAM on the digits images of scikit-learn whose training labels
    are 40% noise, five seeds, a table and a picture, in under two minutes on two cores.
    """
    if context.invoked_subcommand is None:
        from experiments.commands import default_comparison

        default_comparison.run(workdir, time_limit)


@app.command()
def models(workdir: options.Workdir = WORKDIR) -> None:
    """Prints the name and the parameter count (10 classes) of each network."""
    del workdir  # every command takes it
    from experiments import models as networks
    from experiments.config.model_names import MODEL_FILES

    for name in MODEL_FILES:
        typer.echo(f"{name:18}{networks.parameter_count(name):>12,}")


app.command()(train.train)


def _table(name: str, text: str, dataset: str, rows: list[str], levels: list[float], runs: int):
    """Registers the command of one table."""

    @app.command(name, help=text)
    def command(
        models: options.Names = None,
        methods: options.Names = None,
        noise: options.Noise = None,
        seeds: options.Seeds = runs,
        epochs: options.Epochs = None,
        subset: options.Subset = None,
        dtype: options.Dtype = "float32",
        workdir: options.Workdir = WORKDIR,
        data_dir: options.DataDir = None,
        time_limit: options.TimeLimit = None,
        checkpoint_seconds: options.CheckpointSeconds = 60.0,
        loop: options.Loop = "auto",
    ) -> None:
        from experiments.commands.train_and_report import train_and_report
        from experiments.config import plans
        from experiments.training import runner

        configs = plans.table(
            dataset,
            options.split(models) or rows,
            methods=options.split(methods),
            noise=options.levels(noise) or levels,
            seeds=seeds,
            epochs=epochs,
            subset=subset,
            dtype=dtype,
        )
        settings = runner.Options(workdir, data_dir, time_limit, checkpoint_seconds, loop)
        train_and_report(configs, settings)


_METHODS = "SGD, SAM and ASAM"
_table("table1", f"Table 1: CIFAR-10, seven networks, {_METHODS}.", "cifar10", _ROWS, [0.0], 5)
_table("table2", f"Table 2: CIFAR-100, seven networks, {_METHODS}.", "cifar100", _ROWS, [0.0], 5)
_table(
    "table3",
    f"Table 3: CIFAR-10 with 0 to 80% label noise, ResNet-32, {_METHODS}.",
    "cifar10",
    [paper.TABLE3_MODEL],
    list(paper.NOISE_LEVELS),
    paper.TABLE3_SEEDS,
)


@app.command()
def digits(
    noise: options.Noise = None,
    seeds: options.Seeds = 5,
    sweep: Annotated[bool, typer.Option(help="Also SAM and ASAM at other radii.")] = False,
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


@app.command()
def report(
    workdir: options.Workdir = WORKDIR,
    readme: Annotated[
        Path | None, typer.Option(help="Also put the default job's table into this file.")
    ] = None,
) -> None:
    """Writes RESULTS.md and its pictures from the result lines in the folder."""
    from experiments.commands.train_and_report import write_report
    from experiments.reporting import readme as readmes

    path, problems = write_report(_existing(workdir))
    for problem in problems:
        typer.echo(f"warning: {problem}", err=True)
    typer.echo(f"Wrote {path}.")
    if readme is not None:
        readmes.write(workdir, readme)
        typer.echo(f"Wrote the table into {readme}.")


def _existing(workdir: Path) -> Path:
    from experiments.config.errors import ConfigError

    if not workdir.is_dir():
        raise ConfigError(f"workdir {str(workdir)!r} does not exist; give another with --workdir.")
    return workdir


def main() -> None:
    """Runs the command line; what is wrong with a call is one line and exit code 2."""
    from experiments.config.errors import ConfigError
    from experiments.training.stop import Stopped

    try:
        app(prog_name="python -m experiments")
    except ConfigError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except Stopped as stopped:
        typer.echo(
            f"Stopped by {stopped.reason}, with a checkpoint; the same command goes on.", err=True
        )
        sys.exit(stopped.exit_code)


if __name__ == "__main__":
    allocator.restart_with_huge_pages()
    main()
