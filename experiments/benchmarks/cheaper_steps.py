"""The cheap and the refined forms of a step for `benchmark step`, as training runs them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import optax

from experiments.benchmarks.compared_steps import RHO_ASAM, ComparedStep, Problem, base, copied
from experiments.config.step_forms import EXACT, STEP_FORMS
from experiments.training import gradients
from experiments.training.spec import ModelSpec, StepSpec

WEIGHT = 0.5


class _Held(NamedTuple):
    """What a step changes."""

    params: Any
    rest: Any
    opt_state: Any
    memory: Any


class _Hyper(NamedTuple):
    rho: float = RHO_ASAM
    weight: float = WEIGHT


def cheaper_steps(given: Problem, names: Sequence[str] | None) -> list[ComparedStep]:
    """One form for each name; None: for all whose steps are alike, without the exact one.

    `compared_steps` has that.
    """
    if names is None:
        names = [name for name in STEP_FORMS if name != EXACT and not STEP_FORMS[name].step_varies]
    return [_form(given, name) for name in names]


def _form(given: Problem, name: str) -> ComparedStep:
    spec, tx = _spec(name), base()
    form = STEP_FORMS[name]
    state = _Held(
        given.params, given.rest, tx.init(given.params), gradients.init(spec, given.params)
    )

    def step_of(climb: bool):
        def step(state: _Held) -> _Held:
            result, grads, memory = gradients.gradient(
                spec, state, _Hyper(), given.loss, given.part(form.part), climb
            )
            updates, opt_state = tx.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            return _Held(params, result[1], opt_state, memory)

        return step

    # Two programs, as the host loop has them; the one that does not climb runs k - 1 times.
    steps = (step_of(True), *[step_of(False)] * (form.every - 1))
    return ComparedStep(name, copied(state), steps, makes=form.every)


def _spec(name: str) -> StepSpec:
    model = ModelSpec("", 10, (32, 32, 3), (), (), "float32")
    return StepSpec(
        model=model,
        method="asam",
        normalization="elementwise",
        adapt="not_bias",
        eta=0.01,
        p=2.0,
        nesterov=False,
        augment=False,
        cutout=0,
        batch_size=1,
        devices=1,
        perturb="all",
        batch_norm="averaged",
        variant=name,
        recipe="paper",
    )
