"""What any store promises: it reads records, and it commits lists of writes, each list whole or not at all.

Who calls it: a bot's lanes (one commit per handled event), its doorbell, and commands. All records of a bot are
kept under its user id, which also tells the resources of the service apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Protocol, runtime_checkable

from chatbot.actions import Action, ActionKey
from chatbot.events import Event
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.stores.conversation import ConversationWrite, DialogRecord, StateKey, StoredState, TimerRecord


@dataclass(frozen=True, slots=True)
class BotRecord:
    """A bot's identity, made once and remembered.

    Args:
        name: the bot's name in bots.yaml.
        resource: which resource of the service the user belongs to.
        user: the bot's user there.
        first_started_ms: the service's time of the first start, epoch ms: nothing older is ever answered unasked.
    """

    name: str
    resource: str
    user: UserId
    first_started_ms: int


@dataclass(frozen=True, slots=True)
class ThreadRecord:
    """What a bot knows of a thread.

    Args:
        floor: a message id; the thread starts above it.
        base: a version; everything below it (less the slack) is settled.
        seen: id to version, of everything with id or version above base less slack.
        is_left: the bot is not in the thread any more; what is pending there is parked.
        receipt_due: the message up to which a receipt is owed.
        receipt_sent: the message up to which one was sent.
        left_ms: when the bot was found to be out, epoch ms, until its handlers hear `ThreadJoined` again.
        arrived: the id of the system message that began the bot's stay; None where it is not known.
    """

    thread: ThreadId
    floor: int
    base: int
    seen: Mapping[int, int] = field(default_factory=dict, hash=False)
    is_left: bool = False
    receipt_due: MessageId | None = None
    receipt_sent: MessageId | None = None
    left_ms: int | None = None
    arrived: int | None = None


class RowStatus(StrEnum):
    """How far an outbox row has come."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One wish on its way.

    Args:
        key: what makes it one and the same; a second row with the same key is not added.
        thread: where it is to be done.
        action: what is to be done.
        after: the highest version known in the thread when the wish was made: what proves it done is newer.
        created_ms: when it was journalled, epoch ms.
        position: the order of the wishes of a thread; given by the store.
        message: the message it made, once known.
        reason: why it failed, once it did.
        caused_by: whose doing caused the wish, as it may quote them; what `Store.forget` goes by.
        after_failure: a handler of `ActionFailed` asked for it; if it fails, too, no further event is made.
    """

    key: ActionKey
    thread: ThreadId
    action: Action
    after: int
    created_ms: int
    position: int = 0
    status: RowStatus = RowStatus.PENDING
    message: MessageId | None = None
    reason: str | None = None
    caused_by: UserId | None = None
    after_failure: bool = False


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event whose handler failed for good, kept whole so that it can be tried again.

    Args:
        id: short, for people: see `letter_id`.
        event: what happened.
        handler: the qualified name of the handler that failed; empty when the process died in it.
        error: type and text of the last failure, one line.
        attempts: how often it was tried.
        died_ms: when it was given up, epoch ms.
        is_revived: somebody asked for another try.
        caused_by: whose message the failed action was an answer to; other events say themselves whose they are.
    """

    id: str
    event: Event
    handler: str
    error: str
    attempts: int
    died_ms: int
    is_revived: bool = False
    caused_by: UserId | None = None


def letter_id(bot: UserId, thread: ThreadId | None, event_key: str) -> str:
    """The id of the dead letter of an event: the same whenever the same event dies again."""
    text = "\n".join((bot, thread or "", event_key))
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


class Progress(IntEnum):
    """What a noted handler is doing; the numbers are stored."""

    WAITING = 0
    """It does not run."""

    RUNNING = 1

    LONG = 2
    """It has run for more than a minute, or did not end when it was canceled."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A handler that is noted because a process had died, or was cut off by a stop, while it ran; or because it runs
    for long.

    Args:
        event_key: the event it runs for.
        count: how often a process has died while it ran.
        cuts: how often a stop has cut it off.
        progress: what it is doing.
        handler: the qualified name of the handler, or error handler, that runs.
    """

    event_key: str
    count: int
    cuts: int = 0
    progress: Progress = Progress.WAITING
    handler: str = ""


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


class Store(Protocol):
    """A bot's memory. Use it as `async with store:`; that opens it, and closes it after the last commit.

    Every method raises `StateError` while the store is not open, and `StoreError` when the memory cannot be read.
    """

    async def __aenter__(self) -> Store:
        """Open: take the lock, bring the schema up to date."""
        ...

    async def __aexit__(self, *exc_info: object) -> None:
        """Write what is still waiting, then close and give the lock back."""
        ...

    async def commit(self, bot: UserId, writes: Sequence[Write]) -> None:
        """Make these changes durable, all of them or none; returns when they are.

        Cancelled, it may or may not have happened, but never in part.

        Raises:
            CannotStore: a value has no stored form; nothing was changed, and the same writes will fail again.
            StoreError: nothing was changed; committing the same writes again later is safe.
            StoreConflict: a state was changed since it was read; nothing was changed.
            StateError: a write changes a thread that no `SaveThread` began; nothing was changed.
        """
        ...

    async def find_bot(self, name: str, resource: str) -> BotRecord | None:
        """The identity remembered for this name at this resource."""
        ...

    async def bots(self) -> Sequence[BotRecord]:
        """All identities ever remembered, by name; also of bots and resources that nobody runs any more."""
        ...

    async def horizon(self, bot: UserId) -> int | None:
        """The time, the service's, epoch ms, before which everything is settled; None if none was noted."""
        ...

    async def threads(self, bot: UserId) -> Sequence[ThreadRecord]:
        """All threads the bot was ever in, seen-sets included."""
        ...

    async def pending(self, bot: UserId) -> Sequence[OutboxRow]:
        """All wishes still to be done, in the order of their threads."""
        ...

    async def row(self, bot: UserId, key: ActionKey) -> OutboxRow | None:
        """The wish of this key, pending or settled; None if there is none (or it was pruned)."""
        ...

    async def made(self, bot: UserId, messages: Collection[MessageId]) -> frozenset[MessageId]:
        """Those of these messages that a settled wish is known to have made, changed or deleted."""
        ...

    async def attempts(self, bot: UserId) -> Mapping[ThreadId, Attempt]:
        """The handlers that were noted as about to run and never as ended."""
        ...

    async def dead_letters(self, bot: UserId) -> Sequence[DeadLetter]:
        """Everything that was given up and not dropped, oldest first."""
        ...

    async def state(self, bot: UserId, key: StateKey) -> StoredState | None:
        """A state as it was last committed; None if there is none."""
        ...

    async def dialogs(self, bot: UserId) -> Sequence[DialogRecord]:
        """All dialogs that have begun and not ended, in the order in which they began to wait."""
        ...

    async def timers(self, bot: UserId) -> Sequence[TimerRecord]:
        """All timers that were not dropped, the earliest first."""
        ...

    async def result(self, bot: UserId, key: str) -> str | None:
        """What came of something that was done once; None if it was not done (or was pruned)."""
        ...

    @property
    def was_killed(self) -> bool:
        """Whether whoever had this store open before did not close it in order: a kill, a crash, a power failure, a
        stop that did not end."""
        ...

    @property
    def was_stopping(self) -> bool:
        """Whether `was_killed`, but only after it had been told to stop: what ran then was cut, and killed nobody."""
        ...

    async def forget(self, user: UserId) -> int:
        """Erase a person, for every bot; returns how many records were changed.

        Wishes this person caused, and wishes that name them, lose their text, names and people; what of them was
        still to be said fails. The rows themselves stay, so that nothing already done is done again. This person's
        state, dialogs and timers go; where the state of others names them, the name goes.
        """
        ...


@runtime_checkable
class EndableStore(Protocol):
    """A store that a process which is about to end can speak to without the event loop. Safe in any thread."""

    def stop_began(self) -> None:
        """Note that this process was told to stop; returns at once."""
        ...

    def submit_from_thread(self, bot: UserId, writes: Sequence[Write]) -> None:
        """Hand over changes of a bot, to be written after everything that was submitted; returns at once."""
        ...

    def stay_marked(self) -> None:
        """Close it, when it is closed, as a killed process would leave it: this process does not end in order."""
        ...

    def finish(self, seconds: float) -> None:
        """Wait until everything that was handed over is durable, at most so long. Blocks."""
        ...
