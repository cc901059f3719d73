"""`benchmark step`: what a step of each variant costs, relative to SGD and to two bare gradients.

One network, one batch, one base optimizer. BatchNorm's statistics come from the first pass; the
augmentation is left out, since it costs the same in all.
"""

import dataclasses
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import asam_jax
from experiments.benchmarks import timing, torch_peers
from experiments.benchmarks.problem import IMAGE_SHAPE, Problem, base, problem
from experiments.benchmarks.timing import Program, Record
from experiments.config.run import Run
from experiments.datasets import augmentation
from experiments.reporting.summaries import Section, commands_of
from experiments.reporting.tables import markdown
from experiments.training import cpu, variants
from experiments.training.resolve import precision_of_jax
from experiments.training.spec import ModelSpec, StepSpec
from experiments.training.variants import EXACT, VARIANTS

KIND = "benchmark_step"
RHO_SAM, RHO_ASAM, WEIGHT = 0.05, 0.5, 0.5
GRADIENT, UPDATE, INPUT = "one gradient", "base update", "input and augmentation"


@dataclasses.dataclass(frozen=True)
class Step:
    """What a step costs: FLOPs, memory and time of each variant relative to SGD."""

    model: str = "resnet20"
    """See the command models."""
    batch_size: int = 128
    """Images in a step."""
    dtype: str = "float32"
    """float32 or bfloat16, to compute in."""
    repeats: int = 10
    """Rounds; every variant steps in each."""
    variants: tuple[str, ...] = tuple(
        n for n, v in VARIANTS.items() if n != EXACT and v.during == (0, 1)
    )
    """The cheap and refined variants, by name."""
    torch: bool = False
    """Also PyTorch's step, on the kind of device that JAX has."""
    workdir: Path = Path("runs")
    """Folder for results."""


class _Held(NamedTuple):
    """What a step changes."""

    params: Any
    rest: Any
    opt_state: Any
    memory: Any = ()


def _exact(given: Problem) -> dict[str, tuple[Any, Any]]:
    """For each name a transformation, and what its update is given: SGD comes first."""
    sam = lambda **how: optax.contrib.sam(  # noqa: E731
        base(), optax.chain(optax.contrib.normalize(), optax.sgd(RHO_SAM)), sync_period=2, **how
    )
    filterwise = asam_jax.asam(base(), RHO_ASAM, operator=asam_jax.filterwise())
    return {
        "SGD": (base(), "nothing"),
        "SAM": (asam_jax.sam(base(), RHO_SAM), "grad_fn"),
        "ASAM, element-wise": (asam_jax.asam(base(), RHO_ASAM), "grad_fn"),
        "ASAM, filter-wise": (filterwise, "grad_fn"),
        "ASAM, alternating": (asam_jax.alternating(base(), RHO_ASAM), "called twice"),
        "optax.contrib.sam, opaque": (sam(opaque_mode=True), "grad_fn"),
        "optax.contrib.sam, transparent": (sam(), "called twice"),
    }


def programs(given: Problem, names: tuple[str, ...]) -> dict[str, Program]:
    """The exact steps, the variants of those names, then the bare parts."""
    loss, options = given.part(1), cpu.compiler_options(IMAGE_SHAPE)
    compiled = lambda calls, state, makes=1: Program(calls, state, makes, options)  # noqa: E731

    def call(tx, kind):
        def step(state: _Held) -> _Held:
            (_, rest), grads = jax.value_and_grad(loss, has_aux=True)(state.params, state.rest)
            grad_fn = lambda params, _=None: jax.grad(loss, has_aux=True)(params, state.rest)[0]  # noqa: E731
            extra = {"grad_fn": grad_fn} if kind == "grad_fn" else {}
            updates, opt_state = tx.update(grads, state.opt_state, state.params, **extra)
            return _Held(optax.apply_updates(state.params, updates), rest, opt_state)

        return step

    made = {}
    for name, (tx, kind) in _exact(given).items():
        calls = (call(tx, kind),) * (2 if kind == "called twice" else 1)
        made[name] = compiled(calls, _Held(given.params, given.rest, tx.init(given.params)))
    for name in names:
        made[name] = compiled(*_variant(given, name))

    def gradient(state):
        (_, rest), grads = jax.value_and_grad(loss, has_aux=True)(*state[:2])
        return state[0], rest, grads

    def update(state):
        params, opt_state, grads = state
        updates, opt_state = base().update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, grads

    small = jax.tree.map(lambda w: 1e-3 * w, given.params)
    made[GRADIENT] = compiled((gradient,), (given.params, given.rest, small))
    made[UPDATE] = compiled((update,), (given.params, base().init(given.params), small))
    return made


def _variant(given: Problem, name: str) -> tuple[tuple[Any, ...], _Held, int]:
    """As training runs it: two programs where not every step perturbs, as the host loop has."""
    run = Run(normalization="elementwise", adapt="not_bias", eta=0.01, p=2.0, variant=name)
    run = dataclasses.replace(run, batch_size=1, devices=1, perturb="all")
    spec = StepSpec(ModelSpec("", 10, IMAGE_SHAPE, (), (), "float32"), run)
    variant, tx, hyper = VARIANTS[name], base(), dict(rho=RHO_ASAM, weight=WEIGHT)

    def call(perturb: bool):
        def step(state: _Held) -> _Held:
            found: Any = (spec, state, hyper, given.part(1), given.part(variant.subset), perturb)
            result, grads, memory = variants.gradient(*found)
            updates, opt_state = tx.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            return _Held(params, result[1], opt_state, memory)

        return step

    memory = variants.init(spec, given.params)
    state = _Held(given.params, given.rest, tx.init(given.params), memory)
    return (call(True), *[call(False)] * (variant.every - 1)), state, variant.every


def _input(batch_size: int) -> Program:
    """A batch picked from images on the device, augmented and normalised, as in training."""
    count = 10_000
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(256, size=(count, *IMAGE_SHAPE), dtype=np.uint8))
    order = jnp.asarray(rng.permutation(count), jnp.int32)

    def step(state):
        images, order, number, _ = state
        start = number * batch_size % (count - batch_size)
        picked = images[jax.lax.dynamic_slice_in_dim(order, start, batch_size)]
        key = jax.random.fold_in(jax.random.key(0), number)
        augmented = augmentation.augment(key, picked, pad=4, flip=True, cutout=0)
        batch = augmentation.normalize(augmented, (0.5,) * 3, (0.25,) * 3, jnp.dtype("float32"))
        return images, order, number + 1, batch

    batch = jnp.zeros((batch_size, *IMAGE_SHAPE), jnp.float32)
    return Program((step,), (images, order, jnp.int32(0), batch), 1, None)


def measure(options: Step) -> list[Record]:
    """One line a step."""
    of = (options.model, options.batch_size, options.dtype)
    others = torch_peers.steps(*of) if options.torch else {}  # what is missing is refused at once
    given = problem(*of)
    ours = programs(given, options.variants) | {INPUT: _input(options.batch_size)}
    size = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))  # noqa: E731
    held = {name: size(program.state) for name, program in ours.items()}
    seconds = timing.in_turns(ours | others, options.repeats)
    gradient, update = seconds[GRADIENT], seconds[UPDATE]
    floor = [2 * a + b for a, b in zip(gradient, update, strict=True)]
    named = dataclasses.asdict(options) | dict(kind=KIND, precision=precision_of_jax())
    shared = timing.origin(**{n: v for n, v in named.items() if n not in ("workdir", "variants")})
    if options.torch:
        shared["versions"] |= torch_peers.versions()
        shared["torch_tf32"] = torch_peers.Machine(options.dtype, shared["precision"]).tf32
    lines, sgd = [], ours["SGD"]
    for name, each in seconds.items():
        line: Record = {
            "form": name,
            "seconds": statistics.median(each),
            "time_over_sgd": timing.ratio(each, seconds["SGD"]),
            "time_over_two_gradients_and_update": timing.ratio(each, floor),
        }
        theirs = seconds.get(torch_peers.name_of(name))
        line["time_over_torch"] = timing.ratio(each, theirs) if theirs else None
        program = ours.get(name)
        if program is not None:
            line |= dict(flops=program.flops, flops_over_sgd=program.flops / sgd.flops)
            line |= dict(temporary_bytes=program.temporary_bytes)
            line["temporary_over_sgd"] = program.temporary_bytes / sgd.temporary_bytes
            if name not in (GRADIENT, UPDATE, INPUT):
                line["parameter_copies"] = (held[name] - held["SGD"]) / size(given.params)
        lines.append(line | shared)
    return lines


_COLUMNS = {
    "FLOPs / SGD": ("flops_over_sgd", "{:.3f}"),
    "temporary memory / SGD": ("temporary_over_sgd", "{:.3f}"),
    "copies of the parameters kept, beyond SGD's": ("parameter_copies", "{:.1f}"),
    "time / SGD": ("time_over_sgd", "{:.2f}"),
    "time / (2 gradients + update)": ("time_over_two_gradients_and_update", "{:.3f}"),
    "seconds": ("seconds", "{:.4f}"),
    "time / PyTorch's": ("time_over_torch", "{:.2f}"),
}


def describe(records: list[Record]) -> str:
    """What was measured on what, the table, and the share of the input."""
    first = records[0]
    rows = []
    for record in records:
        if record["form"] not in (GRADIENT, UPDATE, INPUT):
            found = [(record.get(name), said) for name, said in _COLUMNS.values()]
            cells = ["-" if value is None else said.format(value) for value, said in found]
            rows.append([record["form"], *cells])
    shares = {record["form"]: record["time_over_sgd"] for record in records}
    torch = first["versions"].get("torch")
    beside = f" PyTorch {torch}, channels last, in the same rounds." if torch else ""
    return (
        f"{timing.measured_on(first)}; medians over {first['repeats']} rounds.{beside}\n\n"
        f"{markdown(['step', *_COLUMNS], rows)}\n\n"
        f"Picking, augmenting and normalising a batch takes {100 * shares[INPUT]:.1f}% of SGD's "
        "step."
    )


def sections(workdir: Path) -> list[Section]:
    """A part of the report for each network, batch size and dtype that was measured."""
    return [
        Section(f"Cost of a step: {title}", f"{describe(rows)}\n\n{commands_of(rows[:1])}")
        for title, rows in timing.grouped(workdir, KIND, "model").items()
    ]


def run(options: Step) -> None:
    """Measures, prints the table and stores the lines."""
    records = measure(options)
    print(describe(records))
    timing.store(options.workdir, records, options.model, options.batch_size, options.dtype)
