"""The commands put together; without one, the embedded default.

Commands load what they need when they run, so that --help answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated

from experiments.commands import benchmarks, figures, front, options, tables
from experiments.commands.options import WORKDIR
from experiments.commands.train import train
from experiments.config.errors import ConfigError
from experiments.training.stop import Stopped

app = front.Commands()
# What pip calls a module that has another name than its package.
_PACKAGES = {"sklearn": "scikit-learn", "PIL": "pillow"}


@app.default
def default(workdir: options.Workdir = WORKDIR, time_limit: options.TimeLimit = None) -> None:
    """Reproduces the ASAM paper's tables and figures.

    Without a command: SGD, SAM and ASAM on the digits images of scikit-learn whose training labels
    are 40% noise, five seeds, a table and a picture, in under two minutes on two cores.
    """
    from experiments.commands import default_comparison

    default_comparison.run(workdir, time_limit)


@app.command()
def models(workdir: options.Workdir = WORKDIR) -> None:
    """Prints the name and the parameter count (10 classes) of each network."""
    del workdir  # every command takes it
    from experiments.config.model_names import MODEL_FILES
    from experiments.models import parameter_count

    for name in MODEL_FILES:
        print(f"{name:18}{parameter_count(name):>12,}")


app.command()(train)
tables.add_to(app)
app.add(figures.app)
app.add(benchmarks.app, "benchmark")


@app.command()
def report(
    workdir: options.Workdir = WORKDIR,
    readme: Annotated[
        Path | None, front.Option(help="Also put the default job's table into this file.")
    ] = None,
) -> None:
    """Writes RESULTS.md and its pictures from the result lines in the folder."""
    from experiments.commands.train_and_report import write_report
    from experiments.reporting import readme as page

    path, problems = write_report(workdir)
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    print(f"Wrote {path}.")
    if readme is not None:
        page.write(workdir, readme)
        print(f"Wrote the table into {readme}.")


def main() -> None:
    """Runs the command line; what is wrong with a call is one line and exit code 2."""
    try:
        app.run(sys.argv[1:], "python -m experiments")
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in ("", "asam_jax", "experiments"):
            raise
        package = _PACKAGES.get(missing, missing)
        print(
            f"error: this command needs {package}, which is not installed; run pip install "
            f"{package}, or pip install -e '.[experiments]' for all that any command needs.",
            file=sys.stderr,
        )
        sys.exit(2)
    except Stopped as stopped:
        print(
            f"Stopped by {stopped.reason}, with a checkpoint; the same command goes on.",
            file=sys.stderr,
        )
        sys.exit(stopped.exit_code)
