"""What a command that fills tables does: plan, train what is missing, report."""

from experiments.config.run_config import RunConfig
from experiments.reporting import report
from experiments.training import runner


def run(configs: list[RunConfig], options: runner.Options) -> None:
    """Trains those of `configs` that are not finished and writes the report."""
    runner.run_all(configs, options, announce=True)
    path, _ = report.write(options.workdir)
    print(f"All {len(configs)} runs are finished; the table is in {path}.")
