"""Run the notebooks' sources and write them as .ipynb: python colab/build.py [NAME ...].

The sources are the .py files beside this one, in Jupytext's percent format. There REPOSITORY stands
for the repository's address, and COLAB for where Colab opens it, both made from pyproject.toml. The
notebooks carry their outputs, and nothing of the machine that ran them.
"""

import os
import pathlib
import sys
import tomllib

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = pathlib.Path(__file__).parent
NAMES = ("quickstart", "nnx_finetune", "toy_trajectories", "adaptive_sharpness", "many_devices")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def addresses() -> dict[str, str]:
    """What stands for REPOSITORY and COLAB."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    repository = project["urls"]["Repository"]
    on_github = repository.removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{on_github}/blob/main/colab"
    return {"REPOSITORY": repository, "COLAB": colab}


def read(name: str) -> nbformat.NotebookNode:
    """The notebook of a source, without outputs; the same text gives the same notebook."""
    text = (HERE / f"{name}.py").read_text()
    for word, address in addresses().items():
        text = text.replace(word, address)
    notebook = jupytext.reads(text, fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


def execute(notebook: nbformat.NotebookNode, folder: pathlib.Path) -> nbformat.NotebookNode:
    """Run all cells in a new kernel on the CPU, in `folder`; an error in a cell is raised."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(HERE.parent), "PYTHONHASHSEED": "0"}
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    return client.execute(env=environment)


if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        notebook = execute(read(name), HERE)
        nbformat.write(notebook, HERE / f"{name}.ipynb")
        print(f"wrote {name}.ipynb, {(HERE / f'{name}.ipynb').stat().st_size // 1000} kB")
