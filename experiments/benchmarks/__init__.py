"""What a step costs: in time here, and by compilers on machines that are not here."""

import importlib
from pathlib import Path
from typing import Any

# `benchmark NAME` is the module of that name, by its `run`; its `sections` are for the report.
BENCHMARKS = ("step", "leaves", "compiled")


def sections(workdir: Path) -> list[Any]:
    """The parts of the report that benchmarks have lines for."""
    modules = [importlib.import_module(f"experiments.benchmarks.{name}") for name in BENCHMARKS]
    return [part for module in modules for part in module.sections(workdir)]
