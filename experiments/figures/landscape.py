"""Loss surfaces around trained weights along random directions, normalised filter by filter.

References:
  Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", arXiv 1712.09913.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import asam_jax
from experiments.config import paper, run_config
from experiments.config.run_config import RunConfig
from experiments.datasets import arrays
from experiments.figures import figure_lines, landscape_picture
from experiments.figures.evaluation_set import EvaluationSet
from experiments.figures.figure_lines import Record
from experiments.reporting.mean_std import format_mean_std
from experiments.reporting.summaries import Section
from experiments.training import result_lines, runner, weights
from experiments.training.lock import workdir_lock
from experiments.training.spec import ModelSpec, spec_of

KIND, RUNS, PICTURE = "landscape", "landscape_run", "landscape.png"
DIGITS_NOISE = 0.4
ALPHAS = tuple(round(float(x), 4) for x in np.linspace(-1, 1, 41))
GRID = tuple(round(float(x), 4) for x in np.linspace(-1, 1, 21))
DIRECTIONS, KEY = 5, 0  # one-dimensional cuts; the first two directions span the plane


def plan(
    dataset: str, model: str | None, label_noise: float | None, **values: Any
) -> list[RunConfig]:
    """A run of each method; None for the data set's default."""
    noise = (DIGITS_NOISE if dataset == "digits" else 0.0) if label_noise is None else label_noise
    return [
        run_config.make(dataset, method, model=model, label_noise=noise, **values)
        for method in paper.METHODS
    ]


def run(configs: list[RunConfig], images: int, options: runner.Options) -> None:
    """Trains, measures each network that has no line yet, draws."""
    workdir = options.workdir
    options = dataclasses.replace(options, kind=RUNS, keep_every=max(c.epochs for c in configs))
    records = runner.run_all(configs, options, announce=True)
    known = {line["run_id"]: line for line in result_lines.read_kind(workdir, KIND)}
    original = arrays.load(configs[0].dataset, options.data_dir)
    with workdir_lock(workdir):
        for one, record in zip(configs, records, strict=True):
            run_id = record["run_id"]
            if run_id in known:
                continue
            print(f"Measuring the surface around {paper.METHOD_NAMES[one.method]}.", flush=True)
            prepared = arrays.prepare(original, one)
            spec = spec_of(one, prepared).model
            path = weights.path_of(workdir, run_id, one.epochs)
            params, rest = weights.load(path, spec)
            train = EvaluationSet(prepared.train_images[:images], prepared.train_labels[:images])
            line = {
                "run_id": run_id,
                **one.as_json(),
                "dataset_fingerprint": original.fingerprint,
                "params_sha256": record["params_sha256"],
                "test_accuracy_final": record["test_accuracy_final"],
                "images": train.count,
                "direction_key": KEY,
                **surfaces(spec, params, rest, train),
            }
            known[run_id] = figure_lines.stamped(KIND, line)
            result_lines.append(workdir, known[run_id])
    found = [known[record["run_id"]] for record in records]
    landscape_picture.draw(found, workdir / PICTURE)
    print(_sentences(found))
    print(f"Result lines: {workdir / result_lines.name_of(KIND)}; picture: {workdir / PICTURE}")


@jax.jit
def direction(params: Any, key: jax.Array) -> Any:
    """A Gaussian direction, of which each filter is as long as the filter of the parameters.

    A filter is what makes one output: of a convolution or of a dense layer. Vectors (biases and
    BatchNorm's) do not move, as in the paper of Li et al.
    """
    leaves, treedef = jax.tree.flatten(params)
    draws = [
        jax.random.normal(jax.random.fold_in(key, number), leaf.shape, leaf.dtype)
        for number, leaf in enumerate(leaves)
    ]
    draw = jax.tree.unflatten(treedef, draws)
    lengths = asam_jax.filterwise(eta=0.0, adapt=asam_jax.all_leaves, filter_axes=_filter_axes)
    return jax.tree.map(
        lambda d, own, wanted: d * (wanted / own) if d.ndim > 1 else jnp.zeros_like(d),
        draw,
        lengths(draw),
        lengths(params),
    )


def _filter_axes(path: Any, leaf: Any) -> tuple[int, ...] | None:
    del path
    return tuple(range(leaf.ndim - 1)) if leaf.ndim > 1 else None


@jax.jit
def _moved(params: Any, first: Any, second: Any, a: jax.Array, b: jax.Array) -> Any:
    return jax.tree.map(lambda w, d, e: w + a * d + b * e, params, first, second)


def surfaces(spec: ModelSpec, params: Any, rest: Any, train: EvaluationSet) -> dict[str, list[Any]]:
    """Training loss along each direction, (directions, alphas), and in the plane of two."""
    keys = jax.random.split(jax.random.key(KEY), DIRECTIONS)
    directions = [direction(params, key) for key in keys]

    def loss(first: Any, second: Any, a: float, b: float) -> float:
        point = _moved(params, first, second, jnp.float32(a), jnp.float32(b))
        return round(train.mean(spec, point, rest)[0], 5)

    return {
        "alphas": list(ALPHAS),
        "train_loss": [[loss(d, d, alpha, 0.0) for alpha in ALPHAS] for d in directions],
        "grid": list(GRID),
        "plane": [[loss(directions[0], directions[1], a, b) for a in GRID] for b in GRID],
    }


def rises(line: Record, distance: float) -> list[float]:
    """How much the training loss is higher at +-distance than at the weights, by direction."""
    alphas = line["alphas"]
    ends = [alphas.index(distance), alphas.index(-distance)]
    middle = alphas.index(0.0)
    return [float(np.mean([cut[i] for i in ends]) - cut[middle]) for cut in line["train_loss"]]


def _sentences(found: list[Record]) -> str:
    parts = [
        f"{paper.METHOD_NAMES[line['method']]} "
        f"{format_mean_std(rises(line, 0.5))} (loss at the weights "
        f"{line['train_loss'][0][line['alphas'].index(0.0)]:.2f}, "
        f"test accuracy {line['test_accuracy_final']:.1f}%)"
        for line in found
    ]
    return f"Rise of the training loss, in nats, half a filter's length away: {'; '.join(parts)}."


def section(workdir: Path) -> list[Section]:
    """The paragraph of the report for each data set and network."""
    rows: dict[tuple, list[Record]] = {}
    for line in result_lines.read_kind(workdir, KIND):
        key = tuple(line[n] for n in ("dataset", "model", "label_noise", "seed", "epochs"))
        rows.setdefault(key, []).append(line)
    made = []
    for key, found in rows.items():
        text = (
            "Li et al. draw the loss along random directions whose filters are as long as the "
            "network's, so that networks of different scales can be compared; the paper at hand "
            "relates this to filter-wise adaptive sharpness and shows no such picture. Here: "
            f"{_sentences(found)} Mean ± sample standard deviation over n = {DIRECTIONS} "
            "directions, the same for each method; one network a method. Rises of different "
            "networks start from different losses."
        )
        title = f"Loss surfaces around trained weights, {key[0]}, {key[1]}"
        picture = PICTURE if len(rows) == 1 else f"landscape_{key[0]}_{key[1]}_{key[3]}.png"
        draw = partial(landscape_picture.draw, found)
        made.append(figure_lines.section(title, text, found, picture, draw))
    return made
