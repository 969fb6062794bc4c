"""A dialog's journal: its steps in order, along which its function is replayed.

Pure. Entries do not change after the event that added them is committed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from chatbot.errors import StoreError, StoreTooNew
from chatbot.stores.serialization import from_json, to_json

VERSION: Final = 2
"""The newest form that can be read. A journal without the steps that form 2 added is still written in form 1, so that
an older chatbot can continue it."""


class JournalStep(StrEnum):
    """Kinds of steps; the values are stored."""

    BEGAN = "began"
    ASKED = "asked"
    ANSWERED = "answered"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SAID = "said"
    RAN = "ran"
    SET_TIMER = "set_timer"
    CANCELLED_TIMER = "cancelled_timer"


_SINCE_2: Final = frozenset({JournalStep.SET_TIMER, JournalStep.CANCELLED_TIMER})
"""Steps that only form 2 knows."""

BOUNDARIES: Final = (JournalStep.BEGAN, JournalStep.ANSWERED, JournalStep.TIMED_OUT, JournalStep.CANCELLED)
"""Steps that begin a part of the dialog: each part is run for one event, and committed with it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One step.

    Args:
        step: the kind of step.
        label: distinguishes steps of one kind: the mark of a question, the name of a function.
        value: the answer, or the stored form of a result.
        states: for a boundary: the states that its part has read, in their stored forms at that time.
    """

    step: JournalStep
    label: str = ""
    value: Any = field(default=None, repr=False)
    states: Mapping[str, str | None] = field(default_factory=dict, repr=False)


def mark_of(question: str) -> str:
    """Return a hash of a question: an answer is valid only for the exact words of its question."""
    return hashlib.blake2b(question.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def dump(entries: Sequence[Entry]) -> str:
    """Return the stored form of a journal."""
    rows = [[entry.step.value, entry.label, entry.value, dict(entry.states)] for entry in entries]
    version = 2 if any(entry.step in _SINCE_2 for entry in entries) else 1
    return to_json({"v": version, "entries": rows})


def load(stored: str) -> list[Entry]:
    """Return the journal of a stored form.

    Raises:
        StoreTooNew: a newer chatbot wrote it.
        StoreError: it is damaged.
    """
    try:
        whole = from_json(stored)
        if whole["v"] > VERSION:
            msg = f"the store holds a dialog of form {whole['v']}; this chatbot reads up to {VERSION}: run a newer one"
            raise StoreTooNew(msg)
        return [Entry(JournalStep(step), label, value, states) for step, label, value, states in whole["entries"]]
    except (ValueError, KeyError, TypeError) as error:
        msg = "the store holds a dialog that cannot be read: it is damaged; restore a backup"
        raise StoreError(msg) from error


def steps(stored: str) -> int:
    """Return the number of steps of a stored journal."""
    return len(load(stored))


def resolve_question(entries: Sequence[Entry], step: JournalStep, value: Any = None) -> list[Entry]:
    """Return the journal of a waiting dialog with its open question resolved.

    Args:
        entries: the journal; its last entry is the question.
        step: the outcome: answered, timed out, or cancelled.
        value: the answer, if there is one.
    """
    return [*entries[:-1], Entry(step, entries[-1].label, value)]


def last_boundary(entries: Sequence[Entry]) -> int:
    """Return the index at which the part that is not committed yet begins."""
    return max(index for index, entry in enumerate(entries) if entry.step in BOUNDARIES)
