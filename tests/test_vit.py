"""The transformer: its patches, its forward pass in NumPy, its parameters under ASAM's rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.config.errors import ConfigError
from experiments.models import vit

pytestmark = pytest.mark.usefixtures("flax_promotes")


@pytest.mark.parametrize(
    ("sides", "patch"), [((32, 32), 4), ((8, 8), 2), ((28, 28), 4), ((16, 8), 2), ((7, 7), 7)]
)
def test_patches_cut_an_image_whole_into_eight_a_side_at_most(sides, patch):
    assert vit.patch_size(*sides) == patch


def test_sides_without_a_divisor_in_common_are_refused():
    with pytest.raises(ConfigError, match="7x9 pixels have no divisor in common"):
        vit.patch_size(7, 9)


def test_a_patch_has_its_pixels_row_by_row():
    images = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    made = np.asarray(vit.cut(jnp.asarray(images), 2))
    assert made.shape == (2, 6, 12)
    for row in range(2):
        for column in range(3):
            patch = images[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            np.testing.assert_array_equal(made[:, 3 * row + column], patch.reshape(2, 12))


def small(monkeypatch):
    monkeypatch.setattr(vit, "DEPTH", 1)
    return nnx.eval_shape(lambda: vit.ViT(10, (4, 4, 2), rngs=nnx.Rngs(0), dtype=jnp.float32))


def test_the_forward_pass_is_numpys(monkeypatch):
    graphdef, shapes, rest = nnx.split(small(monkeypatch), nnx.Param, ...)
    rng = np.random.default_rng(0)
    w = {}
    for path, variable in nnx.to_flat_state(shapes):
        w["/".join(map(str, path))] = rng.normal(0, 0.2, variable.shape)
    drawn = [jnp.asarray(value, jnp.float32) for value in w.values()]
    params = jax.tree.unflatten(jax.tree.structure(shapes), drawn)
    images = rng.normal(size=(3, 4, 4, 2))

    def dense(name, x):
        return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]

    def norm(name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * w[f"{name}/scale"] + w[f"{name}/bias"]

    def attention(x):
        q, k, v = (dense(f"blocks/0/{name}", x) for name in ("query", "key", "value"))
        heads = []
        for h in range(0, 64, 16):
            scores = q[:, h : h + 16] @ k[:, h : h + 16].T / 4
            weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
            heads.append(weights @ v[:, h : h + 16])
        return dense("blocks/0/out", np.concatenate(heads, -1))

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    expected = []
    for image in images:
        patches = [image[r : r + 2, c : c + 2].ravel() for r in (0, 2) for c in (0, 2)]
        x = dense("patches", np.stack(patches)) + w["position_embedding"]
        x = x + attention(norm("blocks/0/norm1", x))
        x = x + dense("blocks/0/down", gelu(dense("blocks/0/up", norm("blocks/0/norm2", x))))
        expected.append(dense("head", norm("norm", x).mean(0)))
    made = jax.jit(lambda params, x: nnx.merge(graphdef, params, rest)(x))(
        params, jnp.asarray(images, jnp.float32)
    )
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)
