"""The commands that measure: speed, memory, compilation, and accuracy for its price."""

from typing import Annotated

from experiments.commands import front, options
from experiments.commands.options import WORKDIR

app = front.Commands(help="Measures speed, memory and accuracy for its price.")


@app.command("step")
def benchmark_step(
    model: Annotated[str, front.Option(help="See the command models.")] = "resnet20",
    batch_size: Annotated[int, front.Option(min=1, help="Images in a step.")] = 128,
    dtype: options.Dtype = "float32",
    repeats: Annotated[
        int, front.Option(min=1, help="Rounds; every form steps once in each.")
    ] = 10,
    torch: Annotated[
        bool, front.Option(help="Also PyTorch's step, on the kind of device that JAX has.")
    ] = False,
    workdir: options.Workdir = WORKDIR,
) -> None:
    """Prints what a step costs: FLOPs, memory and time of each form relative to SGD."""
    from experiments.benchmarks import step_cost

    step_cost.run(workdir, model, batch_size, dtype, repeats, torch)


@app.command("loop")
def benchmark_loop(
    model: Annotated[str, front.Option(help="See the command models.")] = "resnet20",
    method: Annotated[str, front.Option(help="sgd, sam or asam.")] = "asam",
    dtype: options.Dtype = "float32",
    precision: options.Precision = None,
    batch_size: Annotated[int, front.Option(min=1, help="Images in a step.")] = 128,
    images: Annotated[int, front.Option(min=1, help="Random images in an epoch.")] = 50_000,
    rounds: Annotated[int, front.Option(min=1, help="Epochs that are timed.")] = 3,
    loop: options.Loop = "auto",
    trace: Annotated[
        bool, front.Option(help="Also where the device's time goes, by JAX's profiler.")
    ] = False,
    torch: Annotated[
        bool, front.Option(help="Also PyTorch's step, on the kind of device that JAX has.")
    ] = False,
    workdir: options.Workdir = WORKDIR,
) -> None:
    """Prints how fast the loop that trains is here: images a second, an epoch, a step."""
    from experiments.benchmarks import loop_cost

    loop_cost.run(
        workdir,
        model=model,
        method=method,
        dtype=dtype,
        precision=precision,
        batch_size=batch_size,
        images=images,
        rounds=rounds,
        loop=loop,
        traced=trace,
        torch=torch,
    )


@app.command("convolutions")
def benchmark_convolutions(
    model: Annotated[str, front.Option(help="See the command models.")] = "resnet20",
    batch_size: Annotated[int, front.Option(min=1, help="Images in a step.")] = 128,
    repeats: Annotated[int, front.Option(min=1, help="Rounds of all of them.")] = 10,
    torch: Annotated[bool, front.Option(help="Also PyTorch's convolutions and step.")] = False,
    workdir: options.Workdir = WORKDIR,
) -> None:
    """Prints what the convolutions of a step take on a CPU, in XLA's libraries and PyTorch's."""
    from experiments.benchmarks import convolution_cost

    convolution_cost.run(workdir, model, batch_size, repeats, torch)


@app.command("leaves")
def benchmark_leaves(
    leaves: Annotated[
        str, front.Option(help="Numbers of parameter arrays, with commas between.")
    ] = "25,50,100,200,400,800,1600",
    repeats: Annotated[int, front.Option(min=1, help="Steps that are timed.")] = 10,
    workdir: options.Workdir = WORKDIR,
) -> None:
    """Prints what a step costs to compile and to run as the parameter arrays get more."""
    from experiments.benchmarks import leaves_cost

    numbers = options.levels(leaves, "leaves") or []
    leaves_cost.run(workdir, [int(number) for number in numbers], repeats)


@app.command("sharpness")
def benchmark_sharpness(
    model: Annotated[str, front.Option(help="See the command models.")] = "resnet8",
    images: Annotated[int, front.Option(min=1, help="Images in the set.")] = 10_000,
    m: Annotated[int, front.Option(min=1, help="Images in a group; must divide the set.")] = 8,
    repeats: Annotated[int, front.Option(min=1, help="Rounds of both.")] = 3,
    workdir: options.Workdir = WORKDIR,
) -> None:
    """Prints what one-step sharpness costs, relative to a gradient and a forward pass."""
    from experiments.benchmarks import sharpness_cost

    sharpness_cost.run(workdir, model, images, m, repeats)


@app.command("pareto")
@options.grouped
def benchmark_pareto(
    dataset: Annotated[str, front.Option(help="digits or cifar10.")] = "digits",
    forms: Annotated[
        str | None, front.Option(help="Some only, by name, with commas between.")
    ] = None,
    radii: Annotated[
        str | None, front.Option(help="Radii to choose from, with commas between.")
    ] = None,
    model: Annotated[
        str | None, front.Option(help="See the command models; else the data set's own.")
    ] = None,
    label_noise: Annotated[
        float | None, front.Option(help="Share of labels drawn anew; else the data set's own.")
    ] = None,
    subset: options.Subset = None,
    augment: Annotated[
        bool | None, front.Option(help="Crop and flip; else the data set's own.")
    ] = None,
    epochs: options.Epochs = None,
    seeds: options.Seeds = 5,
    tuning_seeds: Annotated[
        int, front.Option(min=1, help="Runs of each setting on the validation split.")
    ] = 2,
    *,
    running: options.Running,
) -> None:
    """Trains every form of a step at its best radius: test accuracy against cost."""
    from experiments.benchmarks import pareto
    from experiments.commands.train_and_report import compare_and_report

    plan = pareto.plan(
        dataset,
        options.split(forms),
        options.levels(radii, "radii"),
        model=model,
        label_noise=label_noise,
        subset=subset,
        augment=augment,
        epochs=epochs,
        seeds=seeds,
        tuning_seeds=tuning_seeds,
    )
    compare_and_report(plan, running.options())


@app.command("fitted")
@options.grouped
def benchmark_fitted(
    noise: options.Noise = None,
    seeds: options.Seeds = 5,
    tuning_seeds: Annotated[
        int, front.Option(min=1, help="Runs of each radius on the validation split.")
    ] = 1,
    forms: Annotated[
        str | None, front.Option(help="Cheaper forms of ASAM's step, with commas between.")
    ] = None,
    *,
    running: options.Running,
) -> None:
    """Table 3 where SGD fits its labels, at the paper's and at validated radii."""
    from experiments.benchmarks import fitted
    from experiments.commands.train_and_report import finish
    from experiments.config import paper

    levels = options.levels(noise) or list(paper.NOISE_LEVELS)
    chosen = running.options()
    plan = fitted.Plan(levels, seeds, tuning_seeds, options.split(forms) or ())
    finish(chosen.workdir, fitted.run(plan, chosen))


@app.command("radius")
@options.grouped
def benchmark_radius(
    problems: Annotated[
        str, front.Option(help="Some only, by name, with commas between.")
    ] = "digits,cifar10,vit",
    seeds: options.Seeds = 5,
    *,
    running: options.Running,
) -> None:
    """Rules that choose ASAM's radius in training, against a sweep of constant radii."""
    from experiments.benchmarks import radius
    from experiments.commands.train_and_report import finish

    chosen = running.options()
    plan = radius.Plan(options.split(problems) or (), seeds)
    finish(chosen.workdir, radius.run(plan, chosen))


@app.command("transformer")
@options.grouped
def benchmark_transformer(
    dataset: Annotated[
        str, front.Option(help="digits, cifar10, or both with a comma between.")
    ] = "digits,cifar10",
    noise: Annotated[
        str, front.Option(help="Levels of label noise, with commas between.")
    ] = "0,0.4",
    seeds: options.Seeds = 5,
    *,
    running: options.Running,
) -> None:
    """Trains a small transformer by AdamW and Muon, alone and with SAM and ASAM."""
    from experiments.benchmarks import transformer
    from experiments.commands.train_and_report import finish

    names = options.split(dataset) or []
    plan = transformer.Plan(names, options.levels(noise) or [], seeds)
    chosen = running.options()
    finish(chosen.workdir, transformer.run(plan, chosen))
