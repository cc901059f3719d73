"""What `python -m experiments` does: noisy digits, three methods, a table and a picture."""

from pathlib import Path

from experiments.config import plans
from experiments.reporting import curves
from experiments.reporting.summaries import digits_summary
from experiments.reporting.tables import groups
from experiments.training import runner

PICTURE = "digits.png"


def run(workdir: Path, time_limit: float | None = None) -> None:
    """Trains what is not finished yet, prints the table and draws the picture."""
    configs = plans.digits([plans.DIGITS_NOISE])
    first = configs[0]
    print(
        f"Digits of scikit-learn, {100 * first.label_noise:g}% label noise on the training labels: "
        f"{len(configs)} runs of {first.epochs} epochs.",
        flush=True,
    )
    options = runner.Options(workdir=workdir, time_limit=time_limit)
    records = runner.run_all(configs, options)
    found = groups(records)
    title = f"Digits, {100 * first.label_noise:g}% label noise"
    curves.accuracy_curves(found, workdir / PICTURE, title)
    print(f"\nTest accuracy\n\n{digits_summary(found)}\n")
    print(f"Result lines: {workdir / 'results.jsonl'}; curves: {workdir / PICTURE}")
