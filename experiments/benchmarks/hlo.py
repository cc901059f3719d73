"""What the text of a compiled program says of its cost: collectives, products and kernels.

A loop's body counts as often as XLA knows that it runs, of a condition its costliest branch.
"""

import collections
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# Instructions of an entry that compute nothing.
FREE = {"parameter", "tuple", "get-tuple-element", "constant", "bitcast", "copy-start", "copy-done"}
FREE |= {"async-done", "after-all", "partition-id", "opt-barrier"}
_BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8}
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]+\d*(?:e\d\w*)?)\[([\d,]*)\]")


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    shape: str
    op: str
    rest: str  # operands and attributes


class Collective(NamedTuple):
    """One that runs `times` in a step, among groups of so many devices."""

    kind: str
    bytes: int  # of its result
    devices: int
    times: int

    @property
    def sent(self) -> float:
        """Bytes that a device must send for it, at the least."""
        share = (self.devices - 1) / self.devices
        factor = {"all-reduce": 2 * share, "reduce-scatter": self.devices - 1}
        factor |= {"collective-permute": 1}
        return self.times * self.bytes * factor.get(self.kind, share)


class Program:
    """The computations of a module's text."""

    def __init__(self, text: str):
        self.text, self.entry = text, ""
        self.computations: dict[str, list[Instruction]] = {}
        name = None
        for line in text.splitlines():
            if found := re.match(r"(ENTRY )?%?([\w.\-]+) (?:\(.*)?\{$", line):
                name = found[2]
                self.entry = name if found[1] else self.entry
                self.computations[name] = []
            elif name is not None and (found := _INSTRUCTION.match(line)):
                self.computations[name].append(Instruction(*found.groups()))

    def kernels(self) -> int:
        """Instructions of the entry that compute."""
        return sum(one.op not in FREE for one in self.computations[self.entry])

    def loops(self) -> int:
        """How many loops there are, whose bodies XLA's own analysis counts once."""
        return sum(one.op == "while" for each in self.computations.values() for one in each)

    def collectives(self, devices: int) -> list[Collective]:
        """All of them; `devices` make a group where the text names none."""

        def found(one: Instruction, times: int, _) -> Iterator[Collective]:
            kind = one.op.removesuffix("-start")
            if kind in COLLECTIVES:
                groups = re.search(r"replica_groups=(?:\{\{([\d,]*)\}|\[\d+,(\d+)\])", one.rest)
                size = devices  # also of a group that is named by axes of a mesh
                if groups:
                    size = int(groups[2]) if groups[2] else groups[1].count(",") + 1
                yield Collective(kind, _result_bytes(one), size, times)

        return self._walk(found, lambda each: sum(one.sent for one in each))

    def product_flops(self) -> float:
        """Of products and convolutions alone, loops by how often they run."""

        def found(one: Instruction, times: int, shapes: dict[str, str]) -> Iterator[float]:
            if one.op in ("dot", "convolution"):
                yield times * _flops(one, shapes)

        return float(sum(self._walk(found, sum)))

    def _walk(self, found: Callable[..., Iterator[Any]], cost: Callable[[list], float]) -> list:
        def walk(name: str, times: int) -> list:
            each = self.computations.get(name, [])
            shapes, made = {one.name: one.shape for one in each}, []
            for one in each:
                made += found(one, times, shapes)
                called = re.findall(r"(?:calls|to_apply|body)=%?([\w.\-]+)", one.rest)
                if one.op == "conditional":
                    text = re.search(r"branch_computations=\{(.*?)\}", one.rest)
                    branches = re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", one.rest)
                    branches += re.findall(r"%?([\w.\-]+)", text[1]) if text else []
                    made += max((walk(branch, times) for branch in branches), key=cost)
                elif one.op in ("while", "fusion", "call", "async-start"):
                    often = self._trips(one) if one.op == "while" else 1
                    made += [each for body in called for each in walk(body, times * often)]
            return made

        return walk(self.entry, 1)

    def _trips(self, loop: Instruction) -> int:
        """How often a loop runs: what XLA wrote down, or the constant that its counter is below."""
        known = re.search(r'known_trip_count"?[:=]\{"?n"?:"?(\d+)', loop.rest)
        condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)
        each = self.computations.get(condition[1], []) if condition else []
        below = [re.match(r"(\d+)\)", one.rest) for one in each if one.op == "constant"]
        numbers = [int(one[1]) for one in (known, *below) if one]
        return numbers[0] if numbers else 1


def _result_bytes(one: Instruction) -> int:
    arrays = [_bytes(*shape) for shape in _SHAPE.findall(one.shape)]
    if one.op == "all-gather-start" and len(arrays) > 1:
        arrays = arrays[len(arrays) // 2 :]  # operands come first
    if one.op == "collective-permute-start":
        arrays = arrays[:1]
    return sum(arrays)


def _bytes(dtype: str, dims: str) -> int:
    bits = re.sub(r"\D", "", dtype)
    each = _BYTES.get(dtype) or max(int(bits or 8) // 8, 1)
    return each * math.prod(_numbers(dims))


def _numbers(dims: str) -> list[int]:
    return [int(n) for n in dims.split(",") if n]


def _dims(shape: str) -> list[int]:
    found = _SHAPE.search(shape)
    return _numbers(found[2]) if found else []


def _flops(one: Instruction, shapes: dict[str, str]) -> float:
    """Two for each pair of entries that are multiplied; padding and dilation multiply nothing."""
    operands = [part.split()[-1].lstrip("%") for part in one.rest.split(")")[0].split(",")]
    sides = [_dims(shapes.get(name, "")) for name in operands[:2]]
    out = _dims(one.shape)
    if one.op == "dot":
        (axes,) = re.findall(r"lhs_contracting_dims=\{([\d,]*)\}", one.rest)
        return 2.0 * math.prod(out) * math.prod(sides[0][axis] for axis in _numbers(axes))
    ((left, right, result),) = re.findall(r"dim_labels=(\w+)_(\w+)->(\w+)", one.rest)
    window = re.search(r"window=\{(.*?)\}", one.rest)
    given = dict(item.split("=") for item in window[1].split()) if window else {}
    total = 2.0 * sides[1][right.index("i")]
    total *= math.prod(n for n, label in zip(out, result, strict=True) if label in "bf")
    for axis, label in enumerate(sorted(label for label in result if label.isdigit())):
        at = {name: text.split("x")[axis] for name, text in given.items()}
        stride, near = int(at.get("stride", 1)), int(at.get("pad", "0_0").split("_")[0])
        spread, step = int(at.get("rhs_dilate", 1)), int(at.get("lhs_dilate", 1))
        last = (sides[0][left.index(label)] - 1) * step
        places = (
            o * stride + k * spread - near
            for o in range(out[result.index(label)])
            for k in range(int(at.get("size", 1)))
        )
        total *= sum(0 <= place <= last and place % step == 0 for place in places)
    return total


def summed(found: list[Collective]) -> dict[str, dict[str, int]]:
    """Count and bytes of each kind: once as the program has them, and in a step with its loops."""
    made: dict[str, dict[str, int]] = collections.defaultdict(lambda: dict(count=0, run=0, bytes=0))
    for one in found:
        row = made[one.kind]
        row["count"] += 1
        row["run"] += one.times
        row["bytes"] += one.times * one.bytes
    return dict(made)
