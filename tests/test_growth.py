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
X = jnp.ones((2, WIDTH))
BASE = optax.sgd(0.1, 0.9)


def network(leaves):
    layer = {"kernel": jnp.full((WIDTH, WIDTH), 0.1), "bias": jnp.zeros(WIDTH)}
    return {f"layer{i:04d}": dict(layer) for i in range(leaves // 2)}


def loss(params, x=X):
    for name in sorted(params):
        x = jnp.tanh(x @ params[name]["kernel"] + params[name]["bias"][None])
    return jnp.mean(x**2)


grad = jax.grad(loss)


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().as_text()


def executed(text):
    """The instructions of the entry computation: parameters, and the kernels that run."""
    entry = text[text.index("\nENTRY ") :].split("\n}", 1)[0]
    return len(re.findall(r"^\s+(?:ROOT )?%?\S+ = ", entry, re.MULTILINE))


def step(tx):
    """One step of training."""

    def run(params, state):
        updates, state = tx.update(grad(params), state, params, grad_fn=grad)
        return optax.apply_updates(params, updates), state

    return lambda leaves: compiled(run, network(leaves), tx.init(network(leaves)))


def eps(leaves, **options):
    def run(params, grads):
        return asam_jax.perturbation(params, grads, rho=0.5, **options)

    return compiled(run, network(leaves), network(leaves))


def momentum(leaves):
    along = functools.partial(asam_jax.momentum_ascent, rho=0.5)
    return compiled(along, network(leaves), network(leaves))


def of(function):
    """The program of a function of the parameters alone."""
    return lambda leaves: compiled(function, network(leaves))


def sgd_with(**options):
    return step(optax.chain(asam_jax.sharpness_aware(0.5, **options), optax.sgd(0.1)))


PROGRAMS = {
    "eps": eps,
    "asam": step(asam_jax.asam(BASE, 0.5)),
    "p = 1": functools.partial(eps, p=1.0),
    "p = 3": functools.partial(eps, p=3.0),
    "value_and_grad": of(asam_jax.value_and_grad(loss, rho=0.5)),
    "gsam": sgd_with(descent=asam_jax.gsam_descent(0.1)),
    "looksam": sgd_with(every=2, descent=asam_jax.looksam_descent(0.5)),
    "friendly": sgd_with(ascent=asam_jax.friendly_ascent()),
    "alternating": step(asam_jax.alternating(optax.sgd(0.1), 0.5)),
    "momentum_ascent": momentum,
    "sharpness": of(lambda w: asam_jax.sharpness(loss, rho=0.5)(w, X)),
    "derivative": of(jax.grad(lambda w: optax.tree.sum(asam_jax.perturbation(w, w, rho=0.5)))),
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_every_program_grows_linearly(program, flax_promotes):
    """A program of the square of the leaf count would grow by more than 3 here."""
    assert len(program(24)) <= 2.1 * len(program(12))


def test_eps_executes_few_kernels_for_each_leaf(flax_promotes):
    """Five on a CPU, where two passes are fastest; `benchmark compiled` counts other devices'."""
    leaves = 40
    assert executed(eps(leaves)) <= 6 * leaves + 20
    sgd = executed(step(optax.with_extra_args_support(BASE))(leaves))
    assert executed(PROGRAMS["asam"](leaves)) <= 2 * sgd + 6 * leaves + 20
