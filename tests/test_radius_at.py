"""The radius at which the loss rises by so much, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asam_jax

X = jnp.ones((1, 1))


def profile_of(rise):
    rise = jnp.asarray(rise, jnp.float32)
    return asam_jax.RadiusProfile(rise, rise, jnp.float32(1.0), jnp.float32(1.0))


def test_on_a_quadratic_it_is_the_root_as_the_grid_gets_finer():
    def loss(w, x):
        return jnp.mean(x) * 0.5 * jnp.sum(w**2)

    # L(w + eps) - L(w) = rho |w| + rho^2 / 2 for SAM, with |w| = 1.
    w, radii = jnp.array([0.6, 0.8]), jnp.linspace(0.01, 1.0, 100)
    profile = asam_jax.radius_profile(loss, w, X, radii, operator=asam_jax.identity())
    found = asam_jax.radius_at(profile, radii, rise=0.3)
    np.testing.assert_allclose(found, np.sqrt(1 + 2 * 0.3) - 1, atol=3e-5)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.floats(0.01, 10.0), min_size=4, max_size=4),
    rises=st.lists(st.floats(-1.0, 10.0), min_size=4, max_size=4),
    target=st.floats(0.01, 12.0),
)
def test_it_is_the_first_crossing_of_the_polygon_through_0(steps, rises, target):
    radii = np.cumsum(steps, dtype=np.float32)
    rises = np.asarray(rises, np.float32)
    found = float(asam_jax.radius_at(profile_of(rises), radii, rise=target))
    x, y = np.concatenate([[0], radii]), np.concatenate([[0], rises])
    target = np.float32(target)
    fine = np.sort(np.concatenate([x, np.linspace(0, radii[-1], 20001)]))
    above = fine[np.interp(fine, x, y) >= target]
    expected = above[0] if len(above) else radii[-1]
    assert abs(found - expected) <= 2e-4 * radii[-1]


def test_what_is_no_number_is_beyond_any_target():
    radii = [1.0, 2.0, 4.0]
    for bad in (np.nan, np.inf):
        found = asam_jax.radius_at(profile_of([0.1, bad, bad]), radii, rise=0.3)
        assert found == 1.0
        assert asam_jax.radius_at(profile_of([bad, bad, bad]), radii, rise=0.3) == 0.0


def test_radii_and_target_may_be_traced_and_compile_once():
    traced = []

    @jax.jit
    def found(profile, radii, rise):
        traced.append(rise)
        return asam_jax.radius_at(profile, radii, rise=rise)

    profile = profile_of([0.1, 0.5])
    assert found(profile, jnp.array([1.0, 2.0]), jnp.float32(0.3)) == 1.5
    assert found(profile, jnp.array([2.0, 4.0]), 0.3 * profile.loss) == 3.0
    assert len(traced) == 1


@pytest.mark.parametrize(
    ("radii", "rise", "said"),
    [
        ([1.0, 2.0, 3.0], 0.3, r"radii has shape \(3,\) and the profile's rise \(2,\)"),
        ([2.0, 1.0], 0.3, "radii must grow"),
        ([0.0, 1.0], 0.3, "radii must grow and be above 0"),
        ([1.0, 2.0], 0.0, "rise must be above 0"),
        ([1.0, 2.0], -1.0, "rise must be at least 0"),
        ([1.0, 2.0], float("nan"), "rise must be at least 0"),
    ],
)
def test_bad_arguments(radii, rise, said):
    with pytest.raises(ValueError, match=said):
        asam_jax.radius_at(profile_of([0.1, 0.5]), radii, rise=rise)


def test_a_target_for_each_radius_is_no_target():
    with pytest.raises(TypeError, match="rise must be a number"):
        asam_jax.radius_at(profile_of([0.1, 0.5]), [1.0, 2.0], rise=np.ones(2))
