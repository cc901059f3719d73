"""The site builds without a warning and shows what the pages and docstrings say."""

import html
import inspect
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import asam_jax

pytest.importorskip("mkdocs")

ROOT = pathlib.Path(__file__).parent.parent
FUNCTIONS = [n for n, value in vars(asam_jax).items() if inspect.isfunction(value)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*.html")}


def bare(text):
    """Without what Markdown may eat or add: spaces, backticks, stars and the marks of a list."""
    return re.sub(r"^\s*- |[\s`*]", "", text, flags=re.MULTILINE)


def test_docstrings_are_shown_whole_and_in_order(site):
    api = site["api/index.html"]
    shown = bare(html.unescape(re.sub(r"<[^>]+>", "", api)))
    for name in FUNCTIONS:
        assert f'id="asam_jax.{name}"' in api
        docstring = inspect.getdoc(getattr(asam_jax, name)) or ""
        description, *_ = re.split(r"^(?:Args|Returns|Raises):", docstring, flags=re.MULTILINE)
        example, *_ = re.split(r"\n\s*\n", docstring[docstring.index(">>> ") :])
        assert bare(description) in shown, name
        assert bare(example) in shown, name
    assert "<blockquote>" not in api
    for returned in re.findall(r"<strong>Returns:</strong></p>\n<(\w+)", api):
        assert returned == "p"  # prose: a sentence with a colon is no name of a type


def test_formulas_are_mathml_with_limits_below_max(site):
    page = site["concepts/index.html"]
    display = (ROOT / "docs" / "concepts.md").read_text().count("$$") // 2
    assert page.count('display="block"') == display
    assert page.count("<munder><mo>max") == 2
    assert all("$$" not in re.sub(r"<pre>.*?</pre>", "", p, flags=re.DOTALL) for p in site.values())


def test_nothing_is_asked_of_another_host(site):
    for name, page in site.items():
        assert re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="https?:[^"]+"', page) == [], name


def test_what_lies_outside_docs_is_inside_the_site(site):
    assert "Gain" in site["results/index.html"] or "gain" in site["results/index.html"]
    assert "looksam_descent" in site["changelog/index.html"]
    gallery = site["gallery/index.html"]
    assert re.findall(r'<a href="\.\./results/#[^"]+"><img', gallery)
    for path in (ROOT / "colab").glob("*.ipynb"):
        assert f'src="../{path.stem}_0.png"' in site[f"notebooks/{path.stem}/index.html"]
        assert f'href="../notebooks/{path.stem}/"' in gallery


def test_other_links_lead_to_the_repository(site):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    address = project["urls"]["Repository"]
    folder = f'href="{address}/blob/main/experiments/evidence"'
    assert folder in site["performance_notes/index.html"]


def test_the_landing_page_has_picture_step_and_three_links(site):
    page = re.search(r"<article.*?</article>", site["index.html"], flags=re.DOTALL)
    assert page is not None
    assert page[0].count("<img") == 1 and "<pre>" in page[0]
    assert len(re.findall(r'<li><a href="(?:five_minutes|recipes|api)/"', page[0])) == 3
