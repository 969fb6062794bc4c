"""The records that a store returns: identities, threads, actions, dead letters, attempts, states, dialogs and timers.

All records of a bot are kept under its user id, which is unique across resources of the service. Values of states,
journals and payloads are JSON texts that other packages write and read; a store keeps them as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from chatbot.actions import Action, ActionKey
from chatbot.events import Event
from chatbot.model import MessageId, ThreadId, UserId


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
