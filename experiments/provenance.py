"""Where a result comes from: command, versions, device."""

import importlib.metadata
import os
import platform
import shlex
import sys
from typing import Any

import jax

_PACKAGES = ("asam-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def command() -> str:
    """The command line that this process was started with."""
    return shlex.join(["python", "-m", "experiments", *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def device() -> dict[str, Any]:
    """The device that computes, and how many processors the host has."""
    first = jax.devices()[0]
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "processors": os.process_cpu_count() if hasattr(os, "process_cpu_count") else _affinity(),
    }


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
