"""The one way in which the folders of `experiments` import each other."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parent.parent / "experiments"
# A folder imports from itself and from those on later lines; those of one line do not know each
# other.
ROOMS = [
    ["__main__"],
    ["cli"],
    ["figures", "studies", "benchmarks"],
    ["reporting"],
    ["training"],
    ["models", "datasets"],
    ["config"],
]


def imported(path):
    """The folders of `experiments` that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module == "experiments":
            names = [f"experiments.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (name.split(".")[1] for name in names if name.startswith("experiments."))


def test_a_folder_imports_from_those_below_it():
    level = {room: number for number, line in enumerate(ROOMS) for room in line}
    files = [path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"]
    for path in files:
        room = path.relative_to(ROOT).with_suffix("").parts[0]
        for below in imported(path):
            assert room == below or level[room] < level[below], f"{path} imports {below}"
    assert {path.relative_to(ROOT).with_suffix("").parts[0] for path in files} == level.keys()
