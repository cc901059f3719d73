"""What the site needs beyond Markdown: a hook of mkdocs and an extension of griffe in one file.

Results, changelog and notebooks lie outside docs/; here they become pages, and links to them links
within the site. Formulas become MathML, so that no page asks another host for a script.
"""

import base64
import json
import pathlib
import posixpath
import re
import textwrap
import tomllib

import griffe
from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parent.parent
EVIDENCE = ROOT / "experiments" / "evidence"
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
# Where files of the repository are on the site.
PAGES = {
    "experiments/evidence/RESULTS.md": "results.md",
    "experiments/evidence/APPENDIX.md": "appendix.md",
    "CHANGELOG.md": "changelog.md",
    **{f"colab/{path.name}": f"notebooks/{path.stem}.md" for path in NOTEBOOKS},
}
SOURCES = {page: source for source, page in PAGES.items()}

CODE = re.compile(r"(^```.*?^```|``.*?``|`[^`\n]*`)", flags=re.DOTALL | re.MULTILINE)
PICTURE = re.compile(r'<img src="([^"]+)"(?: width="(\d+)")?\s+alt="([^"]+)">')
LINK = re.compile(r"\]\((?!https?:|#|data:)([^)\s#]+)")
BADGE = re.compile(r"\[!\[([^]]+)\]\(https?:[^)]+\)\]\(")  # a picture on another host
DISPLAY = re.compile(r"^\$\$(.+?)\$\$$", flags=re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<![\\$\w])\$([^$\n]+)\$(?![$\w])")
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


def on_files(files, config):
    """Adds the pages that are made from files outside docs/, and their pictures."""
    for page in ("results.md", "appendix.md", "changelog.md"):
        files.append(File.generated(config, page, content=(ROOT / SOURCES[page]).read_text()))
    for path in EVIDENCE.glob("*.png"):
        files.append(File.generated(config, f"evidence/{path.name}", abs_src_path=str(path)))
    shown = []
    for path in NOTEBOOKS:
        text, pictures = _notebook(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, png in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=png))
        title = re.search(r"^# (.+)$", text, flags=re.MULTILINE)
        shown.append((f"notebooks/{next(iter(pictures))}", title[1], f"notebooks/{path.stem}.md"))
    files.append(File.generated(config, "gallery.md", content=_gallery(shown)))
    return files


def _notebook(path: pathlib.Path) -> tuple[str, dict[str, bytes]]:
    """A notebook with its outputs as Markdown, and its pictures by name."""
    text, pictures = [], {}
    for cell in json.loads(path.read_text())["cells"]:
        source = BADGE.sub(r"[\1](", "".join(cell["source"]))
        text.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            if output["output_type"] == "stream":
                text.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            elif "image/png" in output.get("data", {}):
                name = f"{path.stem}_{len(pictures)}.png"
                pictures[name] = base64.b64decode(output["data"]["image/png"])
                text.append(f"![Output]({name})")
    return "\n\n".join(text), pictures


def _gallery(notebooks) -> str:
    """Every picture of the results, and the first of each notebook, as a link to its place."""
    shown, heading = [], ""
    for line in (EVIDENCE / "RESULTS.md").read_text().splitlines():
        if line.startswith("## "):
            heading = re.sub(r"[^\w\- ]", "", line[3:].lower()).replace(" ", "-")
        elif picture := re.match(r"!\[(.+)\]\((.+)\)", line):
            shown.append((f"evidence/{picture[2]}", picture[1], f"results.md#{heading}"))
    items = [f"[![]({png})<br>{title}]({page})" for png, title, page in [*shown, *notebooks]]
    body = "\n\n".join(items)
    return f'# Gallery\n\n<div class="gallery" markdown>\n\n{body}\n\n</div>\n'


def on_page_markdown(markdown, page, **_):
    """Links, pictures and formulas, wherever they are not code."""
    uri = page.file.src_uri
    source = pathlib.PurePosixPath(SOURCES.get(uri, f"docs/{uri}")).parent

    def link(match: re.Match) -> str:
        path = posixpath.normpath(source / match[1])
        if path in PAGES:
            path = PAGES[path]
        elif path.startswith("docs/"):
            path = path.removeprefix("docs/")
        elif path.startswith("experiments/evidence/") and path.endswith(".png"):
            path = path.removeprefix("experiments/")
        elif (ROOT / path).exists():
            return f"]({repository()}/blob/main/{path}"
        else:  # a picture of a notebook lies beside its page
            return match[0]
        return f"]({posixpath.relpath(path, posixpath.dirname(uri) or '.')}"

    def picture(match: re.Match) -> str:
        width = f'{{ width="{match[2]}" }}' if match[2] else ""
        return f"![{match[3]}]({match[1]}){width}"

    parts = CODE.split(markdown)
    for number in range(0, len(parts), 2):
        text = LINK.sub(link, PICTURE.sub(picture, parts[number]))
        text = DISPLAY.sub(lambda m: f"<div>{_mathml(m[1].strip(), 'block')}</div>", text)
        parts[number] = INLINE.sub(lambda m: f"<span>{_mathml(m[1], 'inline')}</span>", text)
    return "".join(parts)


def _mathml(formula: str, display: str) -> str:
    return convert(formula.replace(r"\max_", r"\max\limits_"), display=display)


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
