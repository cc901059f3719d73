"""The default job's table in the README, from result lines alone."""

from pathlib import Path

from experiments.config import plans
from experiments.config.errors import ConfigError
from experiments.reporting.summaries import digits_summary, measured_on
from experiments.reporting.tables import by_platform, groups
from experiments.training import result_lines

BEGIN, END = "<!-- digits table: begin -->", "<!-- digits table: end -->"


def table(workdir: Path) -> str:
    """What stands between the marks: the table and what it was measured on."""
    wanted = [config.as_json() for config in plans.digits([plans.DIGITS_NOISE])]
    runs = [
        run
        for run in next(iter(by_platform(result_lines.read(workdir)[0]).values()), [])
        if any(all(run.get(name) == value for name, value in one.items()) for one in wanted)
    ]
    if len(runs) < len(wanted):
        raise ConfigError(
            f"workdir {str(workdir)!r} holds {len(runs)} of the default job's {len(wanted)} runs; "
            "finish them first: python -m experiments digits --noise 0.4 --workdir ..."
        )
    found = groups(runs)
    return f"{digits_summary(found)}\n\n{measured_on(found)}"


def write(workdir: Path, readme: Path) -> None:
    """Replaces what stands between the marks in `readme`."""
    text = readme.read_text()
    if BEGIN not in text or END not in text:
        raise ConfigError(f"readme {str(readme)!r} has no lines {BEGIN!r} and {END!r}.")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    readme.write_text(f"{head}{BEGIN}\n{table(workdir)}\n{END}{tail}")
