"""`benchmark sharpness`: one-step sharpness of a whole set, relative to what it cannot do without.

That floor is one gradient and one forward pass of every image, by the same groups of m.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tqdm import tqdm

import asam_jax
from experiments.benchmarks import compared_steps
from experiments.config.errors import ConfigError
from experiments.reporting.summaries import Section, commands_of
from experiments.training import provenance, result_lines

KIND = "benchmark_sharpness"
RHO = 0.5


def measure(model: str, images: int, m: int, repeats: int) -> dict[str, Any]:
    """The line of one set; the two take turns, so that what disturbs the machine hits both."""
    if images % m:
        raise ConfigError(f"m={m} does not divide the {images} images; choose an --m that does.")
    loss, params, batch = _problem(model, images)
    starts = range(0, images, m)
    gradient, forward = jax.jit(jax.value_and_grad(loss)), jax.jit(loss)

    def floor() -> float:
        parts, kept = [], None
        for start in starts:
            group = jax.tree.map(lambda a: a[start : start + m], batch)  # noqa: B023
            _, kept = gradient(params, group)
            parts.append(forward(params, group))
        jax.block_until_ready(kept)
        return float(np.mean(jax.device_get(parts)))

    def ours() -> float:
        return float(asam_jax.sharpness(loss, params, batch, rho=RHO, m=m))

    times: dict[str, list[float]] = {"floor": [], "sharpness": []}
    for function in (floor, ours):  # compile
        function()
    for _ in tqdm(range(repeats), desc="measuring", leave=False):
        times["floor"].append(_seconds(floor))
        times["sharpness"].append(_seconds(ours))
    ratios = [a / b for a, b in zip(times["sharpness"], times["floor"], strict=True)]
    return {
        "kind": KIND,
        "model": model,
        "images": images,
        "m": m,
        "repeats": repeats,
        "seconds": statistics.median(times["sharpness"]),
        "floor_seconds": statistics.median(times["floor"]),
        "time_over_floor": statistics.median(ratios),
        "command": provenance.command(),
        "versions": provenance.versions(),
        "device": provenance.device(),
    }


def _problem(model: str, images: int) -> tuple[Callable[[Any, Any], jax.Array], Any, Any]:
    """The network in evaluation mode, on random images: what they show costs nothing."""
    network = compared_steps.network_of(model, "float32")
    network.eval()
    graphdef, params, rest = nnx.split(network, nnx.Param, ...)
    rng = np.random.default_rng(0)
    batch = (
        rng.normal(size=(images, *compared_steps.IMAGE_SHAPE)).astype(np.float32),
        rng.integers(10, size=images).astype(np.int32),
    )

    def loss(params: Any, group: tuple[jax.Array, jax.Array]) -> jax.Array:
        logits = nnx.merge(graphdef, params, rest, copy=True)(group[0])
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, group[1]))

    return loss, params, batch


def _seconds(function: Callable[[], float]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def describe(record: dict[str, Any]) -> str:
    """What was measured on what."""
    device = record["device"]
    return (
        f"One-step sharpness of {record['model']} on {record['images']:,} images in groups of "
        f"{record['m']} takes {record['seconds']:.1f} s, {record['time_over_floor']:.2f} times a "
        f"gradient and a forward pass of each group alone; {device['kind']} "
        f"({device['processors']} processors), JAX {record['versions']['jax']}, medians over "
        f"{record['repeats']} rounds."
    )


def sections(workdir: Path) -> list[Section]:
    """A part of the report for each set that was measured."""
    return [
        Section(
            f"Cost of sharpness: {record['model']}, m = {record['m']}",
            f"{describe(record)}\n\n{commands_of([record])}",
        )
        for record in result_lines.read_kind(workdir, KIND)
    ]


def run(workdir: Path, model: str, images: int, m: int, repeats: int) -> None:
    """Measures, prints the sentence and stores the line."""
    record = measure(model, images, m, repeats)
    name = f"{KIND}_{model}_{images}_{m}.jsonl"
    result_lines.replace(workdir, [record], name)
    print(f"{describe(record)}\n\nResult lines: {workdir / name}")
