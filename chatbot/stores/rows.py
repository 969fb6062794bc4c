"""Conversion between records and table rows of numbers and texts. Performs no I/O.

Encoding raises `CannotStore`, which names the value's place. Decoding raises `StoreError` for rows that chatbot did not
write. In the rows of conversations, an empty text means no thread or no user, because keys must not be NULL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from chatbot.actions import ActionKey
from chatbot.errors import StateError, StoreError
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.stores import codec
from chatbot.stores.records import (
    Attempt,
    BotRecord,
    DeadLetter,
    DialogRecord,
    OutboxRow,
    Progress,
    RowStatus,
    StateKey,
    StoredState,
    ThreadRecord,
    TimerRecord,
)
from chatbot.stores.writes import SaveResult, SaveState


class BotRow(NamedTuple):
    """The row of a bot's identity."""

    name: str
    resource: str
    user: str
    first_started_ms: int
    paused_ms: int | None = None
    is_skipping: int = 0
    is_retired: int = 0


class ThreadRow(NamedTuple):
    """The row of a thread, without its seen-set. Receipts are stored as numbers, so that a later one is greater."""

    id: str
    floor: int
    base: int
    is_left: int
    receipt_due: int | None
    receipt_sent: int | None
    left_ms: int | None
    arrived: int | None


class ActionRow(NamedTuple):
    """The row of an action in the outbox, without its position."""

    key: str
    thread: str
    action: str
    after: int
    created_ms: int
    status: str
    message: str | None
    reason: str | None
    caused_by: str | None
    after_failure: int


class LetterRow(NamedTuple):
    """The row of a dead letter."""

    id: str
    event: str
    handler: str
    error: str
    attempts: int
    died_ms: int
    is_revived: int
    caused_by: str


class AttemptRow(NamedTuple):
    """The row of a handler attempt that is about to run."""

    thread: str
    event_key: str
    tries: int
    cuts: int = 0
    progress: int = 0
    handler: str = ""


def encode_bot(record: BotRecord) -> tuple[str, str, str, int]:
    """Encode a bot's identity; whether it is paused is not part of it."""
    return (
        codec.text(record.name, "BotRecord.name"),
        codec.text(record.resource, "BotRecord.resource"),
        codec.text(record.user, "BotRecord.user"),
        codec.integer(record.first_started_ms, "BotRecord.first_started_ms"),
    )


def decode_bot(row: BotRow) -> BotRecord:
    """Decode a bot's identity."""
    return BotRecord(
        row.name,
        row.resource,
        UserId(row.user),
        row.first_started_ms,
        row.paused_ms,
        bool(row.is_skipping),
        bool(row.is_retired),
    )


def encode_thread(record: ThreadRecord) -> ThreadRow:
    """Encode a thread."""
    due, sent = record.receipt_due, record.receipt_sent
    return ThreadRow(
        codec.text(record.thread, "ThreadRecord.thread"),
        codec.integer(record.floor, "ThreadRecord.floor"),
        codec.integer(record.base, "ThreadRecord.base"),
        int(record.is_left),
        None if due is None else codec.number(due, "ThreadRecord.receipt_due"),
        None if sent is None else codec.number(sent, "ThreadRecord.receipt_sent"),
        None if record.left_ms is None else codec.integer(record.left_ms, "ThreadRecord.left_ms"),
        None if record.arrived is None else codec.integer(record.arrived, "ThreadRecord.arrived"),
    )


def decode_thread(row: ThreadRow, seen: Mapping[int, int]) -> ThreadRecord:
    """Decode a thread from its row and its seen-set."""
    return ThreadRecord(
        ThreadId(row.id),
        row.floor,
        row.base,
        seen,
        bool(row.is_left),
        None if row.receipt_due is None else MessageId(str(row.receipt_due)),
        None if row.receipt_sent is None else MessageId(str(row.receipt_sent)),
        row.left_ms,
        row.arrived,
    )


def encode_seen(seen: Mapping[int, int], place: str) -> list[tuple[int, int]]:
    """Encode a seen-set as rows of id and version."""
    return [
        (codec.integer(id, f"key of {place}"), codec.integer(version, f"{place}[{id}]")) for id, version in seen.items()
    ]


def encode_action_row(row: OutboxRow) -> ActionRow:
    """Encode an action of the outbox."""
    return ActionRow(
        codec.text(row.key, "OutboxRow.key"),
        codec.text(row.thread, "OutboxRow.thread"),
        codec.encode_action(row.action),
        codec.integer(row.after, "OutboxRow.after"),
        codec.integer(row.created_ms, "OutboxRow.created_ms"),
        RowStatus(row.status).value,
        codec.optional_text(row.message, "OutboxRow.message"),
        codec.diagnostic(row.reason),
        codec.optional_text(row.caused_by, "OutboxRow.caused_by"),
        int(row.after_failure),
    )


def decode_action_row(row: ActionRow, position: int) -> OutboxRow:
    """Decode an action of the outbox.

    Raises:
        StoreError: the store is damaged, or a newer chatbot wrote the row; the text names the row's key.
    """
    with naming_row(f"outbox row {row.key}"):
        return OutboxRow(
            ActionKey(row.key),
            ThreadId(row.thread),
            codec.decode_action(row.action),
            row.after,
            row.created_ms,
            position,
            RowStatus(row.status),
            None if row.message is None else MessageId(row.message),
            row.reason,
            None if row.caused_by is None else UserId(row.caused_by),
            bool(row.after_failure),
        )


def encode_letter(letter: DeadLetter) -> LetterRow:
    """Encode a dead letter."""
    return LetterRow(
        codec.text(letter.id, "DeadLetter.id"),
        codec.encode_event(letter.event),
        codec.text(letter.handler, "DeadLetter.handler"),
        codec.diagnostic(letter.error) or "",
        codec.integer(letter.attempts, "DeadLetter.attempts"),
        codec.integer(letter.died_ms, "DeadLetter.died_ms"),
        int(letter.is_revived),
        codec.text(letter.caused_by or "", "DeadLetter.caused_by"),
    )


def decode_letter(row: LetterRow) -> DeadLetter:
    """Decode a dead letter; raises the same errors as `decode_action_row`."""
    with naming_row(f"dead letter {row.id}"):
        event = codec.decode_event(row.event)
    caused_by = UserId(row.caused_by) if row.caused_by else None
    return DeadLetter(row.id, event, row.handler, row.error, row.attempts, row.died_ms, bool(row.is_revived), caused_by)


def encode_attempt(thread: ThreadId, attempt: Attempt) -> AttemptRow:
    """Encode a handler attempt."""
    return AttemptRow(
        codec.text(thread, "BeginAttempt.thread"),
        codec.text(attempt.event_key, "Attempt.event_key"),
        codec.integer(attempt.count, "Attempt.count"),
        codec.integer(attempt.cuts, "Attempt.cuts"),
        int(attempt.progress),
        codec.text(attempt.handler, "Attempt.handler"),
    )


def decode_attempts(rows: Iterable[AttemptRow]) -> dict[ThreadId, Attempt]:
    """Decode handler attempts by thread."""
    return {
        ThreadId(row.thread): Attempt(row.event_key, row.tries, row.cuts, Progress(row.progress), row.handler)
        for row in rows
    }


@contextmanager
def naming_row(what: str) -> Iterator[None]:
    """Add the name of the row to decoding errors."""
    try:
        yield
    except StoreError as error:
        msg = f"{what}: {error}"
        raise type(error)(msg) from error
    except ValueError as error:
        msg = f"{what}: {error}; the store is damaged: restore a backup"
        raise StoreError(msg) from error


def group_seen(rows: Iterable[tuple[int, int, int]]) -> dict[int, dict[int, int]]:
    """Return seen-sets by thread key, from rows of key, id and version."""
    sets: dict[int, dict[int, int]] = {}
    for thread, id, version in rows:
        sets.setdefault(thread, {})[id] = version
    return sets


def unknown_thread(thread: str) -> StateError:
    """Return the error for a write to a thread that is not stored."""
    return StateError(f"thread {thread} is not in the store: commit a SaveThread for it first")


def not_open() -> StateError:
    """Return the error for the use of a store that is not open."""
    return StateError("the store is not open: use it inside `async with store:`")


class StateKeyRow(NamedTuple):
    """The key columns of a state."""

    thread: str
    person: str
    name: str


class StateRow(NamedTuple):
    """The value columns of a state."""

    value: str
    version: int


class DialogRow(NamedTuple):
    """The row of an active dialog."""

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
    """The row of a timer."""

    id: str
    handler: str
    due_ms: int
    thread: str
    payload: str
    caused_by: str


class ResultRow(NamedTuple):
    """The row of the result of a call that is made once."""

    key: str
    value: str
    created_ms: int
    caused_by: str


def encode_state_key(key: StateKey) -> StateKeyRow:
    """Encode the key of a state."""
    return StateKeyRow(
        codec.text(key.thread or "", "StateKey.thread"),
        codec.text(key.user or "", "StateKey.user"),
        codec.text(key.name, "StateKey.name"),
    )


def decode_state_key(row: StateKeyRow) -> StateKey:
    """Decode the key of a state."""
    return StateKey(row.name, ThreadId(row.thread) if row.thread else None, UserId(row.person) if row.person else None)


def encode_state(write: SaveState) -> StateRow | None:
    """Encode the value of a state; return None if the state is deleted."""
    if write.value is None:
        return None
    return StateRow(codec.text(write.value, "SaveState.value"), codec.integer(write.version, "SaveState.version"))


def decode_state(row: StateRow) -> StoredState:
    """Decode the value of a state."""
    return StoredState(row.value, row.version)


def encode_dialog(record: DialogRecord) -> DialogRow:
    """Encode a dialog."""
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
    """Decode a dialog.

    Raises:
        StoreError: the store is damaged, or a newer chatbot wrote the row; the text names the dialog.
    """
    with naming_row(f"dialog {row.id}"):
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
    """Encode a timer."""
    return TimerRow(
        codec.text(record.id, "TimerRecord.id"),
        codec.text(record.handler, "TimerRecord.handler"),
        codec.integer(record.due_ms, "TimerRecord.due_ms"),
        codec.text(record.thread or "", "TimerRecord.thread"),
        codec.text(record.payload, "TimerRecord.payload"),
        codec.text(record.caused_by or "", "TimerRecord.caused_by"),
    )


def decode_timer(row: TimerRow) -> TimerRecord:
    """Decode a timer."""
    return TimerRecord(
        row.id,
        row.handler,
        row.due_ms,
        ThreadId(row.thread) if row.thread else None,
        row.payload,
        UserId(row.caused_by) if row.caused_by else None,
    )


def encode_result(write: SaveResult) -> ResultRow:
    """Encode a result."""
    return ResultRow(
        codec.text(write.key, "SaveResult.key"),
        codec.text(write.value, "SaveResult.value"),
        codec.integer(write.created_ms, "SaveResult.created_ms"),
        codec.text(write.caused_by or "", "SaveResult.caused_by"),
    )
