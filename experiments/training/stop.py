"""Ends training early but cleanly: SIGTERM, SIGINT or a time limit, noticed between steps."""

import contextlib
import signal
import time
from collections.abc import Iterator


class Stopped(Exception):  # noqa: N818 - a wish that was met, not an error
    """Training ended early, with a checkpoint."""

    def __init__(self, reason: str, exit_code: int):
        super().__init__(reason)
        self.reason, self.exit_code = reason, exit_code


class StopRequest:
    """Remembers why training should end; `pending` is None until then."""

    def __init__(self, time_limit: float | None = None):
        self._signal: int | None = None
        self._limit = time_limit
        self._deadline = None if time_limit is None else time.monotonic() + time_limit

    @property
    def pending(self) -> Stopped | None:
        if self._signal is not None:
            return Stopped(signal.Signals(self._signal).name, 128 + self._signal)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return Stopped(f"time limit of {self._limit:g} s", 0)
        return None

    @contextlib.contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Turns the first SIGTERM or SIGINT into a request; a second one acts as usual."""

        def remember(number, frame):
            self._signal = number
            signal.signal(number, previous[number])

        asking = (signal.SIGTERM, signal.SIGINT)
        previous = {number: signal.signal(number, remember) for number in asking}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
