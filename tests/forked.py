"""What a forked process does; this module and what it imports are loaded once, before any fork.

None of the imports may use JAX's backend: it starts threads, which a fork does not take along.
"""

import atexit
import importlib
import os
import sys

# Half of what `python -m experiments train` takes is the import of these.
for _name in ("training.runner", "reporting.sections", "figures.sections"):
    importlib.import_module(f"experiments.{_name}")
for _name in ("datasets", "model_selection"):
    importlib.import_module(f"sklearn.{_name}")

from experiments.cli import main  # noqa: E402


def run(arguments, out, err, environment):
    """`python -m experiments` with these arguments, its output in the files `out` and `err`."""
    os.environ.update(environment)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.argv = ["experiments", *arguments]
    try:
        main()
    finally:
        # multiprocessing ends its processes without it; JAX says goodbye to other processes there.
        atexit._run_exitfuncs()
