"""Where a device's time goes, from JAX's profiler: its operations by total time, launches, idling.

A GPU's kernels are the events of its streams, a TPU's those of its line of XLA operations; on a CPU
they are what XLA's threads name an operation of a program. An operation that holds others (a loop,
say) counts with the time that is its own.
"""

import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.profiler import ProfileData

from experiments.config.errors import ConfigError


class Kernel(NamedTuple):
    """Operations of one name, numbers at its end left out."""

    name: str
    launches: int
    seconds: float


class Profile(NamedTuple):
    """What a device did from the first operation's start to the last one's end."""

    seconds: float
    busy_seconds: float  # in which one operation ran at least
    launches: int  # of operations that hold no others
    kernels: tuple[Kernel, ...]  # the longest in total first

    @property
    def idle(self) -> float:
        """Share of the time in which nothing ran."""
        return 1 - self.busy_seconds / self.seconds


class _Event(NamedTuple):
    start: float  # nanoseconds, as all of these
    end: float
    name: str


def record(run: Callable[[], Any]) -> Profile:
    """The profile of what `run` does; it must wait for the device."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        (path,) = Path(folder).rglob("*.xplane.pb")
        return read(ProfileData.from_file(str(path)))


def read(data: Any) -> Profile:
    """The profile of the first device that did anything; of the CPU, where there is no other.

    Raises:
      ConfigError: the trace holds no operation.
    """
    planes = sorted(data.planes, key=lambda plane: (plane.name == "/host:CPU", plane.name))
    for plane in planes:
        lines = [found for line in plane.lines if (found := _operations(plane.name, line))]
        if lines:
            return _profile(lines)
    raise ConfigError("the trace holds no operation of a device; leave --trace out.")


def _operations(plane: str, line) -> list[_Event]:
    """A line's events that are operations of a device."""
    if plane.startswith("/device:GPU"):
        kept = line.events if line.name.startswith("Stream") else ()
    elif plane.startswith("/device:TPU"):
        kept = line.events if line.name == "XLA Ops" else ()
    elif plane == "/host:CPU":
        kept = (event for event in line.events if _names_an_operation(event))
    else:
        kept = ()
    return [_Event(e.start_ns, e.start_ns + e.duration_ns, e.name) for e in kept]


def _names_an_operation(event) -> bool:
    """Whether an event of the host is an operation of an XLA program."""
    with warnings.catch_warnings():
        # Python 3.13 says at the first of them that their type in jaxlib names no module. Where
        # warnings are errors, jaxlib ends the process by it.
        warnings.filterwarnings("ignore", "builtin type", DeprecationWarning)
        return "hlo_op" in dict(event.stats)


def _profile(lines: list[list[_Event]]) -> Profile:
    every = [event for line in lines for event in line]
    totals: dict[str, tuple[int, float]] = {}
    launches = 0
    for line in lines:
        for event, own, holds in _own_times(line):
            name = re.sub(r"([._]\d+)+$", "", event.name)
            count, seconds = totals.get(name, (0, 0.0))
            totals[name] = count + 1, seconds + own / 1e9
            launches += not holds
    kernels = [Kernel(name, *total) for name, total in totals.items()]
    window = max(event.end for event in every) - min(event.start for event in every)
    return Profile(
        seconds=window / 1e9,
        busy_seconds=_covered(every) / 1e9,
        launches=launches,
        kernels=tuple(sorted(kernels, key=lambda kernel: -kernel.seconds)),
    )


def _own_times(line: list[_Event]) -> Iterator[tuple[_Event, float, bool]]:
    """(event, its time less that of the events within it, whether there are such)."""
    stack: list[list[Any]] = []  # of events that are not over: event, own time, whether it holds
    for event in sorted(line, key=lambda e: (e.start, -e.end)):
        while stack and stack[-1][0].end <= event.start:
            yield tuple(stack.pop())  # pyright: ignore[reportReturnType]
        if stack:
            stack[-1][1] -= min(event.end, stack[-1][0].end) - event.start
            stack[-1][2] = True
        stack.append([event, event.end - event.start, False])
    while stack:
        yield tuple(stack.pop())  # pyright: ignore[reportReturnType]


def _covered(events: list[_Event]) -> float:
    """Length of the union of the events' intervals."""
    covered, reached = 0.0, float("-inf")
    for event in sorted(events):
        covered += max(event.end - max(event.start, reached), 0.0)
        reached = max(reached, event.end)
    return covered
