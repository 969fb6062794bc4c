"""What a store remembers of conversations: state, pending dialogs, timers, and results of things done once.

The values are JSON texts that the conversation package writes and reads; a store keeps them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from chatbot.events import Event
from chatbot.model import ThreadId, UserId


@dataclass(frozen=True, slots=True)
class StateKey:
    """Whose state it is.

    Args:
        name: of which kind.
        thread: where it counts; None is everywhere.
        user: for whom; None is for all.
    """

    name: str
    thread: ThreadId | None = None
    user: UserId | None = None


@dataclass(frozen=True, slots=True)
class StoredState:
    """A state as it was committed.

    Args:
        value: JSON text.
        version: changes with every commit of this state.
    """

    value: str = field(repr=False)
    version: int


@dataclass(frozen=True, slots=True)
class DialogRecord:
    """A dialog that has begun and not ended.

    Args:
        id: names it for good.
        thread: where it is held.
        user: with whom.
        handler: the qualified name of the function that holds it.
        event: what it began with.
        journal: JSON text; what has happened in it so far.
        event_key: the event it has taken last; that event, handled again, goes on from there.
        is_waiting: it has asked, and its user's next message is the answer.
        deadline_ms: until when it waits, epoch ms; None is for ever.
        changed_ms: when it was last changed, epoch ms.
    """

    id: str
    thread: ThreadId
    user: UserId
    handler: str
    event: Event
    journal: str = field(repr=False)
    event_key: str
    is_waiting: bool
    deadline_ms: int | None
    changed_ms: int


@dataclass(frozen=True, slots=True)
class TimerRecord:
    """Something that is to happen at its time.

    Args:
        id: names it for good.
        handler: the qualified name of the function to call.
        due_ms: when, epoch ms.
        thread: where; None is nowhere in particular.
        payload: JSON text; what the function is to be called with.
        caused_by: whose doing it was set for, as it may quote them; what `Store.forget` goes by.
    """

    id: str
    handler: str
    due_ms: int
    thread: ThreadId | None = None
    payload: str = field(default="{}", repr=False)
    caused_by: UserId | None = None


@dataclass(frozen=True, slots=True)
class SaveState:
    """Replace a state, or begin or end it; the commit fails with `StoreConflict` if another one was there first.

    Args:
        key: whose.
        value: JSON text; None ends it.
        expected: the version that was read; None if there was none.
        version: the new version: one that this state never had.
    """

    key: StateKey
    value: str | None = field(repr=False)
    expected: int | None
    version: int


@dataclass(frozen=True, slots=True)
class SaveDialog:
    """Remember a dialog; a record of the same id is replaced."""

    record: DialogRecord


@dataclass(frozen=True, slots=True)
class DropDialog:
    """Forget a dialog; unknown ids change nothing."""

    id: str


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Remember a timer; one of the same id is replaced."""

    record: TimerRecord


@dataclass(frozen=True, slots=True)
class DropTimer:
    """Forget a timer; unknown ids change nothing."""

    id: str


@dataclass(frozen=True, slots=True)
class SaveResult:
    """Remember what came of something that is to be done once; what is remembered under the key already stays.

    Args:
        key: names what was done.
        value: JSON text.
        created_ms: when, epoch ms; pruned like a settled wish.
        caused_by: whose doing it was.
    """

    key: str
    value: str = field(repr=False)
    created_ms: int
    caused_by: UserId | None = None


ConversationWrite = SaveState | SaveDialog | DropDialog | SetTimer | DropTimer | SaveResult
"""One change to what is remembered of conversations."""
