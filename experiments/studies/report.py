"""What the report says of a study, from its result lines alone: a table, a picture."""

import dataclasses
import re
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from experiments.config.registry import collect
from experiments.reporting import style, tables
from experiments.reporting.report import opening_row
from experiments.reporting.summaries import Section, commands, measured_on
from experiments.studies.engine import LEAST_GAIN, choose, matching
from experiments.studies.study import Arm, Problem, Study
from experiments.training import result_lines
from experiments.training.variants import VARIANTS, gradients_per_step

FOOTNOTE = (
    "Final test accuracy, mean ± sample standard deviation over seeds; minus another row: the mean "
    "difference, seed by seed, with its 95% interval. Settings were chosen on held-out training "
    "images, under true labels unless said above, by {tuning} of other seeds for each candidate; "
    "the test set chose nothing. Cost counts gradients of a whole batch, in those of the first row."
)
EDGE = (
    "(*) The largest or the smallest that was tried: a better one may lie beyond, and the row may "
    "have less than its due."
)
ONE_DRAW = "All seeds share one subset and one draw of the label noise."
CHEAP = 1.1  # the largest cost of a variant that the opening table calls cheap


@dataclasses.dataclass(frozen=True)
class Row:
    """An arm on a problem: its final runs, its choice, and what it was chosen from."""

    problem: Problem
    arm: Arm
    group: tables.Group
    chosen: dict[str, Any]
    tried: dict[str, list[Any]]
    cost: float

    @property
    def words(self) -> str:
        """'rho 0.5 (*)', a star where a value is the first or the last of those tried."""
        said = []
        for name, value in self.chosen.items():
            tried = self.tried[name]
            edge = len(tried) > 1 and value in (min(tried), max(tried))
            said.append(f"{name} {value:g}{' (*)' * edge}")
        if not said and self.group["method"] != "sgd":
            said = [f"rho {tables.radius(self.group)}"]
        return ", ".join(said) or "-"


def sections(workdir: Path) -> list[Section]:
    """Every study that has final runs below a folder, by kind of device."""
    made = []
    for what in collect("experiments.studies", "STUDIES").values():
        lines = result_lines.read(workdir, what.kind)[0]
        # A wide table has a row a problem, which was trained on one kind of device or another.
        parts = {"": lines} if what.wide and lines else tables.by_platform(lines)
        for platform, found in parts.items():
            where = "" if len(parts) == 1 else f", {platform.upper()}"
            made += of_study(workdir, what, found, where)
    return made


def of_study(workdir: Path, what: Study, lines: list[tables.Record], where="") -> list[Section]:
    """A part for each problem, or one for all where the study is wide."""
    rows = analyse(what, lines)
    device = result_lines.platform(lines[0]).upper() if lines else ""
    parts, made = tables.grouped(rows, lambda row: "" if what.wide else row.problem.name), []
    for name, found in parts.items():
        title = f"{what.title}{': ' * bool(name)}{name}{where}"
        table = wide_table(what, found) if what.wide else long_table(what, found)
        all_runs = [row.group for row in found]
        runs = {line["seed"] for line in lines if line.get("validation")}
        said = FOOTNOTE.format(tuning=f"{len(runs)} run{'s' * (len(runs) != 1)}")
        body = [what.question, table, said, *[EDGE] * ("(*)" in table)]
        body += [ONE_DRAW] * any(not group["own_draw"] for group in all_runs)
        body += what.notes(found) if what.notes else []
        words = ["study", what.name, *["--problems", name] * bool(name)]
        words += ["--tuning-seeds", len(runs)] * (len(runs) not in (0, what.tuning_seeds))
        body += [measured_on(all_runs), commands(workdir, words)]
        picture = "_".join([what.name, *re.findall(r"[\w.]+", name), *re.findall(r"\w+", where)])
        draw = partial(draw_rows, found, title=name or what.title)
        gained = [] if what.wide else _gained(found, f"{name}, {device}")
        made.append(Section(title, "\n\n".join(body), ((f"{picture}.png", draw),), gained))
    return made


def analyse(what: Study, lines: list[tables.Record]) -> list[Row]:
    """The rows of a study that have final runs, problem by problem; choices are the lines' own."""
    choices, made = choose(what, lines), []
    for problem in what.problems:
        drawn = {
            arm.name: matching(what, problem, arm, choices, lines, tuning=False)
            for arm in what.arms
            if not arm.grid or (problem.name, arm.name) in choices
            if not arm.base or (problem.name, arm.base) in choices
        }
        own = any(tables.setting(line, "own_draw") for line in drawn.get(what.references[0], []))
        shortest = min((r["epochs"] for runs in drawn.values() for r in runs), default=1)
        for arm in what.arms:
            runs = [r for r in drawn.get(arm.name, []) if tables.setting(r, "own_draw") == own]
            if not runs:
                continue
            judged = matching(what, what.judging(problem, arm), arm, choices, lines, tuning=True)
            cost = gradients_per_step(runs[0]["method"], tables.setting(runs[0], "variant"))
            row = Row(
                problem,
                arm,
                tables.Group(tuple(sorted(runs, key=lambda run: run["seed"]))),
                choices[problem.name, arm.name] if arm.grid else {},
                {name: sorted({line[name] for line in judged}) for name in arm.grid},
                cost * runs[0]["epochs"] / shortest,
            )
            made.append(row)
    return made


def _share(what: Study, of: dict[str, Row], row: Row) -> str:
    """What a row keeps of the gain between two arms; a dash where that is too small."""
    if what.share is None or any(name not in of for name in what.share):
        return "-"
    low, high = (of[name].group.mean for name in what.share)
    if high - low < LEAST_GAIN:
        return "-"
    return f"{(row.group.mean - low) / (high - low):.2f}"


def long_table(what: Study, rows: list[Row]) -> str:
    """A row for each arm, the cheapest first, and the most accurate among equals."""
    of = {row.arm.name: row for row in rows}
    names = [name for name in what.references if name in of]
    lines = []
    for row in sorted(rows, key=lambda r: (r.cost, -r.group.mean)):
        plain, variant = row.group["method"] == "sgd", VARIANTS[row.group["variant"]].text
        line = {
            "method": row.arm.name,
            "a step": "one gradient" if plain else variant,
            "cost": f"{row.cost:.4g}",
            "chosen": row.words,
            "fits, %": f"{statistics.mean(row.group.fit):.1f}",
            "test accuracy, %": tables.format_mean_std(row.group.final),
        }
        for name in names:
            same = of[name] is row
            line[f"minus {name}"] = "-" if same else tables.paired(row.group, of[name].group)
        line |= {"gain kept": _share(what, of, row)} if what.share else {}
        lines.append(line | {"runs": str(len(row.group.runs))})
    alike = [name for name in ("method", "a step", "cost") if len({x[name] for x in lines}) == 1]
    header = [name for name in lines[0] if name not in alike]
    return tables.markdown(header, [[line[name] for name in header] for line in lines])


def wide_table(what: Study, rows: list[Row]) -> str:
    """A row for each problem and a column for each arm, with the difference from the baseline."""
    arms = [arm.name for arm in what.arms if any(row.arm.name == arm.name for row in rows)]
    shares: dict[str, list[float]] = {name: [] for name in arms}
    cells = []
    for problem, found in tables.grouped(rows, lambda row: row.problem.name).items():
        of, judges = {row.arm.name: row for row in found}, found[0].problem.judges
        line = [problem + " (chosen here)" * judges]
        for name in arms:
            if name not in of:
                line.append("-")
                continue
            row, share = of[name], _share(what, of, of[name])
            first = of.get(what.references[0])
            words = [tables.format_mean_std(row.group.final)]
            words += [f"({row.words})"] * (row.words != "-")
            words += [tables.paired(row.group, first.group)] if first and first is not row else []
            if share != "-":
                shares[name] += [float(share)] * (not judges)
                words.append(f"keeps {share}")
            line.append(" ".join(words))
        cells.append(line)
    if what.share:
        where = " elsewhere" * any(problem.judges for problem in what.problems)
        for word, of_all in (("worst share", min), ("mean share", statistics.mean)):
            word += where
            cells.append([word, *(f"{of_all(s):.2f}" if s else "-" for s in shares.values())])
    return tables.markdown(["problem", *(f"{name}, %" for name in arms)], cells)


def _gained(rows: list[Row], problem: str) -> list[list[str]]:
    """The row of the table that opens the report, where the base optimizer has runs."""
    of_role = {row.arm.role: row.group for row in rows}
    if "base" not in of_role:
        return []
    within = [row for row in rows if row.arm.role == "cheap" and row.cost <= CHEAP]
    cheap, best = "-", max(within, key=lambda row: row.group.mean, default=None)
    if best:
        cheap = f"{tables.format_mean_std(best.group.final)}: {best.arm.name}, {best.cost:.3g}"
        cheap += f" ({tables.radius(best.group)})"
    return [opening_row(problem, of_role, cheap)]


def draw_rows(rows: list[Row], path: Path, title: str) -> None:
    """Mean and standard deviation of every arm, problem by problem, the baseline as a line."""
    problems = tables.grouped(rows, lambda row: row.problem.name)
    size = (6.4, len(problems) * (0.7 + 0.24 * max(map(len, problems.values()))))
    canvas, panels = style.panels(len(problems), 1, size)
    for panel, (name, found) in zip(panels, problems.items(), strict=True):
        found = sorted(found, key=lambda row: row.group.mean)
        for height, row in enumerate(found):
            at, spread, color = row.group.mean, row.group.std, style.COLORS[row.group["method"]]
            panel.errorbar(at, height, xerr=spread, color=color, marker="o", capsize=2)
        labels = [f"{row.arm.name} (cost {row.cost:.3g})" for row in found]
        panel.set_yticks(range(len(found)), labels, fontsize=8)
        panel.set_ylim(-0.5, len(found) - 0.5)  # so that no marker is cut
        panel.set_title(name if len(problems) > 1 else title)
    panels[-1].set_xlabel("final test accuracy (%)")
    style.save(canvas, path)
