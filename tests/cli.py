"""Calls of the command line: in a new process or, far cheaper, in this one."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

from experiments.cli import main

needs_cifar10 = pytest.mark.skipif(
    not (Path(os.environ.get("TFDS_DATA_DIR") or "/nowhere") / "cifar10").is_dir(),
    reason="needs a prepared CIFAR-10 in TFDS_DATA_DIR",
)


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


def ran(*arguments):
    """A call that must end well."""
    done = call(*arguments)
    assert done.returncode == 0, done.stderr
    return done


def refused(message, *arguments):
    """A call that must end with this message, and no traceback."""
    done = call(*arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert message in done.stderr + done.stdout


def start(*arguments):
    """A process of its own, started."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines(workdir):
    """The result lines in a workdir."""
    text = (workdir / "results.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]
