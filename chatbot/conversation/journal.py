"""A dialog's journal: what has happened in it, step by step, so that its function can be run again to where it was.

Pure. Entries never change once the event that made them was committed; a run meets them in their order.
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
"""The newest form that can be read. A journal without the steps that form 2 brought is still written in form 1, so
that an older chatbot goes on with it."""


class JournalStep(StrEnum):
    """What can happen in a dialog."""

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
        step: what happened.
        label: tells it from other steps of its kind: the mark of a question, the name of a function.
        value: the answer, or the stored form of a result.
        states: of a boundary: the states that were read in its part, as they were then.
    """

    step: JournalStep
    label: str = ""
    value: Any = field(default=None, repr=False)
    states: Mapping[str, str | None] = field(default_factory=dict, repr=False)


def mark_of(question: str) -> str:
    """The mark of a question: an answer belongs to the words it was given to."""
    return hashlib.blake2b(question.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def dump(entries: Sequence[Entry]) -> str:
    """The stored form of a journal."""
    rows = [[entry.step.value, entry.label, entry.value, dict(entry.states)] for entry in entries]
    version = 2 if any(entry.step in _SINCE_2 for entry in entries) else 1
    return to_json({"v": version, "entries": rows})


def load(stored: str) -> list[Entry]:
    """The journal of a stored form.

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
    """How many steps a stored journal has."""
    return len(load(stored))


def go_on(entries: Sequence[Entry], step: JournalStep, value: Any = None) -> list[Entry]:
    """The journal of a dialog that has waited, and waits no more.

    Args:
        entries: the last of them asked.
        step: what came of it.
        value: the answer, if that is what came.
    """
    return [*entries[:-1], Entry(step, entries[-1].label, value)]


def last_boundary(entries: Sequence[Entry]) -> int:
    """Where the part begins that is not committed yet."""
    return max(index for index, entry in enumerate(entries) if entry.step in BOUNDARIES)
