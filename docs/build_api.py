"""Render the docstrings of asam_jax's public names as docs/api.md: python docs/build_api.py."""

import ast
import inspect
import pathlib
import re
import textwrap

import asam_jax

PAGE = pathlib.Path(__file__).parent / "api.md"
GROUPS = {
    "Training": ("asam", "sam", "sharpness_aware", "value_and_grad", "alternating"),
    "Cheaper steps and refinements": (
        "momentum_ascent",
        "remember",
        "friendly_ascent",
        "gsam_descent",
        "wsam_descent",
        "look_descent",
    ),
    "The perturbation": ("perturbation",),
    "Normalization operators": ("identity", "elementwise", "filterwise", "masked"),
    "Rules on leaves": ("not_bias", "all_leaves", "flax_filter_axes", "torch_filter_axes"),
    "Measuring": ("sharpness", "maximizer", "average_sharpness", "generalization_bound_terms"),
    "States and results": (
        "SharpnessAwareState",
        "AlternatingState",
        "RememberState",
        "Descent",
        "BoundTerms",
    ),
}
HEAD = """# API

Every public name of `asam_jax`, from its docstring; `python docs/build_api.py` writes this page.
The examples run as doctests. The formulas on one page: [concepts.md](concepts.md).
"""
SECTION = re.compile(r"^(Args|Returns|Raises|Attributes|References):$", flags=re.MULTILINE)
ENTRY = re.compile(r"^([A-Za-z_][\w, ]*): ")


def signature(name: str) -> str:
    """The call as the source has it: defaults by their expressions, not by their values."""
    node = ast.parse(textwrap.dedent(inspect.getsource(getattr(asam_jax, name)))).body[0]
    if isinstance(node, ast.ClassDef):
        fields = [ast.unparse(n) for n in node.body if isinstance(n, ast.AnnAssign)]
        arguments, result = fields, ""
    else:
        assert isinstance(node, ast.FunctionDef)
        arguments = _arguments(node.args)
        result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"asam_jax.{name}({', '.join(arguments)}){result}"
    if len(line) <= 88:
        return line
    return f"asam_jax.{name}(\n" + "".join(f"    {a},\n" for a in arguments) + f"){result}"


def _arguments(args: ast.arguments) -> list[str]:
    """One string for each argument, and the star before those that are keyword-only."""
    defaults: list[ast.expr | None] = [None] * (len(args.args) - len(args.defaults))
    pairs = list(zip(args.args, [*defaults, *args.defaults], strict=True))
    strings = [_argument(a, d) for a, d in pairs]
    if args.kwonlyargs:
        strings.append("*")
        strings += map(_argument, args.kwonlyargs, args.kw_defaults)
    return strings


def _argument(arg: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(arg) + (f" = {ast.unparse(default)}" if default is not None else "")


def render(docstring: str) -> str:
    """Markdown of a Google docstring: lists for its sections, fences for examples and formulas."""
    parts = SECTION.split(docstring)
    rendered = [_blocks(parts[0])]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        # A section is what is indented below its title; what follows is prose and examples again.
        lines = body.strip("\n").splitlines()
        end = next((i for i, line in enumerate(lines) if line[:1] not in ("", " ")), len(lines))
        section = textwrap.dedent("\n".join(lines[:end])).strip()
        rendered.append(f"**{title}**\n\n{_entries(section)}")
        rendered.append(_blocks("\n".join(lines[end:])))
    return "\n\n".join(part for part in rendered if part)


def _entries(section: str) -> str:
    """A list with an item for each `name: text`; a plain paragraph where there is none."""
    lines = []
    for line in section.splitlines():
        start = ENTRY.match(line.strip()) if len(line) - len(line.lstrip()) <= 2 else None
        if start:
            indent = " " * (len(line) - len(line.lstrip()))
            lines.append(f"{indent}- `{start.group(1)}`: {line.strip()[start.end() :]}")
        else:
            lines.append(f"  {line}" if lines and lines[0].startswith("- ") else line)
    return "\n".join(lines)


def _blocks(text: str) -> str:
    """Paragraphs, with examples and indented formulas fenced."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        if block.startswith(">>> "):
            blocks.append(f"```pycon\n{block}\n```")
        elif block.startswith("    "):
            blocks.append(f"```text\n{textwrap.dedent(block)}\n```")
        elif block:
            blocks.append(block)
    return "\n\n".join(blocks).replace("\n```\n\n```text\n", "\n\n")


def page() -> str:
    """The whole page."""
    missing = set(asam_jax.__all__) ^ {name for names in GROUPS.values() for name in names}
    if missing:
        raise SystemExit(f"GROUPS in {__file__} and asam_jax.__all__ differ in {sorted(missing)}.")
    index = [f"- {group}: " + ", ".join(f"[`{n}`](#{n.lower()})" for n in names)
             for group, names in GROUPS.items()]  # fmt: skip
    text = [HEAD, "\n".join(index)]
    for group, names in GROUPS.items():
        text.append(f"\n## {group}")
        for name in names:
            doc = render(inspect.getdoc(getattr(asam_jax, name)) or "")
            text.append(f"\n### {name}\n\n```text\n{signature(name)}\n```\n\n{doc}")
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE.name}")
