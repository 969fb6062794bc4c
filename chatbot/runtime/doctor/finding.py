"""Findings of the checks of `chatbot doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FindingState(StrEnum):
    """Result of a check."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Args:
        subject: What was checked, in one word.
        state: The result.
        text: What was found.
        remedy: What to do; None if nothing.
        is_configuration: The cause is the configuration, not the environment.
    """

    subject: str
    state: FindingState
    text: str
    remedy: str | None = None
    is_configuration: bool = False


def ok(subject: str, text: str) -> Finding:
    """Create a finding without a problem."""
    return Finding(subject, FindingState.OK, text)


def warning(subject: str, text: str, remedy: str | None = None) -> Finding:
    """Create a finding about something that works but needs attention."""
    return Finding(subject, FindingState.WARNING, text, remedy)


def failed(subject: str, text: str, remedy: str | None = None) -> Finding:
    """Create a finding about something that does not work."""
    return Finding(subject, FindingState.FAILED, text, remedy)


def misconfigured(subject: str, text: str) -> Finding:
    """Create a finding about an error in bots.yaml; the text contains place and remedy."""
    return Finding(subject, FindingState.FAILED, text, is_configuration=True)
