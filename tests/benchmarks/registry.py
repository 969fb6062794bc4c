"""Which benchmarks there are: the modules of this package that have a TITLE."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from tests.benchmarks.frame import Frame, Report


class Benchmark(Protocol):
    """A module that measures something. It may have `PARTS`, the names of what can be run alone."""

    TITLE: str

    def run(self, frame: Frame) -> Report:
        """Measure."""
        ...


def parts(benchmark: Benchmark) -> Sequence[str]:
    """Return the names of the parts of a benchmark; most have none."""
    return getattr(benchmark, "PARTS", ())


def found() -> dict[str, Benchmark]:
    """Return the benchmarks by name, in the order of the alphabet."""
    names = [
        name
        for _, name, _ in pkgutil.iter_modules([str(Path(__file__).parent)])
        if not name.startswith(("test_", "__"))
    ]
    modules = {name: importlib.import_module(f"tests.benchmarks.{name}") for name in sorted(names)}
    return {name: cast("Benchmark", module) for name, module in modules.items() if hasattr(module, "TITLE")}
