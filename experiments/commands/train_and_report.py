"""What a command that fills tables does: train what is missing, write the report."""

from pathlib import Path

from experiments.benchmarks import pareto
from experiments.benchmarks import sections as benchmarks
from experiments.config.errors import ConfigError
from experiments.config.run_config import RunConfig
from experiments.figures import sections as figures
from experiments.reporting import accelerator, report
from experiments.reporting import sections as accuracies
from experiments.reporting.tables import by_platform, groups
from experiments.training import result_lines, runner


def train_and_report(configs: list[RunConfig], options: runner.Options) -> None:
    """Trains those of `configs` that are not finished and writes the report."""
    runner.run_all(configs, options, announce=True)
    finish(options.workdir, len(configs))


def compare_and_report(plan: pareto.Plan, options: runner.Options) -> None:
    """Tunes and trains every form of a step and writes the report."""
    finish(options.workdir, pareto.run(plan, options))


def write_report(workdir: Path) -> tuple[Path, list[str]]:
    """Writes RESULTS.md and its pictures from all lines below the folder.

    Returns:
      The file's path, and a sentence for each line that could not be read.

    Raises:
      ConfigError: there is no such folder.
    """
    if not workdir.is_dir():
        raise ConfigError(f"workdir {str(workdir)!r} does not exist; give another with --workdir.")
    runs, problems = result_lines.read(workdir)
    here, *elsewhere = by_platform(runs).values() or [[]]
    sections = [
        *accuracies.sections(groups(here)),
        *figures.sections(workdir),
        *benchmarks.sections(workdir),
        *accelerator.sections(workdir, [run for runs in elsewhere for run in runs]),
    ]
    return report.write(workdir, sections, problems), problems


def finish(workdir: Path, runs: int) -> None:
    """Writes the report after so many runs and says where it is."""
    path, _ = write_report(workdir)
    print(f"All {runs} runs are finished; the table is in {path}.")
