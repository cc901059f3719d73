"""What the report says of the runs that belong to no study or figure: tables, then other data.

No data set is named here: a table is an entry of `paper.TABLES`, and runs that are in none have a
part for each data set.
"""

from typing import Any

from experiments.config import paper
from experiments.reporting.summaries import Section, bash, measured_on
from experiments.reporting.tables import Group, by_platform, groups, runs_table

FOOTNOTE = (
    "Mean ± sample standard deviation over seeds. The final epoch is the honest column; the best "
    "epoch is picked on the test set, as in the paper's tables. A step of SGD costs one gradient, "
    "of SAM and ASAM two."
)
PAPER_FOOTNOTE = (
    "SGD gets twice the epochs of SAM and ASAM, so that all methods cost the same number of "
    "gradients. Rows marked as reduced trained on fewer images or for fewer epochs than the paper: "
    "their accuracies are not the paper's to compare with."
)


def sections(records: list[dict[str, Any]]) -> list[Section]:
    """The tables in the paper's order, then other runs by data set."""
    made = []
    for platform, lines in by_platform(records).items():
        found = groups(lines)
        parts: dict[str, list[Group]] = {}
        for table in paper.TABLES.values():
            parts[table.title] = [group for group in found if table.holds(group)]
            found = [group for group in found if group not in parts[table.title]]
        for group in found:
            parts.setdefault(f"Runs on {group['dataset']}", []).append(group)
        where = "" if platform == "cpu" else f", {platform.upper()}"
        for title, rows in parts.items():
            if rows:
                paired = [PAPER_FOOTNOTE] * any(map(paper.entry, rows))
                made_by = bash(run["command"] for group in rows for run in group.runs)
                body = [runs_table(rows), FOOTNOTE, *paired, measured_on(rows), made_by]
                made.append(Section(f"{title}{where}", "\n\n".join(body)))
    return made
