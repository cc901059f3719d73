"""RESULTS.md and its pictures, made from result lines alone."""

from pathlib import Path

from experiments.reporting.sections import sections
from experiments.reporting.tables import groups
from experiments.training import result_lines


def write(workdir: Path) -> tuple[Path, list[str]]:
    """Writes RESULTS.md and its pictures into the folder that holds the lines.

    Returns:
      The file's path, and a sentence for each line that could not be read.
    """
    runs, problems = result_lines.read(workdir)
    parts = [
        "# Results",
        "Made by `python -m experiments report` from the result lines (`*.jsonl`) beside this "
        "file; nothing in it is typed by hand.",
    ]
    for section in sections(workdir, groups(runs)):
        parts += [f"## {section.title}", section.body]
        for name, draw in section.pictures:
            draw(workdir / name)
            parts.append(f"![{section.title}]({name})")
    if problems:
        parts += ["## Lines left out", "\n".join(f"- {problem}" for problem in problems)]
    path = workdir / "RESULTS.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path, problems
