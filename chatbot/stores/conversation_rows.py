"""Records of conversations as flat rows; as `rows`, pure and strict. No thread and no user are empty texts."""

from __future__ import annotations

from typing import NamedTuple

from chatbot.model import ThreadId, UserId
from chatbot.stores import codec
from chatbot.stores.conversation import (
    DialogRecord,
    SaveResult,
    SaveState,
    StateKey,
    StoredState,
    TimerRecord,
)
from chatbot.stores.rows import named


class StateKeyRow(NamedTuple):
    """Whose state."""

    thread: str
    person: str
    name: str


class StateRow(NamedTuple):
    """A state's value, without its key."""

    value: str
    version: int


class DialogRow(NamedTuple):
    """A dialog that has begun and not ended."""

    id: str
    thread: str
    person: str
    handler: str
    event: str
    journal: str
    event_key: str
    is_waiting: int
    deadline_ms: int | None
    changed_ms: int


class TimerRow(NamedTuple):
    """A timer."""

    id: str
    handler: str
    due_ms: int
    thread: str
    payload: str
    caused_by: str


class ResultRow(NamedTuple):
    """What came of something that is done once."""

    key: str
    value: str
    created_ms: int
    caused_by: str


def encode_state_key(key: StateKey) -> StateKeyRow:
    """The row of whose state it is."""
    return StateKeyRow(
        codec.text(key.thread or "", "StateKey.thread"),
        codec.text(key.user or "", "StateKey.user"),
        codec.text(key.name, "StateKey.name"),
    )


def encode_state(write: SaveState) -> StateRow | None:
    """The row of a state; None if it is to end."""
    if write.value is None:
        return None
    return StateRow(codec.text(write.value, "SaveState.value"), codec.integer(write.version, "SaveState.version"))


def decode_state(row: StateRow) -> StoredState:
    """The state of a row."""
    return StoredState(row.value, row.version)


def encode_dialog(record: DialogRecord) -> DialogRow:
    """The row of a dialog."""
    deadline = record.deadline_ms
    return DialogRow(
        codec.text(record.id, "DialogRecord.id"),
        codec.text(record.thread, "DialogRecord.thread"),
        codec.text(record.user, "DialogRecord.user"),
        codec.text(record.handler, "DialogRecord.handler"),
        codec.encode_event(record.event),
        codec.text(record.journal, "DialogRecord.journal"),
        codec.text(record.event_key, "DialogRecord.event_key"),
        int(record.is_waiting),
        None if deadline is None else codec.integer(deadline, "DialogRecord.deadline_ms"),
        codec.integer(record.changed_ms, "DialogRecord.changed_ms"),
    )


def decode_dialog(row: DialogRow) -> DialogRecord:
    """The dialog of a row.

    Raises:
        StoreError: naming the dialog; the store is damaged, or a newer chatbot wrote it.
    """
    with named(f"dialog {row.id}"):
        event = codec.decode_event(row.event)
    return DialogRecord(
        row.id,
        ThreadId(row.thread),
        UserId(row.person),
        row.handler,
        event,
        row.journal,
        row.event_key,
        bool(row.is_waiting),
        row.deadline_ms,
        row.changed_ms,
    )


def encode_timer(record: TimerRecord) -> TimerRow:
    """The row of a timer."""
    return TimerRow(
        codec.text(record.id, "TimerRecord.id"),
        codec.text(record.handler, "TimerRecord.handler"),
        codec.integer(record.due_ms, "TimerRecord.due_ms"),
        codec.text(record.thread or "", "TimerRecord.thread"),
        codec.text(record.payload, "TimerRecord.payload"),
        codec.text(record.caused_by or "", "TimerRecord.caused_by"),
    )


def decode_timer(row: TimerRow) -> TimerRecord:
    """The timer of a row."""
    return TimerRecord(
        row.id,
        row.handler,
        row.due_ms,
        ThreadId(row.thread) if row.thread else None,
        row.payload,
        UserId(row.caused_by) if row.caused_by else None,
    )


def encode_result(write: SaveResult) -> ResultRow:
    """The row of a result."""
    return ResultRow(
        codec.text(write.key, "SaveResult.key"),
        codec.text(write.value, "SaveResult.value"),
        codec.integer(write.created_ms, "SaveResult.created_ms"),
        codec.text(write.caused_by or "", "SaveResult.caused_by"),
    )
