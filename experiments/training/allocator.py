"""Huge pages for large blocks of memory, which a training step on a CPU takes anew each time.

XLA takes a step's temporary memory in one block (205 MB for ResNet-20, batch 128) and frees it
after the step. glibc hands such a block back to the system, so that every step pays for each of
its pages, 4 KiB by default, as it is touched. With pages of 2 MiB there are 500 times fewer.
"""

import os
import platform
import sys

_VARIABLE = "GLIBC_TUNABLES"
_TUNABLE = "glibc.malloc.hugetlb"


def restart_with_huge_pages() -> None:
    """Starts this command anew with the allocator's setting; it is read when a process starts.

    Nothing happens where the setting is made already, to whatever value, or where there is no
    glibc. A glibc before 2.35 does not know it, and a system may have huge pages turned off: both
    ignore it. Results do not depend on it.
    """
    tunables = os.environ.get(_VARIABLE, "")
    if platform.libc_ver()[0] != "glibc" or _TUNABLE in tunables:
        return
    wanted = ":".join(filter(None, (tunables, f"{_TUNABLE}=1")))
    arguments = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, arguments, os.environ | {_VARIABLE: wanted})
