"""What the files of a folder offer, found by looking: a new file needs no list that names it."""

import importlib
import pkgutil
from typing import Any


def collect(package: str, attribute: str) -> dict[str, Any]:
    """The dicts of that name in the modules of a package, put together in the files' order."""
    found: dict[str, Any] = {}
    modules = pkgutil.iter_modules(importlib.import_module(package).__path__)
    for module in sorted(modules, key=lambda module: module.name):
        found |= getattr(importlib.import_module(f"{package}.{module.name}"), attribute, {})
    return found
