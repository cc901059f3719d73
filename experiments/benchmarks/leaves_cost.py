"""`benchmark leaves`: what a step costs to compile and to run as a network gets more parameters.

Not larger ones but more arrays of them, which a program holds an instruction or more for: 400 are
a ViT-B or a ResNet-101. A chain of dense layers spends least on everything else, so that it shows
what the perturbation adds at its worst.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from tqdm import tqdm

import asam_jax
from experiments.benchmarks import kernel_count
from experiments.config.errors import ConfigError
from experiments.reporting import style
from experiments.reporting.summaries import Section, commands_of
from experiments.reporting.tables import markdown
from experiments.training import provenance, result_lines

KIND = "benchmark_leaves"
LEAVES = (25, 50, 100, 200, 400, 800, 1600)
WIDTH, BATCH = 64, 32
RHO, ETA = 0.5, 0.01
NAMES = {
    "sgd": "SGD",
    "asam": "ASAM",
    "plain": "plain formula",
    "optax": "optax.contrib.sam",
}
FOOTNOTE = (
    f"Dense layers of width {WIDTH} with tanh, a kernel and a bias each, batch {BATCH}, SGD with "
    "momentum; seconds of the wall clock. The plain formula is rho T^2 g / ||T g|| written out, "
    "which overflows, divides by zero and takes one pass less over the gradient; "
    "`optax.contrib.sam` is SAM, without T."
)
Params = dict[str, dict[str, jax.Array]]


def network(leaves: int) -> Params:
    """Layers named in order; an odd leaf is a kernel without a bias."""
    layers = [
        {"kernel": jnp.eye(WIDTH) * 0.9, "bias": jnp.full(WIDTH, 0.1)} for _ in range(leaves // 2)
    ]
    layers += [{"kernel": jnp.eye(WIDTH)}] * (leaves % 2)
    return {f"layer{number:04d}": layer for number, layer in enumerate(layers)}


def loss(params: Params, x: jax.Array) -> jax.Array:
    """The mean square of what comes out."""
    for name in sorted(params):
        x = jnp.tanh(x @ params[name]["kernel"] + params[name].get("bias", 0.0))
    return jnp.mean(jnp.square(x))


def _plain(params: Params, x: jax.Array) -> Params:
    """The gradient at w + eps, as a reader of the paper would write it."""

    def scale(path: Any, w: jax.Array) -> jax.Array:
        return jnp.ones(()) if path[-1].key == "bias" else jnp.abs(w) + ETA

    grads = jax.grad(loss)(params, x)
    scales = jax.tree_util.tree_map_with_path(scale, params)
    scaled = jax.tree.map(jnp.multiply, scales, grads)
    norm = optax.tree.norm(scaled)
    at = jax.tree.map(lambda w, t, s: w + RHO * t * s / norm, params, scales, scaled)
    return jax.grad(loss)(at, x)


def _step(name: str) -> tuple[optax.GradientTransformation, Callable[..., Any]]:
    """The transformation of a form, and its step."""
    base = optax.sgd(0.01, momentum=0.9)
    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    links = {
        "asam": asam_jax.asam(base, RHO, eta=ETA),
        "optax": optax.contrib.sam(base, adversary, opaque_mode=True),
    }
    tx = optax.with_extra_args_support(links.get(name, base))

    def step(params: Params, state: Any, x: jax.Array) -> tuple[Params, Any]:
        def grad_fn(params: Params, _: Any = None) -> Params:
            return jax.grad(loss)(params, x)

        grads = _plain(params, x) if name == "plain" else grad_fn(params)
        extra = {"grad_fn": grad_fn} if name in links else {}
        updates, state = tx.update(grads, state, params, **extra)
        return jax.tree.map(jnp.add, params, updates), state

    return tx, step


def measure(leaves: int, name: str, repeats: int) -> dict[str, Any]:
    """One form at one number of leaves."""
    params, x = network(leaves), jnp.ones((BATCH, WIDTH))
    tx, step = _step(name)
    state = tx.init(params)
    started = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, x).compile()
    seconds = time.perf_counter() - started
    text = compiled.as_text() or ""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        params, state = jax.block_until_ready(compiled(params, state, x))
        times.append(time.perf_counter() - started)
    return {
        "kind": KIND,
        "leaves": leaves,
        "form": name,
        "hlo_characters": len(text),
        "hlo_instructions": sum(" = " in line for line in text.splitlines()),
        "compile_seconds": seconds,
        "step_seconds": statistics.median(times[1:]),
        "repeats": repeats,
    }


def sections(workdir: Path) -> list[Section]:
    """The part of the report, if there are lines."""
    lines = result_lines.read_kind(workdir, KIND)
    if not lines:
        return []
    parts = [table(lines), FOOTNOTE, _device(lines[0])]
    if counted := result_lines.read_kind(workdir, kernel_count.KIND):
        parts += [kernel_count.table(counted), kernel_count.FOOTNOTE]
    body = "\n\n".join([*parts, commands_of(lines[:1])])
    picture = ("benchmark_leaves.png", partial(_picture, lines))
    return [Section("Compilation by number of parameter arrays", body, (picture,))]


def _device(line: dict[str, Any]) -> str:
    device = line["device"]
    return (
        f"Measured on: {device['kind']} ({device['processors']} processors), JAX "
        f"{line['versions']['jax']}, medians over {line['repeats']} steps."
    )


def table(lines: list[dict[str, Any]]) -> str:
    """A row for each number of leaves and form, with the cost relative to optax.contrib.sam."""
    of = {(line["leaves"], line["form"]): line for line in lines}
    rows = []
    for (leaves, form), line in of.items():
        peer = of.get((leaves, "optax"))
        ratio = f"{line['compile_seconds'] / peer['compile_seconds']:.2f}" if peer else "-"
        rows.append(
            [
                str(leaves),
                NAMES[form],
                f"{line['hlo_instructions']:,}",
                f"{line['hlo_characters'] / 1e6:.2f}",
                f"{line['compile_seconds']:.1f}",
                ratio,
                f"{1e3 * line['step_seconds']:.1f}",
            ]
        )
    header = [
        "leaves",
        "step",
        "HLO lines",
        "HLO, MB",
        "compile, s",
        "to optax.contrib.sam",
        "step, ms",
    ]
    return markdown(header, rows)


def _picture(lines: list[dict[str, Any]], path: Path) -> None:
    canvas, axes = style.panels(1, 2, (7.6, 3.4))
    colors = style.COLORS | {"plain": "#cc79a7", "optax": "#009e73"}
    quantities = {"compile_seconds": "compilation, s", "step_seconds": "a step, s"}
    for panel, (quantity, label) in zip(axes, quantities.items(), strict=True):
        for form, name in NAMES.items():
            of_form = sorted(
                (line["leaves"], line[quantity]) for line in lines if line["form"] == form
            )
            panel.plot(*zip(*of_form, strict=True), "o-", color=colors[form], label=name, ms=3)
        panel.set(xscale="log", yscale="log", xlabel="parameter arrays", ylabel=label)
        numbers = sorted({line["leaves"] for line in lines})
        panel.set_xticks(numbers, [str(number) for number in numbers])
        panel.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes[0].legend(frameon=False)
    style.save(canvas, path)


def run(workdir: Path, leaves: list[int], repeats: int) -> None:
    """Measures form by form, prints the table and stores the lines."""
    if not leaves or min(leaves) < 1:
        raise ConfigError(f"--leaves must be positive numbers with commas between, got {leaves}.")
    origin = {
        "command": provenance.command(),
        "versions": provenance.versions(),
        "device": provenance.device(),
    }
    tasks = [(number, form) for number in leaves for form in NAMES]
    lines = []
    for task in tqdm(tasks, desc="measuring", leave=False):
        lines.append(measure(*task, repeats) | origin)
        result_lines.replace(workdir, lines, f"{KIND}.jsonl")  # the largest take minutes
    counted = [line | origin for line in kernel_count.measure()]
    result_lines.replace(workdir, counted, f"{kernel_count.KIND}.jsonl")
    print(f"{table(lines)}\n\n{FOOTNOTE}\n\n{_device(lines[0])}\n")
    print(f"{kernel_count.table(counted)}\n\n{kernel_count.FOOTNOTE}\n")
    print(f"Result lines: {workdir / f'{KIND}.jsonl'}")
