"""Where a result comes from: command, versions, device."""

import importlib.metadata
import os
import platform
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import jax

import asam_jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def stamp() -> dict[str, Any]:
    """What every result line ends with: the command line of this process, versions, the device."""
    command = shlex.join(["python", "-m", "experiments", *sys.argv[1:]])
    versions = {"python": platform.python_version(), "asam-jax": asam_jax.__version__}
    versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"command": command, "versions": versions, "device": device()}


def device() -> dict[str, Any]:
    """The device that computes, and how many processors the host has."""
    first, name = jax.devices()[0], jax.devices()[0].device_kind
    told = Path("/proc/cpuinfo")
    if first.platform == "cpu" and told.exists():  # the host processor's own name
        found = re.search(r"^model name\s*: (.*)$", told.read_text(), re.MULTILINE)
        name = found[1] if found else name
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    processors = len(affinity(0)) if affinity else os.cpu_count() or 1
    return {"platform": first.platform, "kind": name, "processors": processors}
