"""Where a result comes from: command, versions, device."""

import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import jax

_PACKAGES = ("asam-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def command() -> str:
    """The command line that this process was started with."""
    return shlex.join(["python", "-m", "experiments", *sys.argv[1:]])


def stamp() -> dict[str, Any]:
    """What every result line ends with."""
    return {"command": command(), "versions": versions(), "device": device()}


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
        "kind": _processor_name() if first.platform == "cpu" else first.device_kind,
        "processors": _processors(),
    }


def _processor_name() -> str:
    """The host processor's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "cpu"
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, "cpu")


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
