"""`benchmark leaves`: what a step costs to compile and to run as a network gets more arrays.

Not larger ones but more of them: 400 are a ViT-B or a ResNet-101. A chain of dense layers spends
least on everything else, so that it shows what the perturbation adds at its worst.
"""

import dataclasses
import itertools
import statistics
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

import asam_jax
from experiments.benchmarks import timing
from experiments.benchmarks.problem import plain_formula
from experiments.benchmarks.timing import Record
from experiments.reporting.summaries import Section, machines
from experiments.reporting.tables import markdown
from experiments.training import provenance
from experiments.training.variants import AUTHORS

KIND = "benchmark_leaves"
WIDTH, BATCH, RHO = 64, 32, 0.5
NAMES = {"sgd": "SGD", "asam": "ASAM", "plain": "plain formula", "optax": "optax.contrib.sam"}
FOOTNOTE = (
    f"Dense layers of width {WIDTH} with tanh, a kernel and a bias each, batch {BATCH}, SGD with "
    "momentum; seconds of the wall clock. The plain formula is rho T^2 g / ||T g|| written out, "
    "which overflows and divides by zero; `optax.contrib.sam` is SAM, without T."
)


@dataclasses.dataclass(frozen=True)
class Leaves:
    """What a step costs to compile and to run as the parameter arrays get more."""

    leaves: tuple[int, ...] = (25, 50, 100, 200, 400, 800, 1600)
    """Numbers of parameter arrays."""
    repeats: int = 10
    """Steps that are timed."""
    workdir: Path = Path("runs")
    """Folder for results."""


def network(leaves: int) -> dict[str, dict[str, jax.Array]]:
    """Layers named in order; an odd leaf is a kernel without a bias."""
    layer = {"kernel": jnp.eye(WIDTH) * 0.9, "bias": jnp.full(WIDTH, 0.1)}
    layers = [dict(layer) for _ in range(leaves // 2)] + [{"kernel": jnp.eye(WIDTH)}] * (leaves % 2)
    return {f"layer{number:04d}": layer for number, layer in enumerate(layers)}


def loss(params: Any, x: jax.Array) -> jax.Array:
    """The mean square of the outputs."""
    for name in sorted(params):
        x = jnp.tanh(x @ params[name]["kernel"] + params[name].get("bias", 0.0))
    return jnp.mean(jnp.square(x))


def measure(leaves: int, name: str, repeats: int) -> Record:
    """One step at one number of leaves."""
    base = optax.sgd(0.01, momentum=0.9)
    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    sam = optax.contrib.sam(base, adversary, opaque_mode=True)
    others = {"asam": asam_jax.asam(base, RHO, operator=AUTHORS), "optax": sam}
    tx = optax.with_extra_args_support(others.get(name, base))

    def step(state: Any) -> Any:
        params, opt_state, x = state
        grad_fn = lambda params, _=None: jax.grad(loss)(params, x)  # noqa: E731
        grads = grad_fn(params)
        if name == "plain":
            eps = plain_formula(params, grads, RHO)
            grads = grad_fn(jax.tree.map(jnp.add, params, eps))
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn)
        return jax.tree.map(jnp.add, params, updates), opt_state, x

    state = network(leaves), tx.init(network(leaves)), jnp.ones((BATCH, WIDTH))
    program = timing.Program((step,), state)
    program()
    text = program.calls[0].as_text() or ""
    return {
        "kind": KIND,
        "leaves": leaves,
        "form": name,
        "hlo_characters": len(text),
        "hlo_instructions": sum(" = " in line for line in text.splitlines()),
        "compile_seconds": program.compile_seconds,
        "step_seconds": statistics.median(program() for _ in range(repeats)),
        "repeats": repeats,
    }


def table(lines: list[Record]) -> str:
    """A row for each number of leaves and step, with the cost relative to optax.contrib.sam."""
    of = {(line["leaves"], line["form"]): line for line in lines}
    rows = []
    for (leaves, form), line in of.items():
        seconds = line["compile_seconds"]
        row = [str(leaves), NAMES[form], f"{line['hlo_instructions']:,}"]
        row += [f"{line['hlo_characters'] / 1e6:.2f}", f"{seconds:.1f}"]
        row += [f"{seconds / of[leaves, 'optax']['compile_seconds']:.2f}"]
        rows.append([*row, f"{1e3 * line['step_seconds']:.1f}"])
    header = ["leaves", "step", "HLO lines", "HLO, MB", "compile, s", "to optax.contrib.sam"]
    return markdown([*header, "step, ms"], rows)


def describe(lines: list[Record]) -> str:
    """The table, and what was measured on what."""
    said = f"{machines(lines)}; medians over {lines[0]['repeats']} steps."
    return f"{table(lines)}\n\n{FOOTNOTE}\n\n{said}"


def sections(workdir: Path) -> list[Section]:
    """The part of the report, if there are lines."""
    title = "Compilation by number of parameter arrays"
    return timing.sections(workdir, KIND, lambda _: title, describe)


def run(options: Leaves) -> None:
    """Measures step by step, prints the table and stores the lines."""
    shared = provenance.stamp()
    steps = itertools.product(options.leaves, NAMES)
    lines = [measure(number, form, options.repeats) | shared for number, form in steps]
    print(describe(lines))
    timing.store(options.workdir, lines)
