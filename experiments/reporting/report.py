"""RESULTS.md, APPENDIX.md and their pictures, made from result lines alone."""

from pathlib import Path

from experiments.reporting import opening
from experiments.reporting.summaries import Section

NOTHING = Section("Nothing yet", "No result lines were found here.")
MADE = (
    "Made by `python -m experiments report` from the result lines (`*.jsonl`) beside this file; "
    "nothing in it is typed by hand. A command is that of the version which made its lines."
)
APPENDIX = (
    "Runs that were made and are kept, and what is wrong with them. Nothing in the documentation "
    "rests on them."
)


def write(workdir: Path, sections: list[Section], problems: list[str]) -> Path:
    """Writes RESULTS.md, APPENDIX.md where there is something for it, and the pictures.

    Args:
      workdir: the folder that holds the lines.
      sections: what the report says, in order.
      problems: a sentence for each line that could not be read.

    Returns:
      The path of RESULTS.md.
    """
    front = [section for section in sections if not section.appendix]
    outcomes = [outcome for section in front for outcome in section.outcomes]
    first = []
    if outcomes:
        first = [f"## {opening.TITLE}", opening.table(outcomes), opening.FOOTNOTE]
    last = []
    if problems:
        last = ["## Lines left out", "\n".join(f"- {problem}" for problem in problems)]
    appendix = [section for section in sections if section.appendix]
    if appendix:
        _page(workdir, "APPENDIX.md", "Appendix to the results", [APPENDIX], appendix, [])
        last = ["[APPENDIX.md](APPENDIX.md) holds runs that nothing should rest on.", *last]
    return _page(workdir, "RESULTS.md", "Results", first, front or [NOTHING], last)


def _page(workdir: Path, name: str, title: str, first, sections: list[Section], last) -> Path:
    parts = [f"# {title}", MADE, *first]
    for section in sections:
        parts += [f"## {section.title}", section.body]
        for picture, draw in section.pictures:
            draw(workdir / picture)
            parts.append(f"![{section.title}]({picture})")
    path = workdir / name
    path.write_text("\n\n".join([*parts, *last]) + "\n")
    return path
