"""The options under which XLA compiles a training step fastest for a CPU.

Found by profiling ResNet-20 on two cores, where the gradients of the kernels took half of a step.
`python -m experiments benchmark step --torch` measures what is left.
"""

import functools

import jax

# XLA has two libraries for convolutions on a CPU, and the one it prefers, YNNPACK, takes up to six
# times as long for the gradient of a kernel: there the image is the window, and the window large.
# This is the default list of what goes to YNNPACK without the convolutions.
_OPTION = "xla_cpu_experimental_ynn_fusion_type"
_WITHOUT_CONVOLUTIONS = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
# On the digits, 8 pixels a side, a step is short as it is, and their results keep their bits.
_SMALLEST_IMAGE = 16


def compiler_options(image_shape: tuple[int, int, int]) -> dict[str, str | bool] | None:
    """For `jax.jit`: the options for images of (height, width, channels).

    None, XLA's own choice, for small images, on an accelerator, and where this XLA no longer knows
    the option.
    """
    small = min(image_shape[:2]) < _SMALLEST_IMAGE
    return None if small or not _option_is_known() else {_OPTION: _WITHOUT_CONVOLUTIONS}


@functools.cache
def _option_is_known() -> bool:
    if jax.default_backend() != "cpu":
        return False
    try:
        jax.jit(lambda: 0, compiler_options={_OPTION: _WITHOUT_CONVOLUTIONS}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
