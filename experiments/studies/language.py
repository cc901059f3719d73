"""`study language`: a byte-level transformer under AdamW, alone and with SAM, ASAM, Functional SAM.

AdamW's validation loss chooses the learning rate, then each method's own its radius, by one seed
that the final runs do not have. Functional SAM (Singh et al. 2025, arXiv 2502.02407) takes the
Jacobian at w + eps and the loss's derivative with respect to the logits at w.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import asam_jax
from experiments.config.options import Options
from experiments.config.run import one_of
from experiments.datasets import topics
from experiments.models.text import ByteTransformer
from experiments.reporting.summaries import Section, commands, measured_on
from experiments.reporting.tables import Group, Record, format_mean_std, grouped, markdown, paired
from experiments.studies.study import AUTHORS_RULE
from experiments.training import optimizers, provenance, result_lines, runner
from experiments.training.stop import StopRequest
from experiments.training.variants import AUTHORS

KIND = "language_run"
DEPTH, CONTEXT, BATCH, WARMUP, WEIGHT_DECAY = 2, 64, 8, 0.1, 0.05
STEPS, SEEDS, TUNING_SEED = 500, (0, 1, 2), 3
RATES = (1e-3, 2e-3, 4e-3, 8e-3)
# Bytes of the training text, from its start, None for all; and what the radii are multiplied by.
# AdamW begins to overfit the first; the second is read less than once, where radii must be smaller.
PROBLEMS: dict[str, tuple[int | None, float]] = {
    "10,000 bytes of the text": (10_000, 1.0),
    "all of the text": (None, 0.25),
}
SAID = (
    "Test loss in nats a byte, mean ± sample standard deviation over seeds; minus another row: the "
    "mean difference, seed by seed, with its 95% interval. Less is better. Training loss: the "
    "mean of the last fifth of the steps, at w. The learning rate was chosen by AdamW's "
    "validation loss, each radius by the method's own, with one other seed. (*): the largest or "
    "the smallest that was tried." + AUTHORS_RULE
)


class Arm(NamedTuple):
    """A method: T_w and its radii, none for AdamW alone; whether it is Functional SAM."""

    operator: Any = None
    radii: tuple[float, ...] = ()
    functional: bool = False


_IDENTITY = asam_jax.identity(), (0.025, 0.05, 0.1, 0.2, 0.4)
_EVERY_LEAF = asam_jax.elementwise(), (0.25, 0.5, 1.0, 2.0, 4.0)
BASE, TWICE, HALF = "AdamW", "AdamW, twice the steps", "AdamW, half the steps"
ARMS = {
    BASE: Arm(),
    HALF: Arm(),
    TWICE: Arm(),
    "SAM": Arm(*_IDENTITY),
    "ASAM": Arm(AUTHORS, (0.125, 0.25, 0.5, 1.0, 2.0)),
    "ASAM, every leaf, eta 0": Arm(*_EVERY_LEAF),
    "Functional SAM": Arm(*_IDENTITY, functional=True),
    "Functional ASAM, every leaf, eta 0": Arm(*_EVERY_LEAF, functional=True),
}


def radii_of(problem: str, method: str) -> tuple[float, ...]:
    """What a method's radius is chosen from."""
    return tuple(rho * PROBLEMS[problem][1] for rho in ARMS[method].radii)


def planned(lines: list[Record], fingerprint: str) -> Iterator[Record]:
    """Every run on a text, as far as its lines have chosen learning rates and radii."""
    model = f"byte transformer, depth {DEPTH}, context {CONTEXT}, batch {BATCH}"
    shared = dict(dataset="topics", model=model, weight_decay=WEIGHT_DECAY, warmup=WARMUP)
    shared |= dict(dtype="float32", dataset_fingerprint=fingerprint)

    def best(field: str, tried, **wanted) -> float | None:
        wanted |= shared | dict(problem=problem, seed=TUNING_SEED)
        found = [line for line in lines if wanted.items() <= line.items()]
        losses = {line[field]: line["test_loss"] for line in found}
        if not {*tried} <= {*losses}:
            return None
        return min(tried, key=lambda value: math.inf if losses[value] is None else losses[value])

    for problem in PROBLEMS:
        lr = best("lr", RATES, method=BASE)
        for name in ARMS:
            radii = radii_of(problem, name)
            rho = best("rho", radii, method=name, lr=lr) if radii else 0.0
            runs = [dict(lr=lr, rho=value, seed=TUNING_SEED) for value in radii if lr]
            runs += [dict(lr=v, rho=0.0, seed=TUNING_SEED) for v in RATES if name == BASE]
            runs += [dict(lr=lr, rho=rho, seed=s) for s in SEEDS if lr and rho is not None]
            steps = round(STEPS * {TWICE: 2.0, HALF: 0.5}.get(name, 1.0))
            for values in runs:
                one = values | shared | dict(problem=problem, method=name, steps=steps)
                yield one | dict(run_id=run_id(one))


def run_id(one: Record) -> str:
    """Twelve hex digits of all that a run's result depends on, but for the versions."""
    return hashlib.sha256(json.dumps(one, sort_keys=True).encode()).hexdigest()[:12]


def run(options: Options, problems: tuple[str, ...] = (), arms: tuple[str, ...] = ()) -> None:
    """Trains what is not finished of some problems and methods, by name, of none for all.

    Each choice is made once its runs are; all take the learning rate that AdamW's chose.
    """
    for what, names, known in (("problem", problems, PROBLEMS), ("arm", arms, ARMS)):
        for name in names:
            one_of(what, name, known)
    train, validation, test, fingerprint = topics.load()
    stop, lines = StopRequest(options.time_limit), result_lines.read(options.workdir, KIND)[0]
    with runner.workdir_lock(options.workdir), stop.catching_signals():

        def todo() -> list[Record]:
            done = {line["run_id"] for line in lines}
            plan = [one for one in planned(lines, fingerprint) if one["run_id"] not in done]
            plan = [one for one in plan if one["problem"] in (problems or PROBLEMS)]
            return [one for one in plan if one["method"] in (arms or ARMS)]

        while left := todo():
            one, started = left[0], time.perf_counter()
            size = PROBLEMS[one["problem"]][0] or len(train)
            judge = validation if one["seed"] == TUNING_SEED else test
            texts = jnp.asarray(train, jnp.int32), jnp.asarray(judge, jnp.int32)
            numbers = np.float32(one["lr"]), np.float32(one["rho"]), one["seed"], size
            found = trained(one["method"], one["steps"], *texts, *numbers)
            fit, loss, accuracy = (np.asarray(x, float).round(5).tolist() for x in found)
            line = dict(kind=KIND) | one | dict(train_bytes=size, test_bytes=len(judge))
            line |= dict(test_loss=loss, metrics=dict(train_loss=fit))
            line |= dict(test_accuracy_final=accuracy, test_accuracy_max=accuracy)
            line["wall_seconds"] = round(time.perf_counter() - started, 2)
            lines.append(result_lines.strict(line | provenance.stamp()))
            result_lines.append(options.workdir, lines[-1])
            print(*(line[name] for name in ("problem", "method", "lr", "rho", "seed", "test_loss")))
            if stop.pending:
                raise stop.pending


@partial(jax.jit, static_argnums=(0, 1))
def trained(method: str, steps: int, text: jax.Array, judge: jax.Array, lr, rho, seed, size):
    """Training losses by fifths, final loss in nats a byte and accuracy in percent on judge."""
    graph, params = nnx.split(ByteTransformer(DEPTH, CONTEXT, nnx.Rngs(jax.random.key(seed))))
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, round(WARMUP * steps), steps)

    def body(state, number):
        key = jax.random.fold_in(jax.random.key(seed), number)
        batch = windows(text, jax.random.randint(key, (BATCH,), 0, size - CONTEXT))
        return step(method, graph, state, batch, rho, lr * schedule(number))

    state = params, optimizer(ARMS[method], 0.0, 0.0).init(params)
    (params, _), losses = jax.lax.scan(body, state, jnp.arange(steps))
    # Each window predicts the bytes behind its first.
    inputs, labels = windows(judge, jnp.arange(0, len(judge) - CONTEXT, CONTEXT))
    logits = nnx.merge(graph, params)(inputs)
    accuracy = 100 * jnp.mean(logits.argmax(-1) == labels)
    return losses.reshape(5, -1).mean(1), cross_entropy(logits, labels), accuracy


def step(method: str, graph, state, batch, rho, rate):
    """A step of a method; returns the loss at w, too."""
    (params, opt_state), (inputs_BxT, labels_BxT) = state, batch
    outputs = lambda w: nnx.merge(graph, w)(inputs_BxT)  # noqa: E731
    loss_of = partial(cross_entropy, labels=labels_BxT)
    logits, pullback = jax.vjp(outputs, params)
    loss, at_w = jax.value_and_grad(loss_of)(logits)

    def grad_fn(w):
        logits, pullback = jax.vjp(outputs, w)
        return pullback(at_w if ARMS[method].functional else jax.grad(loss_of)(logits))[0]

    tx = optimizer(ARMS[method], rho, rate)
    updates, opt_state = tx.update(pullback(at_w)[0], opt_state, params, grad_fn=grad_fn)
    return (optax.apply_updates(params, updates), opt_state), loss


def optimizer(arm: Arm, rho, rate) -> optax.GradientTransformationExtraArgs:
    """AdamW, alone or behind a perturbation; numbers may be traced."""
    adamw = optimizers.base("adamw", rate, 0.9, WEIGHT_DECAY, nesterov=False)
    return asam_jax.asam(adamw, rho if arm.radii else 0.0, operator=arm.operator)


def windows(text: jax.Array, starts_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Bytes from each start on, and the byte behind each."""
    windows_BxT = text[starts_B[:, None] + jnp.arange(CONTEXT + 1)[None]]
    return windows_BxT[:, :-1], windows_BxT[:, 1:]


def cross_entropy(logits_BxTxC: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits_BxTxC, labels).mean()


def sections(workdir: Path) -> list[Section]:
    """A table for each text and problem that has final runs."""
    lines = {line["run_id"]: line for line in result_lines.read(workdir, KIND)[0]}
    made = []
    for fingerprint in dict.fromkeys(line["dataset_fingerprint"] for line in lines.values()):
        plan = planned(list(lines.values()), fingerprint)
        final = [one for one in plan if one["seed"] in SEEDS and one["run_id"] in lines]
        for problem, runs in grouped(final, lambda one: one["problem"]).items():
            of = grouped([lines[one["run_id"]] for one in runs], lambda line: line["method"])
            groups = {name: Group(tuple(found)) for name, found in of.items()}
            if BASE in groups:
                found = list(groups.values())
                made_by = commands(workdir, ["study", "language", "--problems", problem])
                body = [table(groups), SAID, measured_on(found), made_by]
                made.append(Section(f"A language model on {problem}", "\n\n".join(body)))
    return made


def table(groups: dict[str, Group]) -> str:
    """A row for each method."""
    others = [groups[name] for name in (BASE, TWICE) if name in groups]
    header = ["method", "gradients", "chosen", "training loss", "test loss"]
    rows = []
    for name, group in groups.items():
        radii = radii_of(group["problem"], name)
        tried = dict(lr=RATES) | (dict(rho=radii) if radii else {})
        edge = {field: group[field] in (min(v), max(v)) for field, v in tried.items()}
        words = ", ".join(f"{field} {group[field]:g}{' (*)' * edge[field]}" for field in tried)
        fit = np.mean([run["metrics"]["train_loss"][-1] for run in group.runs])
        losses = format_mean_std([run["test_loss"] for run in group.runs], 4)
        cells = [name, f"{group['steps'] * len(tried):,}", words, f"{fit:.3f}", losses]
        cells += ["-" if o is group else paired(group, o, "test_loss", 4) for o in others]
        rows.append(cells)
    return markdown([*header, *(f"minus {group['method']}" for group in others)], rows)
