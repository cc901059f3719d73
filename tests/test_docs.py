"""The pages in docs: their Python runs, their links lead somewhere, the API page is whole."""

import pathlib
import re

import jax
import pytest

import asam_jax

ROOT = pathlib.Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
ELSEWHERE = {"recipes"}  # runs in test_recipes.py, which counts what it compiles
BLOCK = re.compile(r"```python\n(.*?)```", flags=re.DOTALL)
LINK = re.compile(r"(?:\]\(| src=\")([^)\s\"]+)")


def anchors(page):
    """The anchors that GitHub makes of a page's headings, and the site of a name's docstring."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    names = re.findall(r"^::: (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles} | set(names)


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if BLOCK.search(p.read_text()) and p.stem not in ELSEWHERE],
    ids=lambda page: page.stem,
)
def test_the_python_of_a_page_runs_from_top_to_bottom(page):
    namespace: dict[str, object] = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for block in BLOCK.findall(page.read_text()):
            exec(compile(block, page.name, "exec"), namespace)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in LINK.findall(text):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_api_page_has_every_public_name_once():
    page = (ROOT / "docs" / "api.md").read_text()
    names = re.findall(r"^::: asam_jax\.(\w+)$", page, flags=re.MULTILINE)
    assert sorted(names) == sorted(asam_jax.__all__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_one_step_from_the_readme_and_in_the_menu(page):
    assert f"(docs/{page.name}" in (ROOT / "README.md").read_text()
    assert f": {page.name}\n" in (ROOT / "mkdocs.yml").read_text()
