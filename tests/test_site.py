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
FUNCTIONS = [n for n in asam_jax.__all__ if inspect.isfunction(getattr(asam_jax, n))]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def api(site):
    return (site / "api" / "index.html").read_text()


def bare(text):
    """Without what Markdown may eat or add: spaces, backticks, stars and the marks of a list."""
    return re.sub(r"^\s*- |[\s`*]", "", text, flags=re.MULTILINE)


def test_every_name_has_an_anchor(api):
    for name in asam_jax.__all__:
        assert f'id="asam_jax.{name}"' in api


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_docstring_is_shown_whole_and_in_order(api, name):
    docstring = inspect.getdoc(getattr(asam_jax, name)) or ""
    description, *_ = re.split(r"^(?:Args|Returns|Raises):", docstring, flags=re.MULTILINE)
    example, *_ = re.split(r"\n\s*\n", docstring[docstring.index(">>> ") :])
    shown = bare(html.unescape(re.sub(r"<[^>]+>", "", api)))
    assert bare(description) in shown
    assert bare(example) in shown


def test_what_is_returned_is_prose(api):
    """A sentence with a colon is no name of a type: `A transformation. Its state is: ...`."""
    for returned in re.findall(r"<strong>Returns:</strong></p>\n<(\w+)", api):
        assert returned == "p"
    assert api.count("<strong>Returns:</strong></p>") == len(FUNCTIONS)


def test_examples_are_code_and_not_quotations(api):
    assert "<blockquote>" not in api
    prompts = [">>> ", "... "]
    lines = [
        line.strip()
        for name in asam_jax.__all__
        for line in (getattr(asam_jax, name).__doc__ or "").splitlines()
    ]
    assert api.count('class="gp"') == sum(line.startswith(tuple(prompts)) for line in lines)


def test_formulas_are_mathml(site):
    page = (site / "concepts" / "index.html").read_text()
    assert page.count("<math ") == (ROOT / "docs" / "concepts.md").read_text().count("$$") // 2
    assert "$$" not in page


def test_links_out_of_the_pages_lead_to_the_repository(site):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    address = project["urls"]["Repository"]
    pages = "".join(page.read_text() for page in site.rglob("*.html"))
    assert "REPOSITORY" not in pages
    assert f'href="{address}/blob/main/experiments/evidence/RESULTS.md"' in pages
    assert f"pip install git+{address}" in html.unescape(re.sub(r"<[^>]+>", "", pages))
