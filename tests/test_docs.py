"""The pages in docs: their Python runs, their links lead somewhere, the API page is up to date."""

import pathlib
import re
import runpy

import jax
import pytest

import asam_jax

ROOT = pathlib.Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"```python\n(.*?)```", flags=re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page):
    """The anchors that GitHub makes of a page's headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


@pytest.mark.parametrize(
    "page", [p for p in PAGES if BLOCK.search(p.read_text())], ids=lambda page: page.stem
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


def test_the_api_page_is_up_to_date():
    build = runpy.run_path(str(ROOT / "docs" / "build_api.py"))
    page = (ROOT / "docs" / "api.md").read_text()
    assert page == build["page"](), "run: python docs/build_api.py"
    for name in asam_jax.__all__:
        assert f"\n### {name}\n" in page
    assert page.count(">>> ") == sum(
        (getattr(asam_jax, name).__doc__ or "").count(">>> ") for name in asam_jax.__all__
    )


@pytest.mark.parametrize("name", ["concepts", "choosing", "questions", "coming_from", "api"])
def test_a_page_is_one_step_from_the_readme(name):
    assert f"(docs/{name}.md" in (ROOT / "README.md").read_text()
