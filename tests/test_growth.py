"""The compiled program grows linearly with the number of leaves, and by few instructions.

Counted in the program that XLA made: its text, and the instructions of its entry, which are the
kernels that run. Time is not looked at: `python -m experiments benchmark leaves` measures it.
"""

import functools
import re

import jax
import jax.numpy as jnp
import optax
import pytest

import asam_jax

WIDTH = 4


def network(leaves):
    layer = {"kernel": jnp.full((WIDTH, WIDTH), 0.1), "bias": jnp.zeros(WIDTH)}
    return {f"layer{i:04d}": dict(layer) for i in range(leaves // 2)}


def loss(params, x):
    for name in sorted(params):
        x = jnp.tanh(x @ params[name]["kernel"] + params[name]["bias"][None])
    return jnp.mean(x**2)


grad = jax.grad(functools.partial(loss, x=jnp.ones((2, WIDTH))))


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().as_text()


def executed(text):
    """The instructions of the entry computation, parameters aside."""
    entry = re.search(r"^ENTRY .*?^}", text, re.MULTILINE | re.DOTALL).group()
    return len(re.findall(r"^\s+(?:ROOT )?%?\S+ = (?!.* parameter\()", entry, re.MULTILINE))


def step(tx):
    """One step of training, its gradient handed to those links that want it."""

    def run(params, state):
        updates, state = tx.update(grad(params), state, params, grad_fn=grad)
        return optax.apply_updates(params, updates), state

    return lambda leaves: compiled(run, network(leaves), tx.init(network(leaves)))


def eps(leaves, **options):
    def run(params, grads):
        return asam_jax.perturbation(params, grads, rho=0.5, **options)

    return compiled(run, network(leaves), network(leaves))


def momentum(leaves):
    tx = optax.sgd(0.1, momentum=0.9)
    along = functools.partial(asam_jax.momentum_ascent, rho=0.5)
    return compiled(along, network(leaves), tx.init(network(leaves)))


def measured(leaves):
    def run(params):
        return asam_jax.sharpness(loss, params, jnp.ones((2, WIDTH)), rho=0.5)

    return compiled(run, network(leaves))


def link(**options):
    return step(optax.chain(asam_jax.sharpness_aware(0.5, **options), optax.sgd(0.1)))


FORMS = {
    "p = 1": functools.partial(eps, p=1.0),
    "p = 3": functools.partial(eps, p=3.0),
    "p = inf": functools.partial(eps, p=jnp.inf),
    "traced p": lambda leaves: compiled(
        lambda w, p: asam_jax.perturbation(w, w, rho=0.5, p=p), network(leaves), 2.0
    ),
    "value_and_grad": lambda leaves: compiled(
        lambda w: asam_jax.value_and_grad(loss, rho=0.5)(w, jnp.ones((2, WIDTH))), network(leaves)
    ),
    "gsam": link(descent=asam_jax.gsam_descent(0.1)),
    "look": link(every=2, descent=asam_jax.look_descent(0.5)),
    "friendly": link(ascent=asam_jax.friendly_ascent()),
    "alternating": step(asam_jax.alternating(optax.sgd(0.1), 0.5)),
    "momentum_ascent": momentum,
    "sharpness": measured,
    "derivative": lambda leaves: compiled(
        jax.grad(lambda w: optax.tree.sum(asam_jax.perturbation(w, w, rho=0.5))), network(leaves)
    ),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_grows_linearly(form, flax_promotes):
    """A program of the square of the leaf count would grow by more than 3 here."""
    assert len(form(50)) <= 2.1 * len(form(25))


def test_eps_and_step_double_with_the_leaves(flax_promotes):
    for form in (eps, step(asam_jax.asam(optax.sgd(0.1, 0.9), 0.5))):
        sizes = [len(form(leaves)) for leaves in (50, 100, 200, 400)]
        assert all(b <= 2.1 * a for a, b in zip(sizes, sizes[1:], strict=False)), sizes


def test_a_step_runs_few_kernels_more_than_two_gradients(flax_promotes):
    leaves = 400
    sgd = executed(step(optax.with_extra_args_support(optax.sgd(0.1, 0.9)))(leaves))
    asam = executed(step(asam_jax.asam(optax.sgd(0.1, 0.9), 0.5))(leaves))
    assert asam <= 2.3 * sgd
    # three kernels for each leaf, two sorts and what makes two numbers of their results
    assert executed(eps(leaves)) <= 3 * leaves + 12
