"""The command `train`: one configuration, option by option, on one device or on many."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

from experiments.commands import front, options

if TYPE_CHECKING:
    from experiments.config.run_config import RunConfig


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What `run_config.make` takes, for one seed or several."""

    dataset: Annotated[str, front.Option(help="digits, cifar10 or cifar100.")] = "digits"
    method: Annotated[str, front.Option(help="sgd, sam or asam.")] = "asam"
    model: Annotated[str | None, front.Option(help="See the command models.")] = None
    epochs: options.Epochs = None
    seed: Annotated[int, front.Option(min=0, help="The first seed.")] = 0
    seeds: Annotated[int, front.Option(min=1, help="How many seeds, from the first on.")] = 1
    rho: Annotated[float | None, front.Option(help="Radius of the perturbation.")] = None
    eta: Annotated[float | None, front.Option(help="Added to every scale of T_w.")] = None
    p: Annotated[float | None, front.Option(help="Order of the region's norm; inf, too.")] = None
    normalization: Annotated[str | None, front.Option(help="elementwise or filterwise.")] = None
    adapt: Annotated[str | None, front.Option(help="not_bias or all: the leaves scaled.")] = None
    label_noise: Annotated[float, front.Option(help="Share of labels drawn anew.")] = 0.0
    noise_seed: Annotated[int, front.Option(help="Seed of the label noise.")] = 0
    subset: options.Subset = None
    batch_size: Annotated[int, front.Option(help="Images in a step.")] = 128
    optimizer: Annotated[str, front.Option(help="sgd, adamw or muon.")] = "sgd"
    lr: Annotated[
        float | None, front.Option(help="Largest learning rate; else the optimizer's own.")
    ] = None
    warmup: Annotated[
        float, front.Option(help="Share of the steps with a rising rate, before the cosine.")
    ] = 0.0
    momentum: Annotated[
        float | None, front.Option(help="Momentum factor; else the optimizer's own.")
    ] = None
    nesterov: Annotated[bool | None, front.Option(help="Nesterov's momentum.")] = None
    weight_decay: Annotated[
        float | None, front.Option(help="Weight decay; else the optimizer's own.")
    ] = None
    label_smoothing: Annotated[float | None, front.Option(help="Share spread evenly.")] = None
    augment: Annotated[bool | None, front.Option(help="Crop and flip.")] = None
    cutout: options.Cutout = 0
    recipe: options.Recipe = "paper"
    dtype: options.Dtype = "float32"
    precision: options.Precision = None
    variant: Annotated[
        str, front.Option(help="Form of a step: exact, every4, look4, part16, momentum, ...")
    ] = "exact"
    weight: Annotated[float, front.Option(help="Weight of LookSAM's, GSAM's, WSAM's rule.")] = 0.0
    radius_rule: Annotated[
        str,
        front.Option(
            help="fixed, or what chooses rho in training, from --rho on: rise, relative, linear or "
            "departure, of the loss; see docs/radius.md."
        ),
    ] = "fixed"
    target: Annotated[float, front.Option(help="What the radius rule aims at.")] = 0.0
    devices: options.Devices = None
    perturb: options.Perturb = None
    batch_norm: options.BatchNorm = None

    def of_each_seed(self, devices: int) -> "list[RunConfig]":
        """The checked configurations, once it is known how many devices there are."""
        from experiments.config import run_config

        values = vars(self).copy()
        first, count = values.pop("seed"), values.pop("seeds")
        values["devices"] = devices
        return [run_config.make(**values, seed=seed) for seed in range(first, first + count)]


@options.grouped
def train(wanted: Configuration, others: options.OtherProcesses, running: options.Running) -> None:
    """Trains one configuration, for one seed or several."""
    from experiments.training import processes, runner

    devices = processes.join(devices=wanted.devices, **vars(others))
    # Together, so that none leaves the others waiting for it.
    configs = processes.all_succeed(lambda: wanted.of_each_seed(devices))
    for record in runner.run_all(configs, running.options()):
        if processes.leads():
            print(runner.sentence(record))
