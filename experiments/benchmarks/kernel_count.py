"""The kernels that eps adds to a step, counted in the compiled program of two networks.

A kernel is an instruction of the program's entry that computes. The step is compared with two
gradients at two given points, so that what is left is T_w, the norm and w + eps. Counted twice: as
this backend compiles, and with reductions left to XLA's fusion. The CPU takes reductions to a
library of their own and cuts long ones into two, which parts them from what they reduce.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import asam_jax
from experiments.benchmarks import compared_steps
from experiments.reporting.tables import markdown

KIND = "benchmark_kernels"
BLOCKS, WIDTH, HEADS, TOKENS, BATCH = 12, 64, 4, 16, 8
NO_KERNELS = {"parameter", "tuple", "get-tuple-element", "constant", "bitcast"}
FUSED = {
    "xla_cpu_experimental_ynn_fusion_type": "",
    "xla_disable_hlo_passes": "tree_reduction_rewriter,library-rewriter",
}
FOOTNOTE = (
    "Kernels that eps adds to two gradients, for each parameter array: as this backend compiles, "
    "and with reductions left to XLA's fusion instead of the CPU's library."
)
LossFn = Callable[[Any], jax.Array]


def kernels(function: Callable[..., Any], *arguments: Any, options: dict[str, Any]) -> int:
    """Instructions of the compiled entry that compute."""
    compiled = jax.jit(function).lower(*arguments).compile(compiler_options=options)
    text = compiled.as_text() or ""
    entry = text[text.index("ENTRY") :]
    found = re.findall(r"^ +(?:ROOT )?%?[\w.\-]+ = .*? ([\w\-]+)\(", entry, flags=re.MULTILINE)
    return sum(name not in NO_KERNELS for name in found)


def added(loss: LossFn, params: Any, options: dict[str, Any]) -> int:
    """What a step of ASAM has more than two gradients."""

    def two(params, others):
        return jax.value_and_grad(loss)(params), jax.grad(loss)(others)

    asam = asam_jax.value_and_grad(loss, rho=0.5)
    return kernels(asam, params, options=options) - kernels(two, params, params, options=options)


def transformer() -> tuple[LossFn, Any]:
    """Pre-norm blocks of attention and a hidden layer, on tokens that are numbers already."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(0.05 * rng.normal(size=shape), jnp.float32)

    def dense(inputs: int, outputs: int) -> dict[str, jax.Array]:
        return {"kernel": normal(inputs, outputs), "bias": jnp.zeros(outputs)}

    def norm() -> dict[str, jax.Array]:
        return {"scale": jnp.ones(WIDTH), "bias": jnp.zeros(WIDTH)}

    def block() -> dict[str, Any]:
        layers = {"qkv": dense(WIDTH, 3 * WIDTH), "out": dense(WIDTH, WIDTH)}
        layers |= {"up": dense(WIDTH, 4 * WIDTH), "down": dense(4 * WIDTH, WIDTH)}
        return layers | {"norm1": norm(), "norm2": norm()}

    tokens_BxTxD = normal(BATCH, TOKENS, WIDTH)

    def loss(params):
        x = tokens_BxTxD
        for p in params:
            x = x + _dense(p["out"], _attention(_dense(p["qkv"], _norm(p["norm1"], x))))
            x = x + _dense(p["down"], jax.nn.gelu(_dense(p["up"], _norm(p["norm2"], x))))
        return jnp.mean(jnp.square(x))

    return loss, [block() for _ in range(BLOCKS)]


def _dense(p, x):
    return x @ p["kernel"] + p["bias"]


def _norm(p, x):
    return jax.nn.standardize(x, epsilon=1e-6) * p["scale"] + p["bias"]


def _attention(qkv_BxTx3D):
    heads = qkv_BxTx3D.reshape(BATCH, TOKENS, 3, HEADS, WIDTH // HEADS)
    mixed = jax.nn.dot_product_attention(heads[:, :, 0], heads[:, :, 1], heads[:, :, 2])
    return mixed.reshape(BATCH, TOKENS, WIDTH)


def resnet20() -> tuple[LossFn, Any]:
    """The paper's smallest network, in training mode."""
    given = compared_steps.problem("resnet20", BATCH, "float32")
    return lambda params: given.loss(params, given.rest)[0], given.params


NETWORKS = {"ResNet-20": resnet20, f"transformer of {BLOCKS} blocks": transformer}


def measure() -> list[dict[str, Any]]:
    """A line for each network."""
    lines = []
    for name, make in NETWORKS.items():
        loss, params = make()
        line = {"kind": KIND, "network": name, "leaves": len(jax.tree.leaves(params))}
        line["kernels"] = added(loss, params, {})
        line["kernels_fused"] = added(loss, params, FUSED)
        lines.append(line)
    return lines


def table(lines: list[dict[str, Any]]) -> str:
    """Kernels that eps adds for each parameter array."""
    header = ["network", "parameter arrays", "kernels each", "with reductions fused"]
    rows = [
        [
            line["network"],
            str(line["leaves"]),
            f"{line['kernels'] / line['leaves']:.2f}",
            f"{line['kernels_fused'] / line['leaves']:.2f}",
        ]
        for line in lines
    ]
    return markdown(header, rows)
