"""What the site needs beyond Markdown: a hook of mkdocs and an extension of griffe in one file."""

import pathlib
import re
import textwrap
import tomllib

import griffe
from latex2mathml.converter import convert

ROOT = pathlib.Path(__file__).parent.parent
LINK = re.compile(r"\]\(\.\./([^)\s]+)\)")
FORMULA = re.compile(r"^\$\$(.+?)\$\$$", flags=re.DOTALL | re.MULTILINE)
ANGLE = re.compile(r"(`[^`]*`)|<(?=\w)")
PROSE = re.compile(r"^(Returns|References):\n((?:(?: +.*)?\n)*(?: +.*)?)", flags=re.MULTILINE)


def repository() -> str:
    """The repository's address, from the one place where it stands."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["urls"]["Repository"]


def on_config(config):
    """Links the header to the repository."""
    config.repo_url, config.repo_name = repository(), "Repository"
    return config


def on_page_markdown(markdown, **_):
    """Fills in the address, also in links that leave docs/, and makes MathML of formulas."""
    markdown = LINK.sub(r"](REPOSITORY/blob/main/\1)", markdown)
    markdown = FORMULA.sub(lambda m: _mathml(m[1].strip()), markdown)
    return markdown.replace("REPOSITORY", repository())


def _mathml(formula: str) -> str:
    return f"<div>{convert(formula, display='block')}</div>"


class Docstrings(griffe.Extension):
    """Hands docstrings to Markdown as they are meant."""

    def on_object(self, *, obj, **_):
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = _markdown(obj.docstring.value)


def _markdown(docstring: str) -> str:
    """Sections that are prose as prose, and each block as what it is."""
    prose = PROSE.sub(lambda m: f"**{m[1]}:**\n\n{textwrap.dedent(m[2])}", docstring)
    return "\n\n".join(map(_block, re.split(r"\n\s*\n", prose)))


def _block(block: str) -> str:
    """An example would be a quotation, <g, eps> a tag of HTML."""
    if block.startswith(">>> "):
        return f"```pycon\n{block.rstrip()}\n```"
    if block.startswith("    "):  # a formula
        return block
    return ANGLE.sub(lambda m: m[1] or "&lt;", block)
