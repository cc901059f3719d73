"""The commands that make the paper's figures, `figure1` and `figure3`."""

import typer

from experiments import options
from experiments.options import WORKDIR

app = typer.Typer(rich_markup_mode=None)


@app.command()
def figure1(workdir: options.Workdir = WORKDIR) -> None:
    """Figure 1: maximization regions around two points that differ by a rescaling."""
    from experiments.figures import figure1 as job

    job.run(workdir)


@app.command()
def figure3(workdir: options.Workdir = WORKDIR) -> None:
    """Figure 3: trajectories of SAM and ASAM on a two-parameter loss."""
    from experiments.figures import figure3 as job

    job.run(workdir)
