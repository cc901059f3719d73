"""The cheap forms and the refinements, against steps written out in NumPy float64."""

import functools

import chex
import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import pytest
from forms import (
    LR,
    STEPS,
    batch,
    by_hand,
    climbed,
    each_third,
    exact,
    friendly,
    gsam,
    gsam_of_the_loss,
    looking,
    loss,
    mix,
    orthogonal,
    stable,
    trained,
    wsam,
    zeros,
)

import asam_jax

FORMS = {
    "every third": (each_third, dict(every=3)),
    "LookSAM": (looking, dict(every=3, descent=asam_jax.look_descent(0.4))),
    "GSAM": (gsam, dict(descent=asam_jax.gsam_descent(0.3))),
    "GSAM of the loss": (
        gsam_of_the_loss,
        dict(descent=asam_jax.gsam_descent(0.3, minimize_fp=False)),
    ),
    "Stable SAM": (stable, dict(descent=asam_jax.stable_descent())),
    "WSAM": (wsam, dict(descent=asam_jax.wsam_descent(0.7))),
    "Friendly SAM": (friendly, dict(ascent=asam_jax.friendly_ascent(0.8, 0.6))),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_takes_the_steps_that_its_paper_describes(name):
    rule, arguments = FORMS[name]
    params, _ = trained(asam_jax.sharpness_aware(many.RHO, **arguments))
    many.close(params, by_hand(rule))


@pytest.mark.parametrize(
    "arguments",
    [
        dict(every=1),
        dict(every=lambda count: 1),
        dict(every=1, descent=asam_jax.look_descent(0.9)),
        dict(descent=asam_jax.gsam_descent(0.0)),
        dict(descent=asam_jax.wsam_descent(0.5)),
        dict(ascent=asam_jax.friendly_ascent(0.0)),
        dict(ascent=optax.ema(0.0, debias=False)),
    ],
    ids=["every", "schedule", "look", "gsam", "wsam", "friendly", "ema"],
)
def test_in_its_limit_a_form_is_exact_asam(arguments):
    params, _ = trained(asam_jax.sharpness_aware(many.RHO, **arguments))
    many.close(params, by_hand(exact))


@pytest.mark.parametrize(
    "arguments",
    [dict(every=100), dict(descent=asam_jax.wsam_descent(0.0))],
    ids=["every 100th", "no weight"],
)
def test_in_the_other_limit_it_is_gradient_descent(arguments):
    def rule(memory, number, w, gradient):
        climbs = number == 0 and "every" in arguments
        return exact(memory, number, w, gradient) if climbs else gradient(w)

    params, _ = trained(asam_jax.sharpness_aware(many.RHO, **arguments))
    many.close(params, by_hand(rule))


def test_schedules_of_rho_and_of_every_read_the_update_count():
    rho = optax.linear_schedule(0.1, 0.5, STEPS)
    every = lambda count: jnp.where(count < 3, 1, 2)  # noqa: E731

    def rule(memory, number, w, gradient):
        if number >= 3 and number % 2:
            return gradient(w)
        return gradient(climbed(w, gradient(w), rho=0.1 + 0.4 * number / STEPS))

    params, state = trained(asam_jax.sharpness_aware(rho, every=every))
    many.close(params, by_hand(rule))
    assert int(optax.tree.get(state[0], "count")) == STEPS


def test_the_second_gradient_is_not_taken_between_ascents():
    """The gradient function reports each time it really runs."""
    runs = []
    params, x, y = many.problem()

    def grad_fn(w):
        jax.debug.callback(lambda: runs.append(1))
        return jax.grad(loss)(w, x, y)

    link = asam_jax.sharpness_aware(many.RHO, every=3)
    update = jax.jit(lambda state: link.update(params, state, params, grad_fn=grad_fn)[1])
    state = link.init(params)
    for _ in range(7):
        state = jax.block_until_ready(update(state))
    jax.effects_barrier()
    assert len(runs) == 3


def test_climb_overrules_every():
    params, x, y = many.problem()
    grad_fn = lambda w: jax.grad(loss)(w, x, y)  # noqa: E731
    link = asam_jax.sharpness_aware(many.RHO, every=2)

    @functools.partial(jax.jit, static_argnames="static")
    def update(state, static, traced):
        climb = traced if static is None else static
        return link.update(grad_fn(params), state, params, grad_fn=grad_fn, climb=climb)

    ascended = many.reference(params, x, y, [many.EXAMPLES])[1]
    plain = many.gradient(params, x, y)
    state = link.init(params)
    for static, traced, expected in [
        (False, None, plain),
        (True, None, ascended),
        (None, True, ascended),
        (None, False, plain),
        (None, None, ascended),
        (None, None, plain),
    ]:
        updates, state = update(state, static, traced)
        many.close(updates, expected)


def test_nothing_or_one_tree_is_kept():
    params, _, _ = many.problem()
    size = sum(a.size for a in params.values())

    def kept(link):
        return sum(a.size for a in jax.tree.leaves(link.init(params))) // size

    expected = {"LookSAM": 1, "Friendly SAM": 1}
    for name, (_, arguments) in FORMS.items():
        assert kept(asam_jax.sharpness_aware(0.5, **arguments)) == expected.get(name, 0)
    assert kept(asam_jax.remember()) == 1


@pytest.mark.parametrize("form", ["link", "value_and_grad"])
def test_an_ascent_on_a_part_of_the_batch(form):
    params, x, y = many.problem()
    value = aux = None
    if form == "link":
        link = asam_jax.sharpness_aware(many.RHO)
        part = jax.grad(loss)(params, x[:4], y[:4])
        grad_fn = lambda w: jax.grad(loss)(w, x, y)  # noqa: E731
        grads, _ = link.update(part, link.init(params), params, grad_fn=grad_fn)
    else:
        step = asam_jax.value_and_grad(
            lambda w, x, y: (loss(w, x, y), x[0, 0]),
            rho=many.RHO,
            has_aux=True,
            ascent_fun=lambda w, x, y: loss(w, x[:4], y[:4]),
        )
        (value, aux), grads = jax.jit(step)(params, x, y)
    at = climbed(params, many.gradient(params, x[:4], y[:4]))
    many.close(grads, many.gradient(at, x, y))
    if form == "value_and_grad":
        np.testing.assert_allclose(value, many.loss(np, at, x, y), rtol=1e-5)
        assert aux == x[0, 0]


def test_a_whole_batch_as_the_part_is_exact_asam():
    params, x, y = many.problem()
    step = asam_jax.value_and_grad(loss, rho=many.RHO, ascent_fun=loss)
    many.close(step(params, x, y)[1], many.reference(params, x, y, [many.EXAMPLES])[1])


@pytest.mark.usefixtures("flax_promotes")
def test_a_steadied_ascent_on_parts_climbs_along_their_moving_average():
    def rule(memory, number, w, gradient):
        x, y = batch(number)
        part = many.gradient(w, x[:2], y[:2])
        memory["m"] = mix({n: 0.5 * part[n] for n in part}, 0.5, memory.get("m", zeros(w)))
        return gradient(climbed(w, memory["m"]))

    link = asam_jax.sharpness_aware(many.RHO, ascent=optax.ema(0.5))
    params = many.problem()[0]
    state = link.init(params)
    for number in range(4):
        x, y = batch(number)
        part = jax.grad(loss)(params, x[:2], y[:2])
        updates, state = link.update(
            part, state, params, grad_fn=lambda w, x=x, y=y: jax.grad(loss)(w, x, y)
        )
        params = mix(params, np.float32(-LR), updates)
    many.close(params, by_hand(rule, steps=4))


def test_forms_combine():
    def rule(memory, number, w, gradient):
        if number % 2:
            return gradient(w)
        g = gradient(w)
        m = memory["m"] = mix({n: 0.4 * g[n] for n in g}, 0.6, memory.get("m", zeros(w)))
        new = gradient(climbed(w, mix(g, -0.8, m)))
        return mix(new, -0.3, orthogonal(g, new))

    link = asam_jax.sharpness_aware(
        many.RHO,
        every=2,
        ascent=asam_jax.friendly_ascent(0.8, 0.6),
        descent=asam_jax.gsam_descent(0.3),
    )
    many.close(trained(link)[0], by_hand(rule))


@pytest.mark.parametrize("name", FORMS)
def test_a_zero_gradient_leaves_zero_and_nan_comes_out(name):
    params, _, _ = many.problem()
    link = asam_jax.sharpness_aware(0.5, **FORMS[name][1])
    for value in (0.0, np.nan):
        given = {n: np.full_like(a, value) for n, a in params.items()}
        state = link.init(params)
        for _ in range(2):
            updates, state = link.update(given, state, params, grad_fn=lambda w, g=given: g)
            chex.assert_trees_all_equal(updates, given)
