"""What a probe found out about a service: values of the emulator's quirks, and answers to open questions. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from chatbot.emulator.quirks import Quirks

ENDLESS: Final = frozenset({"cursor_seconds", "hmac_skew_seconds", "metadata_limit_bytes"})
"""Quirks in which 0 means that there is no limit."""


@dataclass(frozen=True, slots=True)
class QuirkFinding:
    """What was observed of one quirk: a value, or an interval of values.

    Args:
        quirk: the field of `Quirks`.
        low: the value; of an interval, the least one that fits.
        high: the greatest value that fits; None if there is no upper bound.
        evidence: what was seen, without secrets.
    """

    quirk: str
    low: Any
    high: Any
    evidence: str

    @property
    def is_exact(self) -> bool:
        """Return whether exactly one value fits."""
        return self.high is not None and bool(self.low == self.high)

    def fits(self, value: Any) -> bool:
        """Return whether a value of the quirk agrees with what was seen."""
        if not _is_number(self.low):
            return bool(value == self.low)
        number = math.inf if self.quirk in ENDLESS and value == 0 and self.low != 0 else value
        return bool(self.low <= number and (self.high is None or number <= self.high))

    @property
    def value(self) -> Any:
        """Return the value for the emulator: its default if that fits, else the one that is nearest to it."""
        default = getattr(Quirks(), self.quirk)
        if self.fits(default):
            return default
        if not _is_number(self.low) or self.is_exact:
            return self.low
        if self.high is None:
            return 0 if self.quirk in ENDLESS else math.ceil(self.low)
        return math.floor(self.high)

    @property
    def text(self) -> str:
        """Return the value as people read it: `x`, `less than x`, `longer than the probe`, `between x and y`."""
        unit = " s" if self.quirk.endswith("_seconds") else " bytes" if self.quirk.endswith("_bytes") else ""
        if not _is_number(self.low) or self.is_exact:
            shown = f"{self.low:g}" if _is_number(self.low) else str(self.low)
            shown = shown.lower() if isinstance(self.low, bool) else shown
            return "no limit" if self.quirk in ENDLESS and shown == "0" else f"{shown}{unit}"
        if self.high is None:
            if unit == " s":
                return f"longer than the probe, which watched it for {self.low:.1f} s"
            return f"at least {self.low:g}{unit}"
        if self.low <= 0:
            return f"less than {max(self.high, 0.1):.1f}{unit}"
        return f"between {self.low:.1f} and {self.high:.1f}{unit}"


@dataclass(frozen=True, slots=True)
class QuestionAnswer:
    """An answer to an open question that no quirk expresses.

    Args:
        question: `U1` to `U12`; empty for none of them.
        subject: what was asked.
        text: what was seen, without secrets.
    """

    question: str
    subject: str
    text: str


@dataclass(slots=True)
class Findings:
    """Everything that one probe found out."""

    found: dict[str, QuirkFinding] = field(default_factory=dict)
    answers: list[QuestionAnswer] = field(default_factory=list)
    unseen: dict[str, str] = field(default_factory=dict)

    def note(self, quirk: str, value: Any, evidence: str) -> None:
        """Keep the value of a quirk."""
        self.found[quirk] = QuirkFinding(quirk, value, value, evidence)

    def between(self, quirk: str, low: float, high: float | None, evidence: str) -> None:
        """Keep the interval in which the value of a quirk lies; `high` is None if it has no end."""
        self.found[quirk] = QuirkFinding(quirk, low, high, evidence)

    def answer(self, question: str, subject: str, text: str) -> None:
        """Keep an answer that no quirk expresses."""
        self.answers.append(QuestionAnswer(question, subject, text))

    def miss(self, quirks: Iterable[str], reason: str) -> None:
        """Keep why these quirks were not observed."""
        for quirk in quirks:
            self.unseen.setdefault(quirk, reason)

    @property
    def missing(self) -> dict[str, str]:
        """Return the quirks without a value, and why."""
        names = [item.name for item in dataclasses.fields(Quirks) if item.name not in self.found]
        return {name: self.unseen.get(name, "not probed: its group was skipped or not reached") for name in names}

    @property
    def differences(self) -> dict[str, QuirkFinding]:
        """Return what differs from the emulator's defaults."""
        return {name: one for name, one in self.found.items() if not one.fits(getattr(Quirks(), name))}

    @property
    def quirks(self) -> Quirks:
        """Return the emulator's quirks with which it behaves as the service did."""
        return dataclasses.replace(Quirks(), **{name: one.value for name, one in self.found.items()})


def question_of(quirk: str) -> str:
    """Return the open question that a quirk belongs to (`U1` to `U12`), or nothing."""
    doc = next(str(item.metadata["doc"]) for item in dataclasses.fields(Quirks) if item.name == quirk)
    head = doc.partition(":")[0]
    return head if head[:1] == "U" and head[1:].isdecimal() else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
