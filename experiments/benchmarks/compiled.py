"""`benchmark compiled`: what steps cost on machines that are not here, by their own compilers.

libtpu and XLA's CUDA backend compile for pods and hosts that this machine has none of. Nothing
runs: memory, FLOPs, bytes, collectives and kernels are the compiled program's. From them and the
chip's published figures comes a bound on the time of a step, which is no measurement.
"""

import contextlib
import dataclasses
import importlib.metadata
import math
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh
from tqdm import tqdm

from experiments.benchmarks import compiled_steps, hlo, timing
from experiments.benchmarks.compiled_steps import AXIS, MODELS, VARIANTS
from experiments.benchmarks.timing import Record
from experiments.config.errors import ConfigError
from experiments.config.run import one_of
from experiments.reporting import style
from experiments.reporting.summaries import Section, commands_of
from experiments.reporting.tables import markdown
from experiments.training import result_lines

KIND = "compiled"
TITLE = "On machines that were not here"


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of a chip: what a bound is made from."""

    name: str
    flops: float  # bfloat16, dense, a second
    memory: float  # bytes
    bandwidth: float  # bytes a second of its memory
    links: float  # bytes a second that it sends over all its links together
    source: str


CHIPS = {
    "v5e": Chip("TPU v5e", 197e12, 16e9, 819e9, 200e9, "https://cloud.google.com/tpu/docs/v5e"),
    "v5p": Chip("TPU v5p", 459e12, 95e9, 2765e9, 600e9, "https://cloud.google.com/tpu/docs/v5p"),
    "h100": Chip(
        "H100 SXM", 989e12, 80e9, 3350e9, 450e9, "https://www.nvidia.com/en-us/data-center/h100"
    ),
}
_H100 = """gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32
shared_memory_per_block: 49152 shared_memory_per_core: 233472 threads_per_core_limit: 2048
core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
clock_rate_ghz: 1.98 device_memory_size: 84978434048 shared_memory_per_block_optin: 232448
cuda_compute_capability { major: 9 } registers_per_core_limit: 65536
registers_per_block_limit: 65536 } platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 patch: 0 } device_description_str: "NVIDIA H100 80GB HBM3" """


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Memory, FLOPs, collectives and a bound on the time of steps on machines that are not here.

    Needs the extra tpu-compile for TPUs, and jax[cuda12] for H100. What is stored already is left
    out, so that a stopped command goes on.
    """

    topology: tuple[str, ...] = ("v5e:2x4",)
    """v5e:2x4, v5e:16x16, v5p:8x8x8, h100:8 and the like."""
    model: tuple[str, ...] = ("resnet20",)
    """small, resnet20, wrn28_10, vit_b16, transformer_small, transformer_1b or eps."""
    variant: tuple[str, ...] = ()
    """Some only, by name."""
    workdir: Path = Path("runs")
    """Folder for results."""


def devices_of(topology: str) -> tuple[list[Any], dict[str, Any]]:
    """The devices of a topology, and the options to compile for them.

    Raises:
      ConfigError: the compiler is not installed, or knows no such topology.
    """
    # No metadata server is asked for the host's TPUs, and other processes may compile, too.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    chip, _, size = topology.partition(":")
    one_of("chip of --topology", chip, CHIPS)
    needs = "jax[cuda12]" if chip == "h100" else "libtpu, from pip install -e '.[tpu-compile]'"
    try:
        if chip == "h100":
            found = topologies.get_topology_desc(
                platform="cuda", topology_name="H100", topology=f"1x{size}x1", target_config=_H100
            )
        else:
            found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise ConfigError(f"topology {topology!r} needs {needs}: {error}") from error
    return found.devices, {"xla_gpu_autotune_level": 0} if chip == "h100" else {}


def measure(topology: str, model: str, variant: str) -> Record:
    """Compiles one step and reads the program."""
    devices, options = devices_of(topology)
    if model == "eps":
        devices = devices[:1]
    mesh = Mesh(np.array(devices), (AXIS,))
    given = MODELS[model][1](mesh)
    step, state = compiled_steps.step(given, variant)
    arguments = (given.params, given.rest, state, given.batch)
    started = time.perf_counter()
    donated = () if model == "eps" else (0, 1, 2)
    lowered = jax.jit(step, donate_argnums=donated, keep_unused=True).lower(*arguments)
    compiled = lowered.compile(compiler_options=options)
    seconds = time.perf_counter() - started
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    program = hlo.Program(compiled.as_text() or "")
    found = program.collectives(len(devices))
    record = {
        "kind": KIND,
        "topology": topology,
        "chips": len(devices),
        "model": model,
        "variant": variant,
        "leaves": len(jax.tree.leaves(given.params)),
        "shard_bytes": given.shard,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "flops": cost["flops"],
        "bytes": cost["bytes accessed"],
        "product_flops": program.product_flops(),
        "loops": program.loops(),
        "kernels": program.kernels(),
        "collectives": hlo.summed(found),
        "sent_bytes": sum(one.sent for one in found),
        "compile_seconds": seconds,
    } | timing.origin()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        record["versions"]["libtpu"] = importlib.metadata.version("libtpu")
    return record


def bound(record: Record) -> dict[str, float]:
    """Seconds that a step takes at the least, by what it waits for."""
    chip = CHIPS[record["topology"].partition(":")[0]]
    return {
        "FLOPs": max(record["flops"], record["product_flops"]) / chip.flops,
        "memory": record["bytes"] / chip.bandwidth,
        "links": record["sent_bytes"] / chip.links,
    }


def _count(record: Record, kind: str, what: str = "count") -> int:
    return record["collectives"].get(kind, {}).get(what, 0)


def targets(of: dict[str, Record]) -> list[tuple[str, str, float, float]]:
    """(what, its unit, the target, what was reached) for the steps of one model and topology."""
    made = []
    if "eps" in of and "two gradients" in of:
        leaves, two = of["eps"]["leaves"], of["two gradients"]["kernels"]
        added = {name: (line["kernels"] - two) / leaves for name, line in of.items()}
        most = 1.7
        if of["eps"]["topology"].startswith("h100"):
            most = added.get("plain formula", math.nan) + 0.3
        made.append(("kernels that eps adds", "for each parameter array", most, added["eps"]))
    base, exact = of.get("base"), of.get("exact")
    if base is None or exact is None or base["model"] == "small":  # its steps are no work
        return made
    if exact["model"].startswith("transformer"):
        ratio = exact["temporary_bytes"] / base["temporary_bytes"]
        made.append(("temporaries", "times the base optimizer's", 1.002, ratio))
    made.append(("FLOPs", "times the base optimizer's", 2.001, exact["flops"] / base["flops"]))
    for kind, more in (("all-reduce", 1), ("all-gather", 0)):
        most = 2 * _count(base, kind) + more
        made.append((f"{kind}s", "in the program", most, _count(exact, kind)))
    for name in ("gsam", "wsam", "decoupled", "looksam", "stable"):
        if name in of:
            more = of[name]["temporary_bytes"] - exact["temporary_bytes"]
            unit = "parameter shards beyond exact ASAM's temporaries"
            made.append((name, unit, 1.1, more / exact["shard_bytes"]))
    return made


def table(records: list[Record]) -> str:
    """A row for each step of one model on one topology."""
    of = {record["variant"]: record for record in records}
    base, rows = of.get("base", records[0]), []
    for record in records:
        times = bound(record)
        slowest = max(times, key=times.__getitem__)
        said = []
        for kind in ("all-gather", "all-reduce"):
            size = _count(record, kind, "bytes") / 1e6
            said.append(f"{_count(record, kind)} ({size:,.1f} MB)")
        others = sum(
            row["count"]
            for kind, row in record["collectives"].items()
            if kind not in ("all-gather", "all-reduce")
        )
        over = lambda n, r=record: f"{r[n] / base[n]:.3f}" if base[n] else "-"  # noqa: E731
        rows.append(
            [
                record["variant"],
                f"{record['argument_bytes'] / 1e6:,.1f}",
                f"{record['temporary_bytes'] / 1e6:,.1f}",
                over("temporary_bytes"),
                over("flops"),
                over("bytes"),
                *said,
                str(others),
                str(record["kernels"]),
                f"{record['compile_seconds']:.0f}",
                f"{1e3 * times[slowest]:.2f} ({slowest})",
            ]
        )
    header = ["step", "arguments, MB a chip", "temporaries, MB a chip", "/ base", "FLOPs / base"]
    header += ["bytes / base", "all-gathers", "all-reduces", "other collectives", "kernels"]
    return markdown([*header, "compiled in, s", "at least, ms"], rows)


def sections(workdir: Path) -> list[Section]:
    """One part of the report for all topologies and models."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in result_lines.read_kind(workdir, KIND):
        found.setdefault((record["model"], record["topology"]), []).append(record)
    if not found:
        return []
    body, reached = [], []
    for (model, topology), records in found.items():
        name = f"{MODELS[model][0]}, {topology}"
        body += [f"{name} ({records[0]['chips']} chips):", table(records)]
        for what, unit, most, got in targets({record["variant"]: record for record in records}):
            met = "yes" if got <= most else "no"
            reached.append([name, f"{what}, {unit}", f"{most:.4g}", f"{got:.4g}", met])
    versions = {line["versions"]["jax"] for lines in found.values() for line in lines}
    said = (
        "Compiled without the machines, by their compilers; nothing ran. The last column is a "
        "bound and not a measurement: the largest of FLOPs over the chip's peak, bytes over its "
        "memory's bandwidth, and bytes sent over its links. XLA's FLOPs and bytes count the body "
        "of a loop once, so that the layers of a scan weigh less in them than in the step; the "
        "bound takes products and collectives as often as they run. Of a condition the costliest "
        f"branch counts. JAX {', '.join(sorted(versions))}. Figures of the chips: "
    )
    said += "; ".join(
        f"{chip.name}: {chip.flops / 1e12:.0f} TFLOP/s, {chip.bandwidth / 1e9:,.0f} GB/s, links "
        f"{chip.links / 1e9:.0f} GB/s out ({chip.source})"
        for chip in CHIPS.values()
    )
    if reached:
        header = ["program", "what", "at most", "reached", "met"]
        body = ["Targets:", markdown(header, reached), *body]
    lines = [line for lines in found.values() for line in lines]
    body = "\n\n".join([f"{said}.", *body, commands_of(lines)])
    return [Section(TITLE, body, (("compiled.png", partial(_picture, found)),))]


def _picture(found: dict[tuple[str, str], list[Record]], path: Path) -> None:
    """The bound of each variant over the base optimizer's, model by model."""
    shown = {key: of for key, of in found.items() if any(r["variant"] == "base" for r in of)}
    names = [n for n in VARIANTS if any(r["variant"] == n for of in shown.values() for r in of)]
    canvas, axes = style.figure((7.0, 0.5 + 0.3 * max(len(names), 4)))
    height = 0.8 / max(len(shown), 1)
    for index, ((model, topology), records) in enumerate(shown.items()):
        least = {r["variant"]: max(bound(r).values()) for r in records}
        rows = [n for n in names if n in least]
        where = [names.index(n) + index * height for n in rows]
        ratios = [least[n] / least["base"] for n in rows]
        axes.barh(where, ratios, height, label=f"{model}, {topology}")
    axes.set_yticks([i + 0.4 - height / 2 for i in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xlabel("bound on the time of a step / the base optimizer's")
    axes.legend(frameon=False, fontsize=7)
    style.save(canvas, path)


def run(options: Compiled) -> None:
    """Compiles what is not stored yet, stores each line at once, prints the tables."""
    for model in options.model:
        one_of("model", model, MODELS)
    stored = result_lines.read_kind(options.workdir, KIND) if options.workdir.is_dir() else []
    known = {(r["topology"], r["model"], r["variant"]) for r in stored}
    tasks = []
    for topology in options.topology:
        for model in options.model:
            names = compiled_steps.variants_of(model)
            for variant in options.variant or names:
                one_of("variant", variant, names)
                tasks.append((topology, model, variant))
    options.workdir.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_enable_compilation_cache", False)  # no device, none to read it for
    for task in tqdm([task for task in tasks if task not in known], desc="compiling", leave=False):
        result_lines.append(options.workdir, measure(*task))
    for section in sections(options.workdir):
        print(section.body)
    print(f"\nResult lines: {options.workdir / KIND}.jsonl")
