"""`benchmark step`: what a step of each form costs, relative to SGD and to two bare gradients."""

import statistics
import time
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from experiments import forms, provenance, results
from experiments.forms import Form
from experiments.tables import markdown

KIND = "benchmark_step"


class Timed:
    """A compiled form, run call by call on its own state."""

    def __init__(self, form: Form):
        self.form = form
        self.compiled = jax.jit(form.step, donate_argnums=0).lower(form.state).compile()
        self.state = form.state
        self.seconds: list[float] = []

    def run(self) -> float:
        """One training step, timed to its end."""
        started = time.perf_counter()
        for _ in range(self.form.calls):
            self.state = self.compiled(self.state)
        jax.block_until_ready(self.state)
        return time.perf_counter() - started

    @property
    def flops(self) -> float | None:
        """Of one training step, as XLA counts them."""
        analysis = self.compiled.cost_analysis() or {}
        flops = analysis.get("flops")
        return None if flops is None else flops * self.form.calls

    @property
    def temporary_bytes(self) -> int | None:
        memory = self.compiled.memory_analysis()
        return None if memory is None else memory.temp_size_in_bytes


def measure(model: str, batch_size: int, dtype: str, repeats: int) -> list[dict[str, Any]]:
    """One line a form; the forms take turns, so that what disturbs the machine hits them alike."""
    given = forms.problem(model, batch_size, dtype)
    made = [*forms.all_forms(given), forms.bare_gradient(given), forms.bare_update(given)]
    copies = {form.name: _bytes(form.state) for form in made}
    timed = [Timed(form) for form in tqdm(made, desc="compiling", leave=False)]
    for one in timed:
        one.run()
    for _ in tqdm(range(repeats), desc="measuring", leave=False):
        for one in timed:
            one.seconds.append(one.run())
    parameters = _bytes(given.params)
    by_name = {one.form.name: one for one in timed}
    sgd = by_name["SGD"]
    floors = [
        2 * gradient + update
        for gradient, update in zip(
            by_name["one gradient"].seconds, by_name["base update"].seconds, strict=True
        )
    ]
    shared = {
        "kind": KIND,
        "model": model,
        "batch_size": batch_size,
        "dtype": dtype,
        "repeats": repeats,
        "command": provenance.command(),
        "versions": provenance.versions(),
        "device": provenance.device(),
    }
    return [
        {
            "form": one.form.name,
            "seconds": statistics.median(one.seconds),
            "time_over_sgd": _median_ratio(one.seconds, sgd.seconds),
            "time_over_two_gradients_and_update": _median_ratio(one.seconds, floors),
            "flops": one.flops,
            "flops_over_sgd": _ratio(one.flops, sgd.flops),
            "temporary_bytes": one.temporary_bytes,
            "temporary_over_sgd": _ratio(one.temporary_bytes, sgd.temporary_bytes),
            "parameter_copies": (copies[one.form.name] - copies["SGD"]) / parameters,
            **shared,
        }
        for one in timed
    ]


def _bytes(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _median_ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over rounds of the ratio within a round, which slow drifts do not touch."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or not theirs else ours / theirs


def table(records: list[dict[str, Any]]) -> str:
    """The steps, without the two bare parts that they are measured against."""
    rows = [
        [
            record["form"],
            _number(record["flops_over_sgd"], 3),
            _number(record["temporary_over_sgd"], 3),
            f"{record['parameter_copies']:+.1f}",
            _number(record["time_over_sgd"], 2),
            _number(record["time_over_two_gradients_and_update"], 3),
            f"{1000 * record['seconds']:.1f}",
        ]
        for record in records
        if record["form"] not in ("one gradient", "base update")
    ]
    header = [
        "step",
        "FLOPs / SGD",
        "temporary memory / SGD",
        "copies of the parameters kept, beyond SGD's",
        "time / SGD",
        "time / (2 gradients + update)",
        "ms",
    ]
    return markdown(header, rows)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def run(workdir: Path, model: str, batch_size: int, dtype: str, repeats: int) -> None:
    """Measures, prints the table and stores the lines."""
    records = measure(model, batch_size, dtype, repeats)
    name = f"{KIND}_{model}_{batch_size}_{dtype}.jsonl"
    results.replace(workdir, records, name)
    first = records[0]
    print(f"{model}, batch {batch_size}, {dtype}, {first['device']['kind']}, {repeats} rounds\n")
    print(table(records))
    print(f"\nResult lines: {workdir / name}")
