"""The pages in docs: their Python runs, links lead somewhere, numbers are those of the results."""

import functools
import os
import pathlib
import re
import shlex
import subprocess
import sys

import jax
import pytest
import tyro

import asam_jax
import asam_jax.nnx
import asam_jax.typing
from experiments.benchmarks.compiled_steps import variants_of
from experiments.studies import language
from experiments.studies.study import study
from tests.cli import ran

ROOT = pathlib.Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = {path: path.read_text() for path in [*PAGES, ROOT / "README.md"]}
RESULTS = (ROOT / "experiments" / "evidence" / "RESULTS.md").read_text()
# Run in test_recipes.py, and in a process of its own, below.
ELSEWHERE = {"recipes", "accelerators"}
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
    [p for p, text in TEXTS.items() if BLOCK.search(text) and p.stem not in ELSEWHERE],
    ids=lambda page: page.stem,
)
def test_the_python_of_a_page_runs_from_top_to_bottom(page):
    namespace: dict[str, object] = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for block in BLOCK.findall(TEXTS[page]):
            exec(compile(block, page.name, "exec"), namespace)


def test_the_page_on_accelerators_compiles_for_one_that_is_not_here(tmp_path):
    pytest.importorskip("libtpu")
    program = tmp_path / "page.py"
    program.write_text("\n".join(BLOCK.findall(TEXTS[ROOT / "docs" / "accelerators.md"])))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_ENABLE_COMPILATION_CACHE": "false"}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "false"  # as users compile
    done = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"all-reduce", done.stdout)) == 2


def test_links_lead_to_files_and_headings():
    for page, text in TEXTS.items():
        for link in LINK.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            if re.match(r"https?://", link):
                continue
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.exists(), (page.name, link)
            made = target.suffix == ".py"
            assert made or not anchor or anchor in anchors(target), (page.name, link)


def test_every_name_that_a_page_uses_exists():
    programs = [*(ROOT / "docs" / "examples").glob("*.py"), *(ROOT / "colab").glob("*.py")]
    for path in [*TEXTS, *programs]:
        for name in re.findall(r"\basam_jax\.([a-z_]+)\b(?!/)", path.read_text()):
            assert hasattr(asam_jax, name), (path.name, name)


def test_means_and_deviations_are_those_of_the_results():
    made = r"<!-- digits table: begin.*digits table: end -->"  # see test_readme.py
    for page, text in TEXTS.items():
        text = re.sub(made, "", text, flags=re.DOTALL)
        for number in re.findall(r"\d+\.\d+ ± \d+\.\d+|[-+]\d+\.\d+ \[.+?\]", text):
            assert number in RESULTS, (page.name, number)


def test_the_choosers_shares_are_those_of_the_results():
    """In README and recipes alike: digits, then CIFAR-10, by the label of each variant."""
    kept = {}
    for section in re.findall(r"^## Accuracy against cost: (.*?)(?=^## )", RESULTS, re.M | re.S):
        rows = [re.split(r" *\| *", row) for row in re.findall(r"^\|.*\|$", section, re.M)]
        for row in rows[2:]:
            share = dict(zip(rows[0], row, strict=True))["gain kept"]
            percent = share.rstrip("%") if "%" in share else f"{100 * float(share):.0f}"
            kept[row[1], section.split(",")[0]] = percent
    for page in (ROOT / "README.md", ROOT / "docs" / "recipes.md"):
        rows = re.findall(r"^\|.*\| (\d+)%, (\S+).*`(\w+\d*|[\w-]+)`.*\|$", TEXTS[page], re.M)
        assert {label for *_, label in rows} == {"part16", "last-friendly", "every4"}
        for digits, cifar, label in rows:
            assert digits == kept[label, "digits"]
            assert cifar.rstrip("%") == kept.get((label, "cifar10"), "not")


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text()
    assert [page.name for page in PAGES if f": {page.name}\n" not in menu] == []


def test_the_command_line_understands_every_command(monkeypatch):
    """Those of the results among them, so that a reader can make the numbers again."""
    called, parse = [], tyro.cli

    def only_parsed(target, **how):
        kept = functools.wraps(target)(lambda *args, **kwargs: called.append((args, kwargs)))
        return parse(kept, **how)

    monkeypatch.setattr(tyro, "cli", only_parsed)
    blocks = re.findall(r"```bash\n(.*?)```", RESULTS + "".join(TEXTS.values()), flags=re.DOTALL)
    commands = re.findall(r"python -m experiments\b([^\n\"&]*)", "\n".join(blocks))
    for number, command in enumerate(commands, start=1):
        ran(*shlex.split(command))
        args, given = called[-1]
        assert len(called) == number, command
        if command.startswith(" study"):
            known = language.PROBLEMS, language.ARMS
            if given["name"] != "language":
                whole = study(given["name"])
                known = ([one.name for one in each] for each in (whole.problems, whole.arms))
            for names, those in zip((given["problems"], given["arms"]), known, strict=True):
                assert set(names) <= set(those), command
        if command.startswith(" benchmark compiled"):
            (options,) = args or given.values()
            for model in options.model:
                assert set(options.variant) <= set(variants_of(model)), command
    assert len(commands) > 40
