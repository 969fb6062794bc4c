"""Output of commands for people and programs: findings of the doctor, and tables."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from chatbot.cli.boundary import EXIT_CONFIG, EXIT_UNAVAILABLE
from chatbot.config.source_location import cells, printable
from chatbot.durations import format_duration
from chatbot.runtime.doctor.finding import Finding, FindingState

_SYMBOLS: Final = {FindingState.OK: "✓", FindingState.WARNING: "!", FindingState.FAILED: "✗"}
_ASCII_SYMBOLS: Final = {FindingState.OK: "+", FindingState.WARNING: "!", FindingState.FAILED: "x"}


CLEAR: Final = "\x1b[H\x1b[2J"
"""Clears the screen of a terminal."""


def lines(finding: Finding) -> Iterator[str]:
    """Return a finding as lines of text: its state, what was found, and the remedy."""
    symbols = _SYMBOLS if _can_show("✓✗") else _ASCII_SYMBOLS
    first, *rest = finding.text.splitlines() or [""]
    yield f"{symbols[finding.state]} {finding.subject:<13} {printable(first)}"
    yield from (f"  {'':<13} {printable(line)}" for line in rest)
    if finding.remedy is not None:
        arrow = "→ " if _can_show("→") else ""
        yield f"  {'':<13} {arrow}{printable(finding.remedy)}"


def as_json(finding: Finding) -> Mapping[str, Any]:
    """Return a finding as JSON."""
    return {"subject": finding.subject, "state": finding.state, "text": finding.text, "remedy": finding.remedy}


def exit_code(findings: Iterable[Finding]) -> int:
    """Return the exit code for findings: 0, unless something failed."""
    ills = [one for one in findings if one.state is FindingState.FAILED]
    if not ills:
        return 0
    return EXIT_CONFIG if any(one.is_configuration for one in ills) else EXIT_UNAVAILABLE


def counted(number: int, noun: str) -> str:
    """Return the number with its noun: `1 bot`, `2 bots`."""
    return f"{number} {noun}{'s' * (number != 1)}"


_OUTCOMES: Final[Mapping[str, str]] = {
    "refused": "has refused: see its log",
    "failed": "has failed: see its log",
    "kept": "keeps some bots on their old plugins: see its log",
    "busy": "has a handler that still runs",
    "unknown": "does not know the request: run all in the same version",
}
_NO_ANSWER: Final = "has not answered: it may be busy, disconnected, or just ended"


def others(answer: Mapping[str, Any], done: str) -> Iterator[str]:
    """Yield what other processes have done that share the store: in one line those that succeeded, then each other one.

    Args:
        answer: the answer to a command.
        done: what those have done that succeeded.
    """
    replies = answer.get("replicas", ())
    if succeeded := [_place(reply) for reply in replies if reply["outcome"] == "done"]:
        yield f"{done}: {'; '.join(succeeded)}"
    for reply in replies:
        if reply["outcome"] != "done":
            yield f"{_place(reply)} {_OUTCOMES.get(reply['outcome'], _NO_ANSWER)}"


def have_all_done(answer: Mapping[str, Any]) -> bool:
    """Return whether all other processes that share the store have done what was asked for."""
    return all(reply["outcome"] == "done" for reply in answer.get("replicas", ()))


def _place(reply: Mapping[str, Any]) -> str:
    return printable(f"{reply['host']}, pid {reply['pid']}")


def span(seconds: float | None) -> str:
    """Return a duration for people, as precise as is of interest; `-` if there is none."""
    if seconds is None:
        return "-"
    if seconds >= 3600:
        seconds = seconds // 60 * 60
    return format_duration(timedelta(seconds=round(seconds) if seconds >= 10 else round(seconds, 1)))


def _can_show(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


MAX_CELL_WIDTH: Final = 90
"""Maximum width of a cell, in terminal columns; longer text ends in an ellipsis."""


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table.

    Args:
        headers: the column titles.
        rows: one text per column; control characters are escaped.
    """
    lines = [tuple(headers), *(tuple(truncated(cell, MAX_CELL_WIDTH) for cell in row) for row in rows)]
    widths = [max(cells(line[column]) for line in lines) for column in range(len(headers))]
    for line in lines:
        filled = (text + " " * (width - cells(text)) for text, width in zip(line, widths, strict=True))
        yield "  ".join(filled).rstrip()


def truncated(text: str, max_width: int) -> str:
    """Return the text on one line, with control characters escaped and cut to a width with an ellipsis.

    Args:
        max_width: in terminal columns.
    """
    shown = printable(text)
    if cells(shown) <= max_width:
        return shown
    end = 0
    while cells(shown[: end + 1]) < max_width:
        end += 1
    return shown[:end] + "…"
