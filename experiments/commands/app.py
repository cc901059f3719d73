"""The commands put together; without one, the embedded default.

Commands load what they need when they run, so that --help answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from experiments.commands import benchmarks, figures, options, tables
from experiments.commands.options import WORKDIR
from experiments.commands.train import train
from experiments.config.errors import ConfigError
from experiments.training.stop import Stopped

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=False,
)
app.add_typer(benchmarks.app, name="benchmark")
app.add_typer(figures.app)


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
    from experiments.config.model_names import MODEL_FILES
    from experiments.models import parameter_count

    for name in MODEL_FILES:
        typer.echo(f"{name:18}{parameter_count(name):>12,}")


app.command()(train)
tables.add_to(app)


@app.command()
def report(
    workdir: options.Workdir = WORKDIR,
    readme: Annotated[
        Path | None, typer.Option(help="Also put the default job's table into this file.")
    ] = None,
) -> None:
    """Writes RESULTS.md and its pictures from the result lines in the folder."""
    from experiments.commands.train_and_report import write_report
    from experiments.reporting import readme as page

    path, problems = write_report(workdir)
    for problem in problems:
        typer.echo(f"warning: {problem}", err=True)
    typer.echo(f"Wrote {path}.")
    if readme is not None:
        page.write(workdir, readme)
        typer.echo(f"Wrote the table into {readme}.")


def main() -> None:
    """Runs the command line; what is wrong with a call is one line and exit code 2."""
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
