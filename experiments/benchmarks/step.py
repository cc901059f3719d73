"""`benchmark step`: what a step of each variant costs, relative to SGD and to two bare gradients.

One network, one batch, one base optimizer. BatchNorm's statistics come from the first pass; the
augmentation is left out, since it costs the same in all.
"""

import dataclasses
import functools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax

import asam_jax
from experiments.benchmarks import timing
from experiments.benchmarks.problem import IMAGE_SHAPE, Problem, base, problem
from experiments.benchmarks.timing import Program, Record
from experiments.config.run import Run
from experiments.reporting.summaries import Section, arithmetic_of, machines
from experiments.reporting.tables import markdown
from experiments.training import loop, provenance, result_lines, variants
from experiments.training.spec import ModelSpec, StepSpec
from experiments.training.variants import AUTHORS, EXACT, VARIANTS

KIND = "benchmark_step"
RHO_SAM, RHO_ASAM, WEIGHT = 0.05, 0.5, 0.5
GRADIENT, UPDATE = "one gradient", "base update"


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
    workdir: Path = Path("runs")
    """Folder for results."""


class _Held(NamedTuple):
    """What a step changes."""

    params: Any
    rest: Any
    opt_state: Any
    memory: Any = ()


def _exact() -> dict[str, tuple[optax.GradientTransformationExtraArgs, int]]:
    """For each name a transformation, and the calls of it that make a step; SGD comes first."""
    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(RHO_SAM))
    filterwise = asam_jax.filterwise(0.01, adapt=asam_jax.not_bias)
    opaque = optax.contrib.sam(base(), adversary, sync_period=2, opaque_mode=True)
    transparent = optax.contrib.sam(base(), adversary, sync_period=2)
    return {
        "SGD": (optax.with_extra_args_support(base()), 1),
        "SAM": (asam_jax.sam(base(), RHO_SAM), 1),
        "ASAM, element-wise": (asam_jax.asam(base(), RHO_ASAM, operator=AUTHORS), 1),
        "ASAM, filter-wise": (asam_jax.asam(base(), RHO_ASAM, operator=filterwise), 1),
        "ASAM, alternating": (asam_jax.alternating(base(), RHO_ASAM, operator=AUTHORS), 2),
        "optax.contrib.sam, opaque": (opaque, 1),
        "optax.contrib.sam, transparent": (transparent, 2),
    }


def programs(given: Problem, names: tuple[str, ...]) -> dict[str, Program]:
    """The exact steps, the variants of those names, then the bare parts."""
    loss, params, rest = given.part(1), given.params, given.rest
    compiled = functools.partial(Program, options=loop.compiler_options(IMAGE_SHAPE))

    def call(tx: optax.GradientTransformationExtraArgs) -> Callable[[_Held], _Held]:
        def step(state: _Held) -> _Held:
            (_, rest), grads = jax.value_and_grad(loss, has_aux=True)(state.params, state.rest)
            grad_fn = lambda params, _=None: jax.grad(loss, has_aux=True)(params, state.rest)[0]  # noqa: E731
            updates, opt_state = tx.update(grads, state.opt_state, state.params, grad_fn=grad_fn)
            return _Held(optax.apply_updates(state.params, updates), rest, opt_state)

        return step

    made = {}
    for name, (tx, calls) in _exact().items():
        made[name] = compiled((call(tx),) * calls, _Held(params, rest, tx.init(params)))
    made |= {name: compiled(*_variant(given, name)) for name in names}

    def gradient(state):
        (_, rest), grads = jax.value_and_grad(loss, has_aux=True)(*state[:2])
        return state[0], rest, grads

    def update(state):
        params, opt_state, grads = state
        updates, opt_state = base().update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, grads

    small = jax.tree.map(lambda w: 1e-3 * w, params)
    made[GRADIENT] = compiled((gradient,), (params, rest, small))
    made[UPDATE] = compiled((update,), (params, base().init(params), small))
    return made


def _variant(given: Problem, name: str) -> tuple[tuple[Callable[..., Any], ...], _Held, int]:
    """As training runs it: two programs where not every step perturbs, as the host loop has."""
    run = Run(normalization="elementwise", adapt="not_bias", eta=0.01, p=2.0, variant=name)
    run = dataclasses.replace(run, batch_size=1, devices=1, perturb="all")
    spec = StepSpec(ModelSpec("", 10, IMAGE_SHAPE, (), (), "float32"), run)
    variant, tx, hyper = VARIANTS[name], base(), dict(rho=RHO_ASAM, weight=WEIGHT)

    def call(perturb: bool) -> Callable[[_Held], _Held]:
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


def measure(options: Step) -> list[Record]:
    """One line a step."""
    given = problem(options.model, options.batch_size, options.dtype)
    ours = programs(given, options.variants)
    size = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))  # noqa: E731
    held = {name: size(program.state) for name, program in ours.items()}
    seconds = timing.in_turns(ours, options.repeats)
    floor = [2 * a + b for a, b in zip(seconds[GRADIENT], seconds[UPDATE], strict=True)]
    precision = getattr(jax.config, "jax_default_matmul_precision", None) or "default"
    named = dataclasses.asdict(options) | dict(kind=KIND, precision=precision)
    shared = {n: v for n, v in named.items() if n not in ("workdir", "variants")}
    shared |= provenance.stamp()
    lines, sgd = [], ours["SGD"]
    for name, program in ours.items():
        each = seconds[name]
        line: Record = {
            "form": name,
            "seconds": statistics.median(each),
            "time_over_sgd": timing.ratio(each, seconds["SGD"]),
            "time_over_two_gradients_and_update": timing.ratio(each, floor),
            "flops": program.flops,
            "flops_over_sgd": program.flops / sgd.flops,
            "temporary_bytes": program.temporary_bytes,
            "temporary_over_sgd": program.temporary_bytes / sgd.temporary_bytes,
        }
        if name not in (GRADIENT, UPDATE):
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
}


def describe(records: list[Record]) -> str:
    """What was measured on what, and the table."""
    rows = [
        [record["form"], *(said.format(record[name]) for name, said in _COLUMNS.values())]
        for record in records
        if record["form"] not in (GRADIENT, UPDATE)
    ]
    return (
        f"{machines(records)}; medians over {records[0]['repeats']} rounds.\n\n"
        f"{markdown(['step', *_COLUMNS], rows)}"
    )


def sections(workdir: Path) -> list[Section]:
    """A part of the report for each network, batch size, dtype and device that was measured."""

    def title(record: Record) -> str:
        words = [record["model"], f"batch {record['batch_size']}", arithmetic_of(record)]
        words += [record["device"]["kind"]] * (result_lines.platform(record) != "cpu")
        return f"Cost of a step: {', '.join(words)}"

    return timing.sections(workdir, KIND, title, describe)


def run(options: Step) -> None:
    """Measures, prints the table and stores the lines."""
    records = measure(options)
    print(describe(records))
    timing.store(options.workdir, records, options.model, options.batch_size, options.dtype)
