"""What a look has found: how it is, and, where it is not as it should be, what to do.

The files of the configuration: who else may read them, where secrets stand in them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FindingState(StrEnum):
    """How something is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a doctor's report.

    Args:
        subject: what was looked at, one word.
        state: how it is.
        text: what was seen.
        remedy: what to do; None where nothing is to be done.
        is_configuration: what failed is the configuration, not the world.
    """

    subject: str
    state: FindingState
    text: str
    remedy: str | None = None
    is_configuration: bool = False


def ok(subject: str, text: str) -> Finding:
    """It is as it should be."""
    return Finding(subject, FindingState.OK, text)


def warning(subject: str, text: str, remedy: str | None = None) -> Finding:
    """It works, but somebody should know."""
    return Finding(subject, FindingState.WARNING, text, remedy)


def failed(subject: str, text: str, remedy: str | None = None) -> Finding:
    """It cannot work so."""
    return Finding(subject, FindingState.FAILED, text, remedy)


def misconfigured(subject: str, text: str) -> Finding:
    """It cannot work so, because of what bots.yaml says; the text has place and remedy."""
    return Finding(subject, FindingState.FAILED, text, is_configuration=True)
