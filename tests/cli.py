"""Calls of the command line, in a process of its own or, far cheaper, in this one."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from typing import NamedTuple
from unittest import mock

from experiments.__main__ import main

# Processes that tests start share what they compile; half of a start is compilation.
_CACHE = tempfile.TemporaryDirectory(prefix="asam_jax_compiled_")
ENVIRONMENT = {
    "JAX_COMPILATION_CACHE_DIR": _CACHE.name,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def call(*arguments):
    """`python -m experiments` with these arguments, without a new process."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["experiments", *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
    return Done(code, out.getvalue(), err.getvalue())


def start(*arguments):
    """A process of its own, started."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ENVIRONMENT,
    )


def call_process(*arguments):
    """A process of its own, to its end."""
    process = start(*arguments)
    out, err = process.communicate(timeout=300)
    return Done(process.returncode, out, err)


def lines(workdir):
    """The result lines in a workdir."""
    text = (workdir / "results.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]
