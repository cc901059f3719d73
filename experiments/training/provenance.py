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
    first, name = jax.devices()[0], jax.devices()[0].device_kind
    if first.platform == "cpu":  # the host processor's own name, where the system tells it
        try:
            lines = Path("/proc/cpuinfo").read_text().splitlines()
        except OSError:
            lines = []
        names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        name = next(names, platform.processor() or "cpu")
    return {"platform": first.platform, "kind": name, "processors": _processors()}


def _processors() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1
