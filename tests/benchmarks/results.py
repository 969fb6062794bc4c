"""Reports as files: `results.json`, `results.md` and a drawing for every plot.

A benchmark that was not run keeps its figures of before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks.drawing import draw
from tests.benchmarks.frame import Report, Row
from tests.benchmarks.machine import describe, load

HEADINGS = ("", "figure", "rival", "its figure", "ratio", "target", "")


def write(directory: Path, title_and_reports: Mapping[str, tuple[str, Report]]) -> None:
    """Put the reports, `{name: (title, report)}`, into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "results.json"
    results: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for name, (title, report) in title_and_reports.items():
        results[name] = {
            "title": title,
            "measured": {"at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "load": load(), **describe()},
            "rows": [asdict(row) for row in report.rows],
            "plots": [{"name": plot.name, "title": plot.title} for plot in report.plots],
        }
        for plot in report.plots:
            (directory / f"{plot.name}.svg").write_text(draw(plot), "utf-8")
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (directory / "results.md").write_text(_page(results), "utf-8")


def rows(directory: Path, name: str) -> list[Row]:
    """Return what the last run of a benchmark found."""
    path = directory / "results.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return [Row(**row) for row in found[name]["rows"]] if name in found else []


def cells(row: Row) -> tuple[str, ...]:
    """Return a row as it is read, in the order of `HEADINGS`."""
    rival_value = _figure(row.rival_value, row.unit) if row.rival else ""
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}" if row.ratio >= 0.1 else f"{row.ratio:.2g}"
    return (row.name, _figure(row.value, row.unit), row.rival, rival_value, ratio, row.target, row.note)


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".strip()


def _page(results: Mapping[str, Any]) -> str:
    parts = [
        "# Benchmarks",
        "Written by `python -m tests.benchmarks`. Medians; a ratio is the median of the rounds' ratios.",
    ]
    for name, result in sorted(results.items()):
        measured = result["measured"]
        parts += [
            f"## {result['title']}",
            f"`python -m tests.benchmarks {name}`, {measured['at']}, {measured['cores']} × {measured['processor']}, "
            f"{measured['system']}, {measured['python']}, load {measured['load']}; {measured['packages']}",
            "\n".join(
                [_line(HEADINGS), _line(["---"] * len(HEADINGS)), *(_line(cells(Row(**row))) for row in result["rows"])]
            ),
            *(f"![{plot['title']}]({plot['name']}.svg)" for plot in result["plots"]),
        ]
    return "\n\n".join(parts) + "\n"


def _line(texts: Any) -> str:
    return f"| {' | '.join(text.replace('|', '/') for text in texts)} |"
