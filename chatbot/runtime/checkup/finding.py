"""What a look has found: how it is, and, where it is not as it should be, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
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
    state: State
    text: str
    remedy: str | None = None
    is_configuration: bool = False


def ok(subject: str, text: str) -> Finding:
    """It is as it should be."""
    return Finding(subject, State.OK, text)


def warning(subject: str, text: str, remedy: str | None = None) -> Finding:
    """It works, but somebody should know."""
    return Finding(subject, State.WARNING, text, remedy)


def failed(subject: str, text: str, remedy: str | None = None) -> Finding:
    """It cannot work so."""
    return Finding(subject, State.FAILED, text, remedy)


def misconfigured(subject: str, text: str) -> Finding:
    """It cannot work so, because of what bots.yaml says; the text has place and remedy."""
    return Finding(subject, State.FAILED, text, is_configuration=True)
