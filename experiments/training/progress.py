"""Progress on stderr: a bar with rate and time left on a terminal, a line now and then elsewhere.

The unit is a gradient evaluation: a step of SGD costs one, of SAM or ASAM two, so that one rate
holds for all methods and the time left is honest.
"""

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 60.0


def name_of(run: Mapping[str, Any]) -> str:
    """What a run, as JSON, is called: what tells it from the others of a comparison."""
    alone = run["method"] == "sgd"
    base = run.get("optimizer", "sgd")
    words = [run["dataset"], run["model"], base if alone else run["method"]]
    if not alone:
        words += [f"on {base}"] * (base != "sgd")
        words += [run[name] for name in ("variant",) if name in run]
        words.append(f"rho {run['rho']:g}")
    words += [f"noise {100 * run['label_noise']:g}%"] * (run["label_noise"] > 0)
    return " ".join([*words, f"seed {run['seed']}"])


class Progress:
    """Counts gradients of all the runs of a command; says nothing where `quiet`."""

    def __init__(self, total: float, *, quiet: bool = False):
        self._bar = tqdm(
            total=total, unit="grad", disable=quiet or not sys.stderr.isatty(), dynamic_ncols=True
        )
        self._quiet = quiet
        self._total, self._count, self._started = total, 0, time.monotonic()
        self._last_line = self._started

    def start(self, label: str, done_before: float) -> None:
        """Begins (or resumes) a run; what an earlier process did does not count into the rate."""
        self._bar.set_description(label)
        self._total -= done_before
        self._bar.total = self._total
        self._bar.refresh()

    def update(self, count: float) -> None:
        self._count += count
        self._bar.update(count)
        if self._bar.disable and time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self.say(self._meter())

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        self._last_line = time.monotonic()
        if not self._quiet:
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()

    def _meter(self) -> str:
        elapsed = time.monotonic() - self._started
        return tqdm.format_meter(self._count, self._total, elapsed, unit="grad", ncols=0)
