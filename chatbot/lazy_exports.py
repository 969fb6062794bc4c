"""Exports of a package that are imported when they are first used.

A plugin imports `Plugin` and a few types. Without this, it would also load the dispatcher, the event loop and the
records of the store, which more than doubles the processor time of the import.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_exports(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a package's `__getattr__` that imports a name from its home when it is first used.

    Args:
        package: the package's `__name__`.
        homes: the module of each name.
    """

    def load(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            msg = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(msg)
        value = getattr(import_module(home), name)
        setattr(sys.modules[package], name, value)
        return value

    return load
