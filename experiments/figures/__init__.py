"""The paper's figures, one file for each: it measures, writes result lines and draws from them."""

from pathlib import Path

from experiments.figures import figure1, figure2, figure3, figure4, landscape
from experiments.reporting.summaries import Section


def sections(workdir: Path) -> list[Section]:
    """A part of the report for each figure that there are lines for."""
    figures = (figure1, figure2, figure3, figure4, landscape)
    return [part for figure in figures for part in figure.section(workdir)]
