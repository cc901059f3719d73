"""The report's parts that the benchmarks have lines for."""

from pathlib import Path

from experiments.benchmarks import (
    convolution_cost,
    fitted_report,
    leaves_cost,
    loop_cost,
    pareto_report,
    radius_report,
    sharpness_cost,
    step_cost,
    transformer_report,
)
from experiments.reporting.summaries import Section
from experiments.training import result_lines


def sections(workdir: Path) -> list[Section]:
    """Accuracy for its cost first, then what a step, its compilation and a sharpness cost."""
    return [
        *fitted_report.sections(result_lines.read(workdir, fitted_report.KIND)[0]),
        *transformer_report.sections(result_lines.read(workdir, transformer_report.KIND)[0]),
        *pareto_report.sections(result_lines.read(workdir, pareto_report.KIND)[0]),
        *radius_report.sections(result_lines.read(workdir, radius_report.KIND)[0]),
        *step_cost.sections(workdir),
        *convolution_cost.sections(workdir),
        *loop_cost.sections(workdir),
        *leaves_cost.sections(workdir),
        *sharpness_cost.sections(workdir),
    ]
