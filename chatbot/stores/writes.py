"""Changes that a store can commit, as data. A commit is a list of writes, all of them or none.

They are structs: a frozen dataclass takes six times the memory, and more than ten times the processor time to make.
Those with people's words are dataclasses, which can leave a field out of their `repr`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec import Struct

from chatbot.actions import ActionKey
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.stores.records import (
    Attempt,
    BotRecord,
    DeadLetter,
    DialogRecord,
    OutboxRow,
    RowStatus,
    StateKey,
    ThreadRecord,
    TimerRecord,
)


class SaveBot(Struct, frozen=True):
    """Save a bot's identity; replaces a record of the same name and resource."""

    record: BotRecord


class RenameBot(Struct, frozen=True):
    """Give a bot's identity to another name; replaces what that name had at the resource."""

    old: str
    new: str
    resource: str


class RetireBots(Struct, frozen=True):
    """Mark all bots of a resource as retired but those of these names, which are marked as not retired."""

    resource: str
    kept: tuple[str, ...]


class PauseBot(Struct, frozen=True):
    """Mark a bot as paused; a bot that is paused already keeps its time.

    Args:
        name: the bot's name.
        resource: the resource of its user.
        paused_ms: epoch ms.
    """

    name: str
    resource: str
    paused_ms: int


class ResumeBot(Struct, frozen=True):
    """Mark a bot as not paused.

    Args:
        name: the bot's name.
        resource: the resource of its user.
        is_skipping: the next start passes over all messages before it.
    """

    name: str
    resource: str
    is_skipping: bool = False


class MoveHorizon(Struct, frozen=True):
    """Settle all messages of all threads of the bot before this time, by the service's clock, epoch ms."""

    horizon_ms: int


class SaveThread(Struct, frozen=True):
    """Save a thread: replaces its record and its whole seen-set."""

    record: ThreadRecord


class MoveBase(Struct, frozen=True):
    """Settle everything below `base`, and delete entries of the seen-set with id and version at or below `below`."""

    thread: ThreadId
    base: int
    below: int


class MarkSeen(Struct, frozen=True):
    """Mark these messages, in these versions, as handled."""

    thread: ThreadId
    seen: Mapping[int, int]


class LeaveThread(Struct, frozen=True):
    """Mark a thread as left by the bot. Its pending rows, dialogs and timers stay: they are parked.

    Args:
        left_ms: when the bot found that it had left, epoch ms.
    """

    thread: ThreadId
    left_ms: int


class EnterThread(Struct, frozen=True):
    """Mark a thread as entered again; `ThreadJoined` was not handled yet."""

    thread: ThreadId


class MarkJoined(Struct, frozen=True):
    """Mark `ThreadJoined` as handled in the thread.

    Args:
        arrived: the id of the system message that lists the bot; None keeps the stored one.
    """

    thread: ThreadId
    arrived: int | None


class MarkReceiptDue(Struct, frozen=True):
    """Mark a read receipt up to this message as due."""

    thread: ThreadId
    message: MessageId


class SettleReceipt(Struct, frozen=True):
    """Mark a read receipt up to this message as sent, or as refused by the service."""

    thread: ThreadId
    message: MessageId


class Enqueue(Struct, frozen=True):
    """Add an action to the outbox, unless there is a row with its key."""

    row: OutboxRow


class SettleRow(Struct, frozen=True):
    """Mark an action as done or failed; does nothing if it is settled already."""

    key: ActionKey
    status: RowStatus
    message: MessageId | None = None
    reason: str | None = None


class ReplaceRowMessage(Struct, frozen=True):
    """Set the message of a done action that was sent twice to the copy that stays; does nothing to other rows."""

    key: ActionKey
    message: MessageId


class RetryRow(Struct, frozen=True):
    """Retry a failed action: it becomes the last pending one of its thread.

    Args:
        key: the key of the action.
        created_ms: its new creation time, epoch ms; None keeps the stored one.
    """

    key: ActionKey
    created_ms: int | None = None


class SaveDeadLetter(Struct, frozen=True):
    """Save an event that was given up; replaces a dead letter of the same id."""

    letter: DeadLetter


class RequestRetry(Struct, frozen=True):
    """Request a retry of a dead letter; unknown ids change nothing."""

    id: str


class DropDeadLetter(Struct, frozen=True):
    """Delete a dead letter; unknown ids change nothing."""

    id: str


class BeginAttempt(Struct, frozen=True):
    """Record that a handler runs in this thread, which need not be stored; replaces an earlier record.

    Written only if the last process was killed (`Store.was_killed`), and for handlers that run for more than a minute,
    because it costs a commit before each handler.
    """

    thread: ThreadId
    attempt: Attempt


class EndAttempt(Struct, frozen=True):
    """Delete the record of a handler that has ended without killing the process."""

    thread: ThreadId


class Prune(Struct, frozen=True):
    """Delete the bot's settled rows, results, and dialogs that do not wait, if they are older than this time, epoch ms.

    Rows of known messages stay while any row of their thread is pending: the proof of the pending one may come upon
    these messages. A row without a time counts as created at the version that it came after.
    """

    before_ms: int


@dataclass(frozen=True, slots=True)
class SaveState:
    """Create, replace or delete a state; the commit fails with `StoreConflict` if its version is not `expected`.

    Args:
        key: the key of the state.
        value: JSON text; None deletes the state.
        expected: the version that was read; None if there was none.
        version: the new version, which this state has never had.
    """

    key: StateKey
    value: str | None = field(repr=False)
    expected: int | None
    version: int


class SaveDialog(Struct, frozen=True):
    """Save a dialog; replaces a record of the same id."""

    record: DialogRecord


class DropDialog(Struct, frozen=True):
    """Delete a dialog; unknown ids change nothing."""

    id: str


class SetTimer(Struct, frozen=True):
    """Save a timer; replaces one of the same id."""

    record: TimerRecord


class DropTimer(Struct, frozen=True):
    """Delete a timer; unknown ids change nothing."""

    id: str


@dataclass(frozen=True, slots=True)
class SaveResult:
    """Save the result of a call that is made once; a result that is stored under the key already stays.

    Args:
        key: identifies the call.
        value: JSON text.
        created_ms: the time of the call, epoch ms; pruned like a settled action.
        caused_by: the person who caused it.
    """

    key: str
    value: str = field(repr=False)
    created_ms: int
    caused_by: UserId | None = None


ConversationWrite = SaveState | SaveDialog | DropDialog | SetTimer | DropTimer | SaveResult
"""A change of states, dialogs, timers or results."""


Write = (
    SaveBot
    | RenameBot
    | RetireBots
    | PauseBot
    | ResumeBot
    | MoveHorizon
    | SaveThread
    | MoveBase
    | MarkSeen
    | LeaveThread
    | EnterThread
    | MarkJoined
    | MarkReceiptDue
    | SettleReceipt
    | Enqueue
    | SettleRow
    | ReplaceRowMessage
    | RetryRow
    | SaveDeadLetter
    | RequestRetry
    | DropDeadLetter
    | BeginAttempt
    | EndAttempt
    | Prune
    | ConversationWrite
)
"""One change to a bot's records; a commit is a list of them."""
