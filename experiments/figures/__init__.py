"""The paper's figures, one file for each: it measures, writes result lines and draws from them."""

import importlib
from pathlib import Path
from typing import Any


def sections(workdir: Path) -> list[Any]:
    """The report's parts that the figures have lines for, in the paper's order."""
    modules = [importlib.import_module(f"experiments.figures.figure{n}") for n in (1, 2, 3, 4)]
    return [part for module in modules for part in module.FIGURE.sections(workdir)]
