"""The layers that the networks share, with PyTorch's padding, initial values and BatchNorm."""

import jax
import jax.numpy as jnp
from flax import nnx

# torch's kaiming_normal_ for relu, by either fan. Both libraries read the fans off the kernel's own
# shape, grouped convolutions included.
he_fan_out = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
he_fan_in = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")


def conv(
    in_features: int,
    out_features: int,
    size: int,
    stride: int = 1,
    *,
    groups: int = 1,
    use_bias: bool = False,
    init=he_fan_out,
    rngs: nnx.Rngs,
    dtype,
) -> nnx.Conv:
    """A size x size convolution, padded by size // 2 on every side (SAME differs for stride 2)."""
    return nnx.Conv(
        in_features,
        out_features,
        (size, size),
        strides=stride,
        padding=size // 2,
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=init,
        dtype=dtype,
        rngs=rngs,
    )


def linear(
    in_features: int, out_features: int, *, zero_bias: bool = False, rngs: nnx.Rngs, dtype
) -> nnx.Linear:
    """A dense layer with torch's default initial values: uniform on +-1/sqrt(fan_in), bias too."""
    return nnx.Linear(
        in_features,
        out_features,
        kernel_init=nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
        bias_init=nnx.initializers.zeros_init() if zero_bias else _uniform(in_features**-0.5),
        dtype=dtype,
        rngs=rngs,
    )


def _uniform(bound: float):
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, as torch.nn.BatchNorm2d computes it.

        y = scale (x - mean) / sqrt(var + 1e-5) + bias

    with the batch's mean and biased variance while training, the running ones else. Running
    statistics keep 0.9 of their value a step (torch calls that momentum 0.1) and take up the
    unbiased variance, var n / (n - 1). flax's layer takes up the biased one, and computes in
    `dtype` throughout; here statistics are float32 whatever the computation is in.

    Where `norm_axis` names a mapped axis, the statistics are those of the whole batch over it.
    """

    def __init__(self, features: int, *, rngs: nnx.Rngs, dtype):
        del rngs  # nothing is drawn
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros((features,), jnp.float32))
        self.var = nnx.BatchStat(jnp.ones((features,), jnp.float32))
        self.use_running_average = False  # what model.train() and model.eval() set
        self.norm_axis: str | None = None
        self.momentum = 0.9
        self.epsilon = 1e-5
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            mean, var = self._of_batch(x.astype(jnp.float32))
        factor = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
        shift = self.bias[...] - mean * factor
        shape = (1,) * (x.ndim - 1) + (-1,)
        y = x.astype(jnp.float32) * factor.reshape(shape) + shift.reshape(shape)
        return y.astype(self.dtype)

    def _of_batch(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and biased variance of each channel in one pass; the running ones follow them."""
        axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
        mean, square = jnp.mean(x, axes), jnp.mean(jnp.square(x), axes)
        if self.norm_axis is not None:
            mean, square = jax.lax.pmean((mean, square), self.norm_axis)
            count *= jax.lax.axis_size(self.norm_axis)
        var = jnp.maximum(square - jnp.square(mean), 0.0)
        unbiased, new = var * (count / max(count - 1, 1)), 1 - self.momentum
        self.mean[...] = self.momentum * self.mean[...] + new * mean
        self.var[...] = self.momentum * self.var[...] + new * unbiased
        return mean, var
