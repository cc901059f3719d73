"""Calls of the command line: in a new process, in a forked one, or, far cheaper, in this one."""

import contextlib
import io
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from experiments.cli import main

_FOLDER = tempfile.TemporaryDirectory(prefix="asam_jax_processes_")
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.forked"])


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


class Fork:
    """As `start`, forked from a process that has imported everything and done nothing else.

    A signal reaches it as any process; only its imports, half of a start, are not its own.
    """

    def __init__(self, *arguments, environment=None):
        from tests import forked

        folder = Path(tempfile.mkdtemp(dir=_FOLDER.name))
        self._files = folder / "out", folder / "err"
        for file in self._files:
            file.touch()
        words = [str(word) for word in arguments]
        self._process = _FORKS.Process(
            target=forked.run, args=(words, *map(str, self._files), environment or {})
        )
        self._process.start()

    def poll(self):
        return self._process.exitcode

    def send_signal(self, number):
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self):
        self._process.kill()

    def communicate(self, timeout=None):
        """Its output and errors, when it has ended."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("experiments", timeout or 0.0)
        out, err = self._files
        return out.read_text(), err.read_text()


def lines(workdir):
    """The result lines in a workdir."""
    text = (workdir / "results.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]
