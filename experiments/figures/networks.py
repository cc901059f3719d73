"""Measurements of networks at several moments of their training, a result line for each."""

from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.config.options import Options
from experiments.config.run import Run
from experiments.datasets import arrays
from experiments.datasets.source import Dataset
from experiments.figures.figure import Record, stamped
from experiments.training import result_lines, weights
from experiments.training.runner import workdir_lock
from experiments.training.spec import ModelSpec, model_spec


class Network(NamedTuple):
    """A network as it was after an epoch of its training."""

    run_id: str
    epoch: int
    run: Run
    data: Dataset
    spec: ModelSpec
    params: Any
    rest: Any


def measured(
    kind: str,
    runs: list[Run],
    every: int,
    how: Record,
    options: Options,
    measure: Callable[[Network], Record],
) -> list[Record]:
    """The lines of all networks; those that an earlier call wrote stay as they are.

    Args:
      kind: of the lines.
      runs: finished, with their weights kept.
      every: epochs between two networks of a run.
      how: values of the lines that tell other measurements of the same network apart.
      options: where.
      measure: what the line holds of a network.
    """
    workdir, names = options.workdir, ("run_id", "epoch", *how)
    original, found = arrays.load(runs[0].dataset, options.data_dir), []
    with workdir_lock(workdir):
        lines = result_lines.read_kind(workdir, kind)
        known = {tuple(line[name] for name in names): line for line in lines}
        for one in runs:
            run_id, data = one.run_id(original.fingerprint), arrays.prepare(original, one)
            spec = model_spec(one, data)
            for epoch in range(every, one.epochs + 1, every):
                place = (run_id, epoch, *how.values())
                if place not in known:
                    print(f"{kind}: weight decay {one.weight_decay:g}, epoch {epoch}.", flush=True)
                    state = weights.load(weights.path_of(workdir, run_id, epoch), spec)
                    line = dict(zip(names, place, strict=True))
                    line |= measure(Network(run_id, epoch, one, data, spec, *state))
                    line |= {"dataset_fingerprint": original.fingerprint, "run": one.as_json()}
                    known[place] = stamped(kind, line)
                    result_lines.append(workdir, known[place])
                found.append(known[place])
    return found


def rounded(value: Any) -> float:
    """Five digits of it, which is what a line holds."""
    return float(f"{float(value):.5g}")
