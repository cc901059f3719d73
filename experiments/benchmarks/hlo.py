"""What a compiled program says of its cost: collectives and kernels from its text; and products.

A loop's body counts as often as it runs, of a condition its costliest branch.
"""

import collections
import math
import re
from typing import Any, NamedTuple

import jax
import numpy as np

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# Instructions of an entry that compute nothing.
FREE = {"parameter", "tuple", "get-tuple-element", "constant", "bitcast", "copy-start", "copy-done"}
FREE |= {"async-done", "after-all", "partition-id", "opt-barrier"}
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([\w\-]+)\((.*)$")
_CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")


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
    """The computations of a text, each line as its shape, its operation and what follows."""

    def __init__(self, text: str):
        self.entry = ""
        self.computations: dict[str, list[tuple[str, ...]]] = collections.defaultdict(list)
        name = ""
        for line in text.splitlines():
            if found := re.match(r"(ENTRY )?%?([\w.\-]+) (?:\(.*)?\{$", line):
                name = found[2]
                self.entry = name if found[1] else self.entry
            elif found := _INSTRUCTION.match(line):
                self.computations[name].append(found.groups())

    def kernels(self) -> int:
        """Instructions of the entry that compute."""
        return sum(op not in FREE for _, op, _ in self.computations[self.entry])

    def collectives(self, devices: int, name: str = "", times: int = 1) -> list[Collective]:
        """All of a computation, or of the program; `devices` are a group where it names none."""
        made = []
        for shape, op, rest in self.computations[name or self.entry]:
            kind, called = op.removesuffix("-start"), _CALLED.findall(rest)
            if kind in COLLECTIVES:
                groups = re.search(r"replica_groups=(?:\{\{([\d,]*)\}|\[\d+,(\d+)\])", rest)
                size = devices  # also of a group that is named by axes of a mesh
                if groups:
                    size = int(groups[2]) if groups[2] else groups[1].count(",") + 1
                result = _result_bytes(shape, op)
                if kind == "all-reduce" and name.startswith("all-reduce-scatter"):  # on a TPU
                    kind, result = "reduce-scatter", result // size
                made.append(Collective(kind, result, size, times))
            elif op == "conditional":
                text = re.search(r"branch_computations=\{(.*?)\}", rest)
                called += re.findall(r"%?([\w.\-]+)", text[1]) if text else []
                branches = [self.collectives(devices, branch, times) for branch in called]
                made += max(branches, key=lambda each: sum(one.sent for one in each))
            elif op in ("while", "fusion", "call", "async-start"):
                often = times * (self._trips(rest) if op == "while" else 1)
                for body in called:
                    made += self.collectives(devices, body, often)
        return made

    def _trips(self, loop: str) -> int:
        """How often a loop runs: what XLA wrote down, or the constant that its counter is below."""
        known = re.search(r'known_trip_count"?[:=]\{"?n"?:"?(\d+)', loop)
        condition = re.search(r"condition=%?([\w.\-]+)", loop)
        each = self.computations[condition[1]] if condition else []
        below = [re.match(r"(\d+)\)", rest) for _, op, rest in each if op == "constant"]
        numbers = [int(one[1]) for one in (known, *below) if one]
        return numbers[0] if numbers else 1


def _result_bytes(shape: str, op: str) -> int:
    arrays = [
        math.prod(int(n) for n in dims.split(",") if n) * max(int(bits or 8) // 8, 1)
        for bits, dims in re.findall(r"\b[a-z]+(\d*)(?:e\d\w*)?\[([\d,]*)\]", shape)
    ]
    if op == "all-gather-start" and len(arrays) > 1:
        arrays = arrays[len(arrays) // 2 :]  # operands come first
    return arrays[0] if op == "collective-permute-start" else sum(arrays)


def summed(found: list[Collective]) -> dict[str, dict[str, int]]:
    """Count and bytes of each kind: once as the program has them, and in a step with its loops."""
    made: dict[str, dict[str, int]] = collections.defaultdict(lambda: dict(count=0, run=0, bytes=0))
    for one in found:
        row = made[one.kind]
        row["count"] += 1
        row["run"] += one.times
        row["bytes"] += one.times * one.bytes
    return dict(made)


def product_flops(jaxpr: Any) -> float:
    """FLOPs of the products and convolutions of a traced step, on all devices together."""
    total = 0.0
    for one in jaxpr.eqns:
        values = jax.tree.leaves(list(one.params.values()), is_leaf=lambda x: hasattr(x, "eqns"))
        inner = [product_flops(value) for value in values if hasattr(value, "eqns")]
        name = one.primitive.name
        if name == "dot_general":
            axes = one.params["dimension_numbers"][0][0]
            contracted = [one.invars[0].aval.shape[axis] for axis in axes]
            total += 2 * one.outvars[0].aval.size * math.prod(contracted)
        elif name == "conv_general_dilated":
            total += _convolution(one)
        elif inner:
            often = one.params.get("length", 1)  # of a scan
            often *= one.params["mesh"].size if name == "shard_map" else 1
            total += often * (max(inner) if name == "cond" else sum(inner))
    return total


def _convolution(one: Any) -> float:
    """Two for each pair of entries that are multiplied; padding and dilation multiply nothing."""
    image, kernel = (each.aval.shape for each in one.invars)
    out, how = one.outvars[0].aval.shape, one.params
    left, right, result = how["dimension_numbers"]
    total = 2.0 * out[result[0]] * out[result[1]] * kernel[right[1]]
    for axis in range(len(out) - 2):
        steps = np.arange(out[result[2 + axis]]) * how["window_strides"][axis]
        taps = np.arange(kernel[right[2 + axis]]) * how["rhs_dilation"][axis]
        places = steps[:, None] + taps[None] - how["padding"][axis][0]
        apart = how["lhs_dilation"][axis]
        last = (image[left[2 + axis]] - 1) * apart
        total *= np.count_nonzero((places >= 0) & (places <= last) & (places % apart == 0))
    return total
