"""`benchmark compiled`: what steps cost on machines that are not here, by their own compilers.

libtpu and XLA's CUDA backend compile for pods and hosts that this machine has none of. Nothing
runs: memory, FLOPs, bytes, collectives and kernels are the compiled program's. From them and the
chip's published figures comes a bound on the time of a step, which is no measurement.
"""

import contextlib
import dataclasses
import importlib.metadata
import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh
from tqdm import tqdm

from experiments.benchmarks import compiled_steps, hlo
from experiments.benchmarks.compiled_models import AXIS, MODELS
from experiments.benchmarks.compiled_report import CHIPS, KIND, sections
from experiments.benchmarks.timing import Record
from experiments.config.errors import ConfigError
from experiments.config.run import one_of
from experiments.training import provenance, result_lines

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
    model: tuple[str, ...] = ("small",)
    """small (seconds), resnet20, wrn28_10, vit_b16, transformer_1b or eps."""
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
    # Triton's tilings are chosen by trying them on a device.
    options = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
    return found.devices, options if chip == "h100" else {}


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
    traced = jax.jit(step, donate_argnums=donated, keep_unused=True).trace(*arguments)
    compiled = traced.lower().compile(compiler_options=options)
    seconds = time.perf_counter() - started
    memory: Any = compiled.memory_analysis()
    products = hlo.product_flops(traced.jaxpr) / len(devices)
    cost: Any = compiled.cost_analysis() or {}  # XLA gives none of a GPU that is not here
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
        "peak_bytes": memory.peak_memory_in_bytes,  # of all that is alive at once
        "flops": cost.get("flops", products),
        "bytes": cost.get("bytes accessed", 0.0),
        "product_flops": products,
        "kernels": program.kernels(),
        "collectives": hlo.summed(found),
        "sent_bytes": sum(one.sent for one in found),
        "compile_seconds": seconds,
    } | provenance.stamp()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        record["versions"]["libtpu"] = importlib.metadata.version("libtpu")
    return record


def run(options: Compiled) -> None:
    """Compiles what is not stored yet, stores each line at once, prints the tables."""
    for model in options.model:
        one_of("model", model, MODELS)
        for variant in options.variant:
            one_of("variant", variant, compiled_steps.variants_of(model))
    stored = result_lines.read_kind(options.workdir, KIND) if options.workdir.is_dir() else []
    known = {(r["topology"], r["model"], r["variant"]) for r in stored}
    tasks = [
        (topology, model, variant)
        for topology in options.topology
        for model in options.model
        for variant in options.variant or compiled_steps.variants_of(model)
    ]
    options.workdir.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_enable_compilation_cache", False)  # no device, none to read it for
    for task in tqdm([task for task in tasks if task not in known], desc="compiling", leave=False):
        result_lines.append(options.workdir, measure(*task))
    for section in sections(options.workdir):
        print(section.body)
    print(f"\nResult lines: {options.workdir / KIND}.jsonl")
