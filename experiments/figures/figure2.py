"""Figure 2: does sharpness, or adaptive sharpness, tell the generalization gap?

Networks of different gaps come from nine weight decays and twenty moments of each training, as in
Appendix B. A test set with the training set's share of wrong labels makes both losses estimates of
the same thing, so that their difference is the gap.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import asam_jax
from experiments.config.errors import ConfigError
from experiments.config.options import Options
from experiments.config.run import Run
from experiments.datasets import arrays
from experiments.datasets.source import Dataset
from experiments.figures import figure2_report
from experiments.figures.figure import Figure, Record, for_data, stamped
from experiments.figures.figure2_report import PAPER_RHOS
from experiments.training import result_lines, runner, weights
from experiments.training import step as stepping
from experiments.training.loop import EvaluationSet
from experiments.training.resolve import resolve
from experiments.training.spec import ModelSpec, model_spec
from experiments.training.variants import AUTHORS

RUNS = "figure2_run"
CHECKPOINTS = 20  # of each training
WEIGHT_DECAYS = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4)
# What differs on the digits: fewer steps, so a stronger decay; noise, without which there is no
# gap worth plotting; and larger radii, too.
RUN = Run(method="sgd", epochs=100, batch_size=64, label_noise=0.4)
PAPER = dict(model="wrn16_8", epochs=200, batch_size=256, label_noise=0.0, cutout=16)
MORE_RHOS = (0.1, 0.2, 0.5, 1.0, 2.0)
# Name -> (T_w, p). Sharpness is the adaptive one with T = 1. Biases are unscaled, as in the paper.
MEASURES = {
    "sharpness_2": (asam_jax.identity(), 2.0),
    "adaptive_2": (AUTHORS, 2.0),
    "sharpness_inf": (asam_jax.identity(), math.inf),
    "adaptive_inf": (AUTHORS, math.inf),
}


def plan(shared: Run) -> list[Run]:
    """A run of each weight decay."""
    times = 10 if shared.dataset == RUN.dataset else 1
    shared = for_data(shared, RUN, PAPER)
    decays = [round(times * decay, 6) for decay in WEIGHT_DECAYS]
    return [resolve(dataclasses.replace(shared, weight_decay=decay)) for decay in decays]


def run(options: Options, shared: Run = RUN, images: int = 256, m: int = 8) -> None:
    """Figure 2: sharpness and the generalization gap of 180 networks.

    The paper's: --dataset cifar10 --images 50000, on an accelerator.

    Args:
      options: How.
      shared: What all networks share.
      images: Training images that sharpness is measured on.
      m: Images in a group of m-sharpness.
    """
    if not 1 <= m <= images:
        raise ConfigError(
            f"m={m} must be at least 1 and at most the {images} images that sharpness is measured "
            "on; choose a smaller --m or more --images."
        )
    runs = plan(shared)
    every = runs[0].epochs // CHECKPOINTS
    if not every:
        raise ConfigError(
            f"epochs={runs[0].epochs} is too few for {CHECKPOINTS} checkpoints; ask for "
            f"{CHECKPOINTS} or more."
        )
    runner.run_all(runs, options, kind=RUNS, keep_every=every)
    with runner.workdir_lock(options.workdir):
        lines = _measured(options, runs, every, images, m)
    FIGURE.finish(options.workdir, lines)


def _measured(options: Options, runs: list[Run], every: int, images: int, m: int) -> list[Record]:
    """The line of each network; those that an earlier call wrote stay as they are."""
    workdir, names = options.workdir, ("run_id", "epoch", "images", "m", "batch_norm")
    known = result_lines.read_kind(workdir, FIGURE.kind)
    known = {tuple(line[name] for name in names): line for line in known}
    original, found = arrays.load(runs[0].dataset, options.data_dir), []
    for one in runs:
        run_id, data = one.run_id(original.fingerprint), arrays.prepare(original, one)
        spec = model_spec(one, data)
        for epoch in range(every, one.epochs + 1, every):
            place = (run_id, epoch, images, m, "evaluation")
            if place not in known:
                print(f"Weight decay {one.weight_decay:g}, epoch {epoch}.", flush=True)
                network = weights.load(weights.path_of(workdir, run_id, epoch), spec)
                line = dict(zip(names, place, strict=True))
                line |= _measure(one, data, spec, network, images, m)
                line |= {"dataset_fingerprint": original.fingerprint, "run": one.as_json()}
                known[place] = stamped(FIGURE.kind, line)
                result_lines.append(workdir, known[place])
            found.append(known[place])
    return found


def _measure(one: Run, data: Dataset, spec: ModelSpec, network, images: int, m: int) -> Record:
    """Losses, gap and sharpnesses of (params, rest)."""
    # Another seed, so that the test set's noise is not the training set's.
    noise = (one.label_noise, data.num_classes, one.noise_seed + 1)
    train = EvaluationSet(data.train_images, data.train_labels)
    test = EvaluationSet(data.test_images, arrays.symmetric_noise(data.test_labels, *noise))
    train_loss, train_accuracy = train.mean(spec, *network)
    test_loss, test_accuracy = test.mean(spec, *network)
    found = dict(train_loss=train_loss, test_loss=test_loss, gap=test_loss - train_loss)
    found |= dict(train_accuracy=train_accuracy, test_accuracy=test_accuracy)
    rhos = PAPER_RHOS + (MORE_RHOS if one.dataset == RUN.dataset else ())
    count = min(images, len(data.train_labels)) // m * m  # what fills no group sits out
    batch = (data.train_images[:count], data.train_labels[:count])
    line: Record = {name: round(value, 5) for name, value in found.items()} | {"rhos": list(rhos)}
    for name in MEASURES:
        rises = _sharpness(spec, name, m)(network, batch, rhos).rise
        line[name] = [float(f"{float(rise):.5g}") for rise in rises]
    return line


@functools.cache
def _sharpness(spec: ModelSpec, name: str, m: int) -> Callable[..., asam_jax.RadiusProfile]:
    """((params, rest), batch, radii) to a measure at all radii, over groups of m images.

    The one-step sharpness of `asam_jax.sharpness`, by one gradient for all radii. The statistics in
    `rest` are arguments, so that one program serves all networks; they are not perturbed.
    """

    def loss(at, batch):
        return stepping.evaluate(spec, *at, *batch)[0] / m

    operator, p = MEASURES[name]
    operator = asam_jax.masked(operator, (True, False))
    return asam_jax.radius_profile(loss, operator=operator, p=p, m=m)


FIGURE = Figure(
    "figure2",
    "Figure 2: sharpness and the generalization gap",
    figure2_report.text,
    figure2_report.draw,
    keys=("dataset", "model", "epochs"),
)
