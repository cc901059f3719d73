"""The commands that make the paper's figures, and what belongs to them: landscape, curvature."""

import dataclasses
from typing import Annotated

from experiments.commands import front, options
from experiments.commands.options import WORKDIR

app = front.Commands()

Method = Annotated[str, front.Option(help="sgd, sam or asam.")]
Dataset = Annotated[str, front.Option(help="digits, cifar10 or cifar100.")]
Model = Annotated[
    str | None, front.Option(help="See the command models. Without it the data set's own.")
]
LabelNoise = Annotated[
    float | None, front.Option(help="Share of labels drawn anew; without it the data set's own.")
]
Images = Annotated[int, front.Option(min=1, help="Training images that are measured on.")]
Seed = Annotated[int, front.Option(min=0, help="Seed of the trainings.")]


@dataclasses.dataclass(frozen=True)
class Figure2Networks:
    """Which networks figure2 trains: what `figure2.plan` takes."""

    dataset: Dataset = "digits"
    model: Model = None
    method: Method = "sgd"
    epochs: options.Epochs = None
    label_noise: LabelNoise = None
    subset: options.Subset = None
    seed: Seed = 0
    dtype: options.Dtype = "float32"


@app.command()
def figure1(workdir: options.Workdir = WORKDIR) -> None:
    """Figure 1: maximization regions around two points that differ by a rescaling."""
    from experiments.figures import figure1 as figure

    figure.run(workdir)


@app.command()
@options.grouped
def figure2(
    networks: Figure2Networks,
    images: Images = 256,
    m: Annotated[int, front.Option(help="Images in a group of m-sharpness.")] = 8,
    batch_norm: Annotated[
        str, front.Option(help="evaluation (running statistics) or training (each group's own).")
    ] = "evaluation",
    *,
    running: options.Running,
) -> None:
    """Figure 2: sharpness and the generalization gap of 180 networks.

    The paper's: --dataset cifar10 --model wrn16_8 --images 50000, on an accelerator.
    """
    from experiments.figures import figure2 as figure

    configs = figure.plan(**vars(networks))
    figure.run(configs, figure.Measuring(images, m, batch_norm), running.options())


@app.command()
def figure3(workdir: options.Workdir = WORKDIR) -> None:
    """Figure 3: trajectories of SAM and ASAM on a two-parameter loss."""
    from experiments.figures import figure3 as figure

    figure.run(workdir)


@app.command()
@options.grouped
def figure4(
    dataset: Dataset = "digits",
    model: Model = None,
    rhos: Annotated[
        str | None, front.Option(help="Radii such as 0.1,0.5; without it the data set's own.")
    ] = None,
    label_noise: LabelNoise = None,
    seeds: options.Seeds = 3,
    epochs: options.Epochs = None,
    subset: options.Subset = None,
    dtype: options.Dtype = "float32",
    *,
    running: options.Running,
) -> None:
    """Figure 4: ASAM's test accuracy over rho, for two norms and two normalizations.

    The paper's: --dataset cifar10 --model wrn16_8, on an accelerator.
    """
    from experiments.figures import figure4 as figure

    configs = figure.plan(
        dataset,
        model,
        options.levels(rhos),
        label_noise=label_noise,
        seeds=seeds,
        epochs=epochs,
        subset=subset,
        dtype=dtype,
    )
    figure.run(configs, running.options())


@app.command()
@options.grouped
def landscape(
    dataset: Dataset = "digits",
    model: Model = None,
    label_noise: LabelNoise = None,
    epochs: options.Epochs = None,
    subset: options.Subset = None,
    images: Images = 1000,
    seed: Seed = 0,
    dtype: options.Dtype = "float32",
    *,
    running: options.Running,
) -> None:
    """Loss surfaces around the weights that SGD, SAM and ASAM find."""
    from experiments.figures import landscape as figure

    configs = figure.plan(
        dataset, model, label_noise, epochs=epochs, subset=subset, seed=seed, dtype=dtype
    )
    figure.run(configs, images, running.options())


@app.command()
@options.grouped
def curvature(
    networks: Figure2Networks,
    images: Images = 256,
    *,
    running: options.Running,
) -> None:
    """Curvature in the paper's coordinates, of the networks of figure2, which it trains first."""
    from experiments.figures import curvature as figure
    from experiments.figures import figure2

    configs = figure2.plan(**vars(networks))
    figure.run(configs, figure2.Measuring(images), running.options())
