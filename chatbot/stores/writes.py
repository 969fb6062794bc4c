"""The changes that a store can commit, as data. A commit is a list of writes, all of them or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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


@dataclass(frozen=True, slots=True)
class SaveBot:
    """Remember a bot's identity; an existing record of the same name and resource is replaced."""

    record: BotRecord


@dataclass(frozen=True, slots=True)
class MoveHorizon:
    """Everything that was said in any thread of the bot before this time, the service's, epoch ms, is settled."""

    horizon_ms: int


@dataclass(frozen=True, slots=True)
class SaveThread:
    """Begin a thread, or begin it anew: replaces its record and its whole seen-set."""

    record: ThreadRecord


@dataclass(frozen=True, slots=True)
class MoveBase:
    """Everything below `base` is settled: forget what was seen with id and version at or below `below`."""

    thread: ThreadId
    base: int
    below: int


@dataclass(frozen=True, slots=True)
class MarkSeen:
    """These messages, in these versions, are dealt with."""

    thread: ThreadId
    seen: Mapping[int, int] = field(hash=False)


@dataclass(frozen=True, slots=True)
class LeaveThread:
    """The bot is not in the thread any more. Its pending rows, dialogs and timers there stay: they are parked.

    Args:
        left_ms: when that was found, epoch ms.
    """

    thread: ThreadId
    left_ms: int


@dataclass(frozen=True, slots=True)
class EnterThread:
    """The bot is in a thread again that it had left; its handlers have not heard of it yet."""

    thread: ThreadId


@dataclass(frozen=True, slots=True)
class BeginStay:
    """The handlers know that the bot is in the thread.

    Args:
        arrived: the id of the system message that lists the bot; None leaves what is known.
    """

    thread: ThreadId
    arrived: int | None


@dataclass(frozen=True, slots=True)
class OweReceipt:
    """A receipt up to this message is due."""

    thread: ThreadId
    message: MessageId


@dataclass(frozen=True, slots=True)
class SettleReceipt:
    """A receipt up to this message was sent, or is not wanted by the service."""

    thread: ThreadId
    message: MessageId


@dataclass(frozen=True, slots=True)
class Enqueue:
    """Journal a wish. If a row of this key exists already, nothing is added."""

    row: OutboxRow


@dataclass(frozen=True, slots=True)
class SettleRow:
    """A wish is done, or will never be. A row of this key that is settled already stays as it is."""

    key: ActionKey
    status: RowStatus
    message: MessageId | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RepointRow:
    """A wish that is done had made two messages, and this one stays. Rows that are not done stay as they are."""

    key: ActionKey
    message: MessageId


@dataclass(frozen=True, slots=True)
class ReopenRow:
    """A wish that had failed is to be tried again: it becomes the last pending one of its thread.

    Args:
        key: whose.
        created_ms: when, epoch ms: it counts as journalled then; None leaves it as it was.
    """

    key: ActionKey
    created_ms: int | None = None


@dataclass(frozen=True, slots=True)
class SaveDeadLetter:
    """Keep an event that was given up; a letter of the same id is replaced."""

    letter: DeadLetter


@dataclass(frozen=True, slots=True)
class ReviveDeadLetter:
    """Ask for another try of a dead letter; unknown ids change nothing."""

    id: str


@dataclass(frozen=True, slots=True)
class DropDeadLetter:
    """Forget a dead letter; unknown ids change nothing."""

    id: str


@dataclass(frozen=True, slots=True)
class BeginAttempt:
    """Note a handler in this thread, which need not have been begun; replaces what was noted there.

    Written before handlers run only after the last process had died (`Store.was_killed`), and for handlers that run
    for more than a minute.
    """

    thread: ThreadId
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class EndAttempt:
    """The noted handler has not killed the process."""

    thread: ThreadId


@dataclass(frozen=True, slots=True)
class Prune:
    """Delete the bot's settled rows that were journalled before this time, epoch ms; pending ones stay.

    So do rows of known messages in a thread where any row is pending: they explain what its proof may come upon. A
    row without a time counts as journalled at the version that it came after.

    So do results of that age, and dialogs that have waited for nobody since.
    """

    before_ms: int


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


Write = (
    SaveBot
    | MoveHorizon
    | SaveThread
    | MoveBase
    | MarkSeen
    | LeaveThread
    | EnterThread
    | BeginStay
    | OweReceipt
    | SettleReceipt
    | Enqueue
    | SettleRow
    | RepointRow
    | ReopenRow
    | SaveDeadLetter
    | ReviveDeadLetter
    | DropDeadLetter
    | BeginAttempt
    | EndAttempt
    | Prune
    | ConversationWrite
)
"""One change to a bot's records; a commit is a list of them."""
