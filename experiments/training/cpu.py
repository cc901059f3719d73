"""The options under which XLA compiles a training step fastest for a CPU.

Found by profiling ResNet-20 on two cores; `allocator` has what its memory takes. What is left is
measured by `python -m experiments benchmark step --torch`.
"""

import functools
from typing import Any

import jax

# XLA has two libraries for convolutions on a CPU, and the one it prefers, YNNPACK, takes up to six
# times as long for the gradient of a kernel: there the image is the window, and the window large.
# This is the default list of what goes to YNNPACK without the convolutions.
_LIBRARY = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,"
    "LIBRARY_FUSION_TYPE_REDUCE"
}
# The gradient of a kernel wants activations transposed. XLA fuses into each such copy all that the
# activation is made from, back through the residual stream to the first block, and so computes
# it again, entry by entry, in an order far from memory's. That was half of a step. The preset for
# fast compilation (2) fuses less; it compiles in less time, too.
_PRESET = {"xla_cpu_opt_preset": 2}
# On the digits, 8 pixels a side, a step is short as it is, and their results keep their bits.
_SMALLEST_IMAGE = 16


def compiler_options(image_shape: tuple[int, int, int]) -> dict[str, Any] | None:
    """For `jax.jit`: the options for images of (height, width, channels).

    None, XLA's own choice, for small images and on an accelerator; an option that this XLA does
    not know is left out.
    """
    if min(image_shape[:2]) < _SMALLEST_IMAGE or jax.default_backend() != "cpu":
        return None
    known = [option for option in (_LIBRARY, _PRESET) if _is_known(*option.items())]
    return {name: value for option in known for name, value in option.items()} or None


@functools.cache
def _is_known(*option: tuple[str, Any]) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options=dict(option)).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
