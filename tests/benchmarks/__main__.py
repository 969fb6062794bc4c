"""`python -m tests.benchmarks [NAME …]`: measure, print a table, and keep the figures.

Everything runs on this machine, on 127.0.0.1, in processes that end with it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks import documents, registry, results
from tests.benchmarks.frame import CACHE, ROOT, Frame, Report, Row

WIDE = 150
"""Columns where no terminal says how many it has."""


def main() -> int:
    """Run what the command line names."""
    benchmarks = registry.found()
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="Measure chatbot beside its rivals."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(benchmarks)} (all)")
    parser.add_argument("--quick", action="store_true", help="only see whether they run: the figures mean nothing")
    parser.add_argument(
        "--out", type=Path, help="where results and plots go (docs/benchmarks; quick: .benchmarks/quick)"
    )
    parts = {part: name for name, benchmark in benchmarks.items() for part in registry.parts(benchmark)}
    parser.add_argument(
        "--part", action="append", default=[], choices=list(parts), metavar="PART",
        help=f"run only this part, and keep the other figures: {', '.join(parts)}",
    )  # fmt: skip
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with it, each process that is measured would compile every module
    if unknown := [name for name in given.names if name not in benchmarks]:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(benchmarks)}")
    directory: Path = given.out or (CACHE / "quick" if given.quick else ROOT / "docs" / "benchmarks")
    for name in given.names or {parts[part]: None for part in given.part} or benchmarks:
        before = results.rows(directory, name)
        report = _run(name, benchmarks[name], given.quick, frozenset(given.part), before)
        results.write(directory, {name: (benchmarks[name].TITLE, report)})
        _show(benchmarks[name].TITLE, report)
    if directory.resolve() == documents.DIRECTORY:
        documents.write()
    print(f"results and plots are in {directory}")
    return 0


def _run(
    name: str, benchmark: registry.Benchmark, is_quick: bool, parts: frozenset[str], before: Sequence[Row]
) -> Report:
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{name} {time.monotonic() - begun:4.0f} s  {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix=f"chatbot-{name}-") as workdir:
        return benchmark.run(Frame(is_quick, Path(workdir), say, parts, before))


def _show(title: str, report: Report) -> None:
    *headings, _ = results.HEADINGS
    table = Table(*headings, title=title, title_justify="left")
    for row in report.rows:
        name, *cells, note = results.cells(row)
        table.add_row(f"{name} ({note})" if note else name, *cells)
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


if __name__ == "__main__":
    sys.exit(main())
