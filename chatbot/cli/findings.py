"""Findings of a checkup, as commands tell them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from chatbot.cli.boundary import EXIT_CONFIG, EXIT_UNAVAILABLE
from chatbot.config.place import printable
from chatbot.runtime.checkup.finding import Finding, State

_SIGNS: Final = {State.OK: "✓", State.WARNING: "!", State.FAILED: "✗"}
_PLAIN_SIGNS: Final = {State.OK: "+", State.WARNING: "!", State.FAILED: "x"}


def lines(finding: Finding) -> Iterator[str]:
    """A finding for people: how it is, what was seen, what to do."""
    signs = _SIGNS if _can_show("✓✗") else _PLAIN_SIGNS
    first, *rest = finding.text.splitlines() or [""]
    yield f"{signs[finding.state]} {finding.subject:<13} {printable(first)}"
    yield from (f"  {'':<13} {printable(line)}" for line in rest)
    if finding.remedy is not None:
        arrow = "→ " if _can_show("→") else ""
        yield f"  {'':<13} {arrow}{printable(finding.remedy)}"


def as_json(finding: Finding) -> Mapping[str, Any]:
    """A finding for programs."""
    return {"subject": finding.subject, "state": finding.state, "text": finding.text, "remedy": finding.remedy}


def exit_code(findings: Iterable[Finding]) -> int:
    """What findings mean to whoever started us: 0, unless something failed."""
    ills = [one for one in findings if one.state is State.FAILED]
    if not ills:
        return 0
    return EXIT_CONFIG if any(one.is_configuration for one in ills) else EXIT_UNAVAILABLE


def counted(number: int, noun: str) -> str:
    """`1 bot`, `2 bots`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def _can_show(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
