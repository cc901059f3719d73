"""The restart with huge pages: once, with the same arguments, and only where it means something."""

import os
import platform
import subprocess
import sys

import pytest

CODE = """
import os, sys
from experiments.training import allocator
print("started", flush=True)
allocator.restart_with_huge_pages()
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], sys.flags.utf8_mode)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize(
    ("tunables", "starts", "becomes"),
    [
        (None, 2, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=0", 2, "glibc.malloc.check=0:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", 1, "glibc.malloc.hugetlb=0"),  # the user's own stands
    ],
)
def test_restarts_once_with_the_same_arguments(tunables, starts, becomes):
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    if tunables is not None:
        environment["GLIBC_TUNABLES"] = tunables
    command = [sys.executable, "-X", "utf8", "-c", CODE, "--rho", "0.5 or so"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    said = [*["started"] * starts, f"{becomes} ['--rho', '0.5 or so'] 1"]
    assert done.stdout.splitlines() == said
