"""The command line: `python -m experiments [COMMAND]`; without a command, the embedded default.

A command's options are the parameters of its function and the fields of their dataclasses, which
tyro turns into flags. Commands load what they need when they run.
"""

import dataclasses
import importlib
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from experiments.benchmarks import BENCHMARKS
from experiments.config.errors import ConfigError
from experiments.config.options import Options, Processes
from experiments.config.paper import METHODS, TABLES
from experiments.config.run import FIELDS, Run, one_of

PROGRAM = "python -m experiments"
MEASURED = "speed, memory or compilation; its --help says of what"
ABOUT = """Reproduces the ASAM paper's tables and figures.

Without a command: SGD, SAM and ASAM on the digits images of scikit-learn with 40% label noise,
each at the radius that a validation split chose, on a network as it is and on the same network
with its layers rescaled; five seeds, a table and a picture, in under two minutes on two cores."""


def models(options: Options) -> None:
    """Prints the name and the parameter count (10 classes) of each network."""
    del options
    from experiments.models import names, parameter_count

    for name in names():
        print(f"{name:18}{parameter_count(name):>12,}")


def train(run: Run, processes: Processes, options: Options, seeds: int = 1) -> None:
    """Trains one configuration, for one seed or several, on one device or on many.

    Args:
      run: what is trained.
      processes: the others.
      options: how.
      seeds: How many seeds, from the first on.
    """
    from experiments.training import processes as together
    from experiments.training import runner

    run = dataclasses.replace(run, devices=together.join(processes, run.devices))
    runs = [dataclasses.replace(run, seed=run.seed + number) for number in range(seeds)]
    runner.run_all(runs, options)


def _table(name: str) -> Callable[..., None]:
    of = TABLES[name]

    def table(
        run: Run,
        options: Options,
        models: tuple[str, ...] = of.models,
        methods: tuple[Literal["sgd", "sam", "asam"], ...] = METHODS,
        noise: tuple[float, ...] = of.noise,
        seeds: int = of.seeds,
    ) -> None:
        from experiments.training import runner

        for field in ("dataset", "model", "method", "label_noise", "seed", "rho"):
            if getattr(run, field) != FIELDS[field].default:
                raise ConfigError(f"{field} is each row's own and no option of a table.")
        made = []
        # Seed by seed, so that a stopped command has some of every row.
        for seed, model, level, method in itertools.product(range(seeds), models, noise, methods):
            row: dict[str, Any] = dict(dataset=of.dataset, model=model, label_noise=level)
            times = 2 if method == "sgd" else 1  # its steps cost half
            row |= dict(seed=seed, method=method, epochs=run.epochs and run.epochs * times)
            made.append(dataclasses.replace(run, **row))
        runner.run_all(made, options)
        _finish(options, f"All {len(made)} runs are finished")

    table.__doc__ = f"""{of.title}: SGD, SAM and ASAM.

    Args:
      run: What all rows share; a row has its own data, model, method, noise, seed and rho.
      options: How.
      models: Networks, by name.
      methods: Some only.
      noise: Levels of label noise.
      seeds: How many seeds.
    """
    return table


def report(options: Options, readme: Path | None = None) -> None:
    """Writes RESULTS.md and its pictures from the result lines in the folder.

    Args:
      options: the folder.
      readme: Also put the default job's table into this file.
    """
    for problem in _finish(options, "The report is written"):
        print(f"warning: {problem}", file=sys.stderr)
    if readme is not None:
        from experiments.studies import default as job

        job.write_readme(options.workdir, readme)
        print(f"Wrote the table into {readme}.")


def study(
    name: Annotated[str, tyro.conf.Positional],
    options: Options,
    problems: tuple[str, ...] = (),
    arms: tuple[str, ...] = (),
    seeds: int | None = None,
    tuning_seeds: int | None = None,
) -> None:
    """Settings tuned on a validation split, finals on the test set, a table, a picture.

    Args:
      name: fitted, pareto, radius, transformer, parameterization; language, without seeds.
      options: how.
      problems: Some problems only, by name.
      arms: Some rows only, by name.
      seeds: Of the final runs.
      tuning_seeds: That judge each setting.
    """
    from experiments.studies import engine, language
    from experiments.studies import study as studies

    if name == "language":
        language.run(options, problems, arms)
        _finish(options, f"The study {name} is finished")
        return
    whole = studies.study(name)
    numbers = dict(seeds=seeds, tuning_seeds=tuning_seeds)
    whole = dataclasses.replace(whole, **{n: v for n, v in numbers.items() if v is not None})
    engine.run(whole.only(problems, arms), options, whole)
    _finish(options, f"The study {name} is finished")


# What each does, and the function that does it: here, or MODULE:NAME where that loads much.
COMMANDS: dict[str, tuple[str, Callable[..., None] | str]] = {
    "models": ("name and parameter count of each network", models),
    "train": ("one configuration, for one seed or several", train),
    **{name: (table.title, _table(name)) for name, table in TABLES.items()},
    "figure1": ("maximization regions around two points", "figures.figure1:run"),
    "figure2": ("sharpness and the generalization gap", "figures.figure2:run"),
    "figure3": ("trajectories on a two-parameter loss", "figures.figure3:run"),
    "figure4": ("accuracy over rho", "figures.figure4:run"),
    "report": ("RESULTS.md from the result lines in a folder", report),
    "study": ("study NAME: a comparison with tuned settings", study),
    **{f"benchmark {name}": (MEASURED, f"benchmarks.{name}:run") for name in BENCHMARKS},
}


def _finish(options: Options, said: str) -> list[str]:
    """Writes the report and says where; a sentence for each line that could not be read."""
    from experiments import benchmarks, figures
    from experiments.reporting import report, sections
    from experiments.studies import language
    from experiments.studies import report as studies
    from experiments.training import result_lines

    workdir = options.workdir
    if not workdir.is_dir():
        raise ConfigError(f"workdir {str(workdir)!r} does not exist; give another with --workdir.")
    runs, problems = result_lines.read(workdir)
    parts = [
        *studies.sections(workdir),
        *language.sections(workdir),
        *sections.sections(runs),
        *figures.sections(workdir),
        *benchmarks.sections(workdir),
    ]
    path = report.write(workdir, parts, problems)
    print(f"{said}; the tables are in {path}.")
    return problems


def _call(words: list[str]) -> None:
    """Finds the command, lets tyro read its options and calls it."""
    program, text, target = PROGRAM, None, "studies.default:run"
    if words and not words[0].startswith("-"):
        count = 2 if words[0] == "benchmark" else 1
        name, words = " ".join(words[:count]), words[count:]
        one_of("command", name, COMMANDS)
        program, target = f"{PROGRAM} {name}", COMMANDS[name][1]
    else:
        listed = "\n".join(f"  {name:20}{said}" for name, (said, _) in COMMANDS.items())
        text = f"{ABOUT}\n\ncommands ({PROGRAM} COMMAND --help):\n{listed}"
    if isinstance(target, str):
        module, name = target.split(":")
        target = getattr(importlib.import_module(f"experiments.{module}"), name)
    config = (tyro.conf.OmitArgPrefixes,)
    tyro.cli(target, args=words, prog=program, description=text, config=config)


def main() -> None:
    """Runs the command line; what is wrong with a call is one line and exit code 2."""
    from experiments.training.stop import Stopped

    try:
        _call(sys.argv[1:])
        return
    except ConfigError as error:
        said, code = f"error: {error}", 2
    except Stopped as stopped:
        said = f"Stopped by {stopped.reason}, with a checkpoint; the same command goes on."
        code = stopped.exit_code
    print(said, file=sys.stderr)
    sys.exit(code)
