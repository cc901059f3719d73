"""Figure 2: does sharpness, or adaptive sharpness, tell the generalization gap?

Networks of different gaps come from nine weight decays and twenty moments of each training, as in
Appendix B. A test set with the training set's share of wrong labels makes both losses estimates of
the same thing, so that their difference is the gap.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments.config.errors import ConfigError
from experiments.config.options import Options
from experiments.config.run import Run
from experiments.datasets import arrays
from experiments.figures import figure2_measures, figure2_picture, figure_lines
from experiments.figures.figure2_statistics import PAPER_RHOS, sentences
from experiments.figures.figure_lines import Record
from experiments.reporting.summaries import Section
from experiments.training import result_lines, runner, weights
from experiments.training.loop import EvaluationSet
from experiments.training.resolve import resolve
from experiments.training.runner import workdir_lock
from experiments.training.spec import model_spec

KIND, RUNS, PICTURE = "figure2", "figure2_run", "figure2.png"
CHECKPOINTS = 20  # of each training
WEIGHT_DECAYS = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4)
# What differs on the digits: fewer steps, so a stronger decay; noise, without which there is no
# gap worth plotting; and larger radii, too.
RUN = Run(method="sgd", epochs=100, batch_size=64, label_noise=0.4)
PAPER = dict(model="wrn16_8", epochs=200, batch_size=256, label_noise=0.0, cutout=16)
MORE_RHOS = (0.1, 0.2, 0.5, 1.0, 2.0)


def plan(shared: Run) -> list[Run]:
    """A run of each weight decay."""
    times = 10 if shared.dataset == RUN.dataset else 1
    shared = figure_lines.for_data(shared, RUN, PAPER)
    decays = [round(times * decay, 6) for decay in WEIGHT_DECAYS]
    return [resolve(dataclasses.replace(shared, weight_decay=decay)) for decay in decays]


@dataclasses.dataclass(frozen=True)
class Measuring:
    """How sharpness is measured: over groups of m of the first `images` training images."""

    images: int = 256
    """Training images that are measured on."""
    m: int = 8
    """Images in a group of m-sharpness."""
    bn_mode: Literal["evaluation", "training"] = "evaluation"
    """BatchNorm by running statistics, or by those of each group."""

    def check(self, runs: list[Run]) -> None:
        """Raises ConfigError for values that cannot be measured with."""
        if not 1 <= self.m <= self.images:
            raise ConfigError(
                f"m={self.m} must be at least 1 and at most the {self.images} images that "
                "sharpness is measured on; choose a smaller --m or more --images."
            )
        if runs[0].epochs < CHECKPOINTS:
            raise ConfigError(
                f"epochs={runs[0].epochs} is too few for {CHECKPOINTS} checkpoints; ask for "
                f"{CHECKPOINTS} or more."
            )


MEASURING = Measuring()


def run(options: Options, shared: Run = RUN, measuring: Measuring = MEASURING) -> None:
    """Figure 2: sharpness and the generalization gap of 180 networks.

    The paper's: --dataset cifar10 --images 50000, on an accelerator.
    """
    configs = plan(shared)
    measuring.check(configs)
    every = configs[0].epochs // CHECKPOINTS
    runner.run_all(configs, options, kind=RUNS, keep_every=every)
    with workdir_lock(options.workdir):
        found = _measure(configs, measuring, every, options)
    figure2_picture.draw(found, options.workdir / PICTURE)
    print(sentences(found))
    print(f"Result lines: {options.workdir / result_lines.name_of(KIND)}; picture beside it.")


def _measure(configs, measuring: Measuring, every: int, options: Options) -> list[Record]:
    """The line of each checkpoint; those that are there already stay."""
    workdir = options.workdir
    how = {"images": measuring.images, "m": measuring.m, "batch_norm": measuring.bn_mode}
    known = {_place(line): line for line in result_lines.read_kind(workdir, KIND)}
    original, found = arrays.load(configs[0].dataset, options.data_dir), []
    for one in configs:
        run_id = one.run_id(original.fingerprint)
        places = [(run_id, epoch, *how.values()) for epoch in range(every, one.epochs + 1, every)]
        missing = [place for place in places if place not in known]
        if missing:
            print(f"Measuring weight decay {one.weight_decay:g}.", flush=True)
        network = _Network(one, original, measuring) if missing else None
        for place in missing:
            assert network is not None
            path = weights.path_of(workdir, run_id, place[1])
            line = {"run_id": run_id, "epoch": place[1], **how, **network.measure(path)}
            line |= {"dataset_fingerprint": original.fingerprint, "run": one.as_json()}
            known[place] = figure_lines.stamped(KIND, line)
            result_lines.append(workdir, known[place])
        found += [known[place] for place in places]
    return found


def _place(line: Record) -> tuple:
    return (line["run_id"], line["epoch"], line["images"], line["m"], line["batch_norm"])


class _Network:
    """Measures the checkpoints of one run."""

    def __init__(self, one: Run, original: arrays.Dataset, measuring: Measuring):
        prepared = arrays.prepare(original, one)
        # Another seed, so that the test set's noise is not the training set's.
        test_labels = arrays.symmetric_noise(
            prepared.test_labels, one.label_noise, prepared.num_classes, one.noise_seed + 1
        )
        self._spec, self._measuring = model_spec(one, prepared), measuring
        self._train = EvaluationSet(prepared.train_images, prepared.train_labels)
        self._test = EvaluationSet(prepared.test_images, test_labels)
        self._groups = (
            prepared.train_images[: measuring.images],
            prepared.train_labels[: measuring.images],
        )
        self._rhos = PAPER_RHOS + (MORE_RHOS if one.dataset == "digits" else ())

    def measure(self, path: Path) -> Record:
        params, rest = weights.load(path, self._spec)
        sharpness = figure2_measures.sharpnesses(
            self._spec,
            params,
            rest,
            *self._groups,
            self._rhos,
            m=self._measuring.m,
            train=self._measuring.bn_mode == "training",
        )
        losses = figure2_measures.losses(self._spec, params, rest, self._train, self._test)
        return {
            **{name: round(value, 5) for name, value in losses.items()},
            "rhos": list(self._rhos),
            **{name: [float(f"{x:.5g}") for x in rises] for name, rises in sharpness.items()},
        }


def section(workdir: Path) -> list[Section]:
    """The paragraph and the table of the report for each experiment that there are lines for."""
    rows: dict[tuple, list[Record]] = {}
    for line in result_lines.read_kind(workdir, KIND):
        made_by = line["run"]
        key = (made_by["dataset"], made_by["model"], line["batch_norm"], made_by["epochs"])
        rows.setdefault(key, []).append(line)
    made = []
    for key, found in rows.items():
        picture = PICTURE if len(rows) == 1 else "_".join(["figure2", *map(str, key)]) + ".png"
        title = f"Figure 2: sharpness and the generalization gap, {key[0]}, {key[1]}"
        draw = figure2_picture.drawing(found)
        made.append(figure_lines.section(title, sentences(found), found, picture, draw))
    return made
