"""RESULTS.md and its pictures, made from result lines alone."""

from pathlib import Path

from experiments.reporting import opening
from experiments.reporting.summaries import Section

NOTHING = Section("Nothing yet", "No result lines were found here.")
MADE = (
    "Made by `python -m experiments report` from the result lines (`*.jsonl`) beside this file; "
    "nothing in it is typed by hand. A command is that of the version which made its lines."
)


def write(workdir: Path, sections: list[Section], problems: list[str]) -> Path:
    """Writes RESULTS.md and the pictures.

    Args:
      workdir: the folder that holds the lines.
      sections: what the report says, in order.
      problems: a sentence for each line that could not be read.

    Returns:
      The path of RESULTS.md.
    """
    parts = ["# Results", MADE]
    gained = [row for section in sections for row in section.gained]
    if gained:
        parts += [f"## {opening.TITLE}", opening.table(gained), opening.FOOTNOTE]
    for section in sections or [NOTHING]:
        parts += [f"## {section.title}", section.body]
        for picture, draw in section.pictures:
            draw(workdir / picture)
            parts.append(f"![{section.title}]({picture})")
    if problems:
        parts += ["## Lines left out", "\n".join(f"- {problem}" for problem in problems)]
    path = workdir / "RESULTS.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path
