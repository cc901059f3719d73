"""In which arithmetic a number was had, said as its line has it: dtype, precision and device."""

from typing import Any

from experiments.config.run import LATER
from experiments.training import result_lines

# Of float32 at each jax_default_matmul_precision, as jax.lax.Precision documents it.
_FLOAT32 = {
    ("gpu", "default"): "products and convolutions in TF32",
    ("gpu", "high"): "products and convolutions in TF32",
    ("tpu", "default"): "products and convolutions in bfloat16",
    ("tpu", "high"): "products and convolutions in three passes of bfloat16",
    ("tpu", "highest"): "products and convolutions in six passes of bfloat16",
}


def in_words(record: dict[str, Any]) -> str:
    """'bfloat16', or 'float32 (products and convolutions in TF32)'."""
    if record["dtype"] != "float32":
        return record["dtype"]
    chosen = record.get("precision", LATER["precision"])
    if chosen not in ("default", "high", "highest"):  # an algorithm that JAX was set to
        return f"float32 (products by {chosen})"
    words = _FLOAT32.get((result_lines.platform(record), chosen))
    return f"float32 ({words})" if words else "float32"
