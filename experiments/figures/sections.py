"""The report's parts that the figures have lines for."""

from pathlib import Path

from experiments.figures import figure1, figure2, figure3, figure4
from experiments.reporting.summaries import Section


def sections(workdir: Path) -> list[Section]:
    """The paper's figures in order."""
    figures = (figure1.FIGURE, figure2.FIGURE, figure3.FIGURE, figure4.FIGURE)
    return [part for one in figures for part in one.sections(workdir)]
