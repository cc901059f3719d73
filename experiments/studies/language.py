"""`study language`: a byte-level transformer under AdamW, alone and with SAM, ASAM, Functional SAM.

AdamW's validation loss chooses the learning rate, then each method's own the radius, by one seed
that the final runs do not have. Functional SAM (Singh et al. 2025, arXiv 2502.02407) takes the
Jacobian at w + eps and the loss's derivative with respect to the logits at w.
"""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from scipy import stats

import asam_jax
from experiments.config.options import Options
from experiments.datasets import topics
from experiments.models.text import ByteTransformer
from experiments.reporting.summaries import Section, commands_of
from experiments.reporting.tables import markdown
from experiments.training import optimizers, provenance, result_lines, runner
from experiments.training.stop import StopRequest

KIND = "language_run"
DEPTH, CONTEXT, BATCH = 2, 64, 8
WARMUP, WEIGHT_DECAY, CHECKS = 0.1, 0.05, 4
SEEDS, TUNING_SEED = (0, 1, 2), 3
LONGEST = 400_000  # of the texts that any Python ships
RATES = (2e-3, 4e-3, 8e-3, 1.6e-2)
BASE, TWICE = "AdamW", "AdamW, twice the steps"
# What the training text is, in bytes from the start; None for all of it.
PROBLEMS: dict[str, int | None] = {"all of the text": None, "20,000 bytes of the text": 20_000}
STEPS = 500
EVERY_LEAF = asam_jax.elementwise(eta=0.0, adapt=asam_jax.all_leaves)
LOSSES = (
    "Test loss in nats a byte, mean ± sample standard deviation over seeds, and the mean "
    "difference, seed by seed, with its 95% interval; less is better. The learning rate was chosen "
    "by AdamW's validation loss, each radius by the method's own, with one other seed. (*): the "
    "largest or the smallest that was tried."
)


@dataclasses.dataclass(frozen=True)
class Arm:
    """A method: T_w, its radii and whether it is Functional SAM; steps in those of a problem."""

    operator: Any = None
    radii: tuple[float, ...] = ()
    functional: bool = False
    times: int = 1


ARMS = {
    BASE: Arm(),
    TWICE: Arm(times=2),
    "SAM": Arm(asam_jax.identity(), (0.05, 0.1, 0.2, 0.4)),
    "ASAM": Arm(asam_jax.elementwise(), (0.25, 0.5, 1.0, 2.0)),
    "ASAM, every leaf, eta 0": Arm(EVERY_LEAF, (0.5, 1.0, 2.0, 4.0)),
    "Functional SAM": Arm(asam_jax.identity(), (0.05, 0.1, 0.2, 0.4), functional=True),
    "Functional ASAM, every leaf, eta 0": Arm(EVERY_LEAF, (0.5, 1.0, 2.0, 4.0), functional=True),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """All that a run's result depends on, but for the text and the versions."""

    problem: str
    method: str
    rho: float
    lr: float
    steps: int
    seed: int
    judged: str = "test"

    def run_id(self, fingerprint: str) -> str:
        shape = [DEPTH, CONTEXT, BATCH, WARMUP, WEIGHT_DECAY, PROBLEMS[self.problem]]
        text = json.dumps([dataclasses.asdict(self), shape, fingerprint], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def planned(lines: list[dict[str, Any]]) -> Iterator[Run]:
    """What is to run, as far as the lines have chosen learning rates and radii."""
    for problem in PROBLEMS:
        tuning = partial(Run, problem, seed=TUNING_SEED, steps=STEPS, judged="validation")
        yield from (tuning(BASE, 0.0, lr) for lr in RATES)
        rate = chosen(lines, problem, BASE, "lr")
        if rate is None:
            continue
        for name, arm in ARMS.items():
            yield from (tuning(name, rho, rate) for rho in arm.radii)
            rho = chosen(lines, problem, name, "rho") if arm.radii else 0.0
            if rho is not None:
                yield from (Run(problem, name, rho, rate, STEPS * arm.times, s) for s in SEEDS)


def chosen(lines: list[dict[str, Any]], problem: str, method: str, field: str) -> float | None:
    """The value of least validation loss; None before all were tried."""
    tried = RATES if field == "lr" else ARMS[method].radii
    wanted = dict(problem=problem, method=method, judged="validation")
    losses = {one[field]: _loss(one) for one in lines if wanted.items() <= one.items()}
    return min(losses, key=lambda value: losses[value]) if {*losses} >= {*tried} else None


def run(options: Options) -> None:
    """Trains what is not finished; each choice is made once its runs are."""
    text, stop = topics.load(), StopRequest(options.time_limit)
    with runner.workdir_lock(options.workdir), stop.catching_signals():
        lines = result_lines.read(options.workdir, KIND)[0]
        while True:
            finished = {one["run_id"] for one in lines}
            todo = [one for one in planned(lines) if one.run_id(text.fingerprint) not in finished]
            if not todo:
                return
            for one in todo:
                lines.append(_finish(one, text, stop))
                result_lines.append(options.workdir, lines[-1])
                print(f"{one}: {_loss(lines[-1]):.4f} nats a byte", flush=True)


def _finish(one: Run, text: topics.Text, stop: StopRequest) -> dict[str, Any]:
    """A run's result line."""
    started = time.perf_counter()
    train = text.train[: PROBLEMS[one.problem]]
    judge = text.validation if one.judged == "validation" else text.test
    metrics = trained(one, train, judge, stop)
    accuracies = metrics["test_accuracy"]
    return result_lines.strict(
        {
            "kind": KIND,
            "run_id": one.run_id(text.fingerprint),
            **dataclasses.asdict(one),
            "dataset": "topics",
            "model": f"byte transformer, depth {DEPTH}, context {CONTEXT}, batch {BATCH}",
            "test_loss": metrics["test_loss"][-1],
            "test_accuracy_final": accuracies[-1],
            "test_accuracy_max": max(accuracies),
            "metrics": metrics,
            "train_bytes": len(train),
            "test_bytes": len(judge),
            "dataset_fingerprint": text.fingerprint,
            "wall_seconds": round(time.perf_counter() - started, 2),
            **provenance.stamp(),
        }
    )


def trained(one: Run, train: np.ndarray, judge: np.ndarray, stop: StopRequest) -> dict[str, Any]:
    """Losses and accuracies at every quarter of a training."""
    graph, params = nnx.split(ByteTransformer(DEPTH, CONTEXT, nnx.Rngs(one.seed)))
    state = params, _optimizer(ARMS[one.method], 0.0, 0.0).init(params)
    # Of one length whatever the training text is, so that all problems share a program.
    data, losses = jnp.asarray(np.resize(train, LONGEST), jnp.int32), []
    judge = jnp.asarray(judge, jnp.int32)
    metrics: dict[str, Any] = dict(step=[], train_loss=[], test_loss=[], test_accuracy=[])
    for number in range(1, one.steps + 1):
        progress = (number - 1) / one.steps
        rate = one.lr * min(progress / WARMUP, 1.0)
        rate *= 0.5 * (1 + math.cos(math.pi * max(progress - WARMUP, 0) / (1 - WARMUP)))
        integers = np.array([one.seed, number, len(train)], np.uint32)
        numbers = integers, *np.float32([one.rho, rate])
        state, loss = step(one.method, graph, state, data, *numbers)
        losses.append(loss)
        if number % (one.steps // CHECKS) == 0:
            judged = jax.device_get(evaluated(graph, state[0], judge))
            for name, value in zip(
                metrics, (number, np.mean(jax.device_get(losses)), *judged), strict=True
            ):
                metrics[name].append(round(float(value), 5))
            losses = []
        if stop.pending:
            raise stop.pending
    return metrics


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def step(method: str, graph, state, text: jax.Array, integers, rho, rate):
    """A step on windows of the text's first bytes; integers: seed, number of the step, bytes.

    Returns the state and the loss at w.
    """
    arm, (params, opt_state) = ARMS[method], state
    seed, number, length = integers
    key = jax.random.fold_in(jax.random.key(seed), number)
    starts = jax.random.randint(key, (BATCH, 1), 0, length - CONTEXT)
    windows_BxT = text[starts + jnp.arange(CONTEXT + 1)[None]]
    outputs = lambda w: nnx.merge(graph, w)(windows_BxT[:, :-1])  # noqa: E731
    loss_of = partial(_cross_entropy, labels=windows_BxT[:, 1:])
    logits, pullback = jax.vjp(outputs, params)
    loss, at_w = jax.value_and_grad(loss_of)(logits)

    def grad_fn(w):
        logits, pullback = jax.vjp(outputs, w)
        return pullback(at_w if arm.functional else jax.grad(loss_of)(logits))[0]

    optimizer = _optimizer(arm, rho, rate)
    updates, opt_state = optimizer.update(pullback(at_w)[0], opt_state, params, grad_fn=grad_fn)
    return (optax.apply_updates(params, updates), opt_state), loss


def _optimizer(arm: Arm, rho, rate) -> optax.GradientTransformationExtraArgs:
    adamw = optimizers.base("adamw", rate, 0.9, WEIGHT_DECAY, nesterov=False)
    if arm.operator is None:
        return optax.with_extra_args_support(adamw)
    return asam_jax.asam(adamw, rho, operator=arm.operator)


def _cross_entropy(logits_BxTxC: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits_BxTxC, labels).mean()


@partial(jax.jit, static_argnums=0)
def evaluated(graph, params, text: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Nats a byte and accuracy in percent; each window predicts the bytes behind its first."""

    def batch(starts_B):
        windows_BxT = text[starts_B[:, None] + jnp.arange(CONTEXT + 1)[None]]
        logits, labels = nnx.merge(graph, params)(windows_BxT[:, :-1]), windows_BxT[:, 1:]
        return _cross_entropy(logits, labels), 100 * jnp.mean(logits.argmax(-1) == labels)

    count = (len(text) - 1) // CONTEXT // BATCH
    starts = CONTEXT * jnp.arange(count * BATCH).reshape(count, BATCH)
    return jax.tree.map(jnp.mean, jax.lax.map(batch, starts))


def sections(workdir: Path) -> list[Section]:
    """A table for each problem that has final runs."""
    lines = result_lines.read(workdir, KIND)[0]
    made = []
    for problem in PROBLEMS:
        final = [one for one in lines if (one["problem"], one["judged"]) == (problem, "test")]
        if final:
            body = [_said(final[0]), table(lines, problem), LOSSES, commands_of(final)]
            made.append(Section(f"A language model on {problem}", "\n\n".join(body)))
    return made


def _said(line: dict[str, Any]) -> str:
    device, versions = line["device"], line["versions"]
    return (
        f"A {line['model']}, on {line['train_bytes']:,} bytes of `pydoc_data.topics`, "
        f"{STEPS} steps; the last {line['test_bytes']:,} bytes test. Data "
        f"{line['dataset_fingerprint']}; {device['kind']} ({device['processors']} processors); "
        f"Python {versions['python']}, JAX {versions['jax']}."
    )


def table(lines: list[dict[str, Any]], problem: str) -> str:
    """A row for each method that has final runs."""
    runs = {name: _finals(lines, problem, name) for name in ARMS}
    header = ["method", "gradients", "chosen", "training loss", "test loss"]
    rows = []
    for name, found in runs.items():
        if not found:
            continue
        arm, first = ARMS[name], next(iter(found.values()))
        words = [_starred("lr", first["lr"], RATES)]
        words += [_starred("rho", first["rho"], arm.radii)] if arm.radii else []
        gradients = first["steps"] * (1 + bool(arm.radii))
        fit = np.mean([one["metrics"]["train_loss"][-1] for one in found.values()])
        cells = [name, f"{gradients:,}", ", ".join(words), f"{fit:.3f}"]
        losses = [_loss(one) for one in found.values()]
        cells.append(f"{np.mean(losses):.4f} ± {np.std(losses, ddof=1):.4f}")
        rows.append(cells + [_difference(found, runs[of]) for of in (BASE, TWICE)])
    return markdown([*header, f"minus {BASE}", "minus twice the steps"], rows)


def _finals(lines: list[dict[str, Any]], problem: str, method: str) -> dict[int, dict[str, Any]]:
    """The lines of a method at its choices, by seed."""
    rate = chosen(lines, problem, BASE, "lr")
    rho = chosen(lines, problem, method, "rho") if ARMS[method].radii else 0.0
    wanted = dict(problem=problem, method=method, judged="test", lr=rate, rho=rho)
    return {one["seed"]: one for one in lines if wanted.items() <= one.items()}


def _starred(name: str, value: float, tried: tuple[float, ...]) -> str:
    return f"{name} {value:g}{' (*)' * (value in (min(tried), max(tried)))}"


def _difference(ours: dict[int, dict[str, Any]], theirs: dict[int, dict[str, Any]]) -> str:
    common = sorted({*ours} & {*theirs})
    if ours is theirs or len(common) < 2:
        return "-"
    apart = np.array([_loss(ours[seed]) - _loss(theirs[seed]) for seed in common])
    half = stats.t.ppf(0.975, len(apart) - 1) * stats.sem(apart)
    return f"{apart.mean():+.4f} [{apart.mean() - half:.4f}, {apart.mean() + half:.4f}]"


def _loss(line: dict[str, Any]) -> float:
    """A loss that was not finite is stored as null."""
    return math.inf if line["test_loss"] is None else line["test_loss"]
