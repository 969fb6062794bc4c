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
    """A bot's identity, created once and kept.

    Args:
        name: the bot's name in bots.yaml.
        resource: the resource of the service that the user belongs to.
        user: the bot's user there.
        first_started_ms: the service's time of the first start, epoch ms; older messages are not answered.
        paused_ms: when an operator paused the bot, epoch ms; None if it is not paused. Only `PauseBot` and `ResumeBot`
            change this and the next one: a bot that saves its identity does not end its pause.
        is_skipping: the next start passes over all messages before it.
        is_retired: the configuration that ran last did not have the bot any more.
    """

    name: str
    resource: str
    user: UserId
    first_started_ms: int
    paused_ms: int | None = None
    is_skipping: bool = False
    is_retired: bool = False


@dataclass(frozen=True, slots=True)
class ThreadRecord:
    """What a bot knows of a thread.

    Args:
        floor: a message id; the thread starts above it.
        base: a version; everything below it (less the slack) is settled.
        seen: id to version, of everything with id or version above base less slack.
        is_left: the bot is not in the thread any more; what is pending there is parked.
        receipt_due: the message up to which a read receipt is due.
        receipt_sent: the message up to which one was sent.
        left_ms: when the bot found that it had left, epoch ms; cleared when `ThreadJoined` is handled again.
        arrived: the id of the system message that added the bot; None if unknown.
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
    """The status of an outbox row."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An action in the outbox.

    Args:
        key: its idempotency key; a second row with the same key is not added.
        thread: the thread to do it in.
        action: the action.
        after: the highest known version in the thread at its creation; a message that proves it done is newer.
        created_ms: when it was added, epoch ms.
        position: its place in the order of the thread's actions; set by the store.
        message: the message that it created, once known.
        reason: why it failed.
        caused_by: the person who caused it, whom it may quote; `Store.forget` erases by this.
        after_failure: a handler of `ActionFailed` asked for it; if it fails, too, there is no further event.
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
    """An event that was given up, kept complete so that it can be retried.

    Args:
        id: a short id for people; see `letter_id`.
        event: the event.
        handler: the qualified name of the handler that failed; empty if the process died while it ran.
        error: type and text of the last failure, one line.
        attempts: the number of attempts.
        died_ms: when the event was given up, epoch ms.
        is_revived: a retry was requested.
        caused_by: for a failed action, the person whose message it answered; other events name the person themselves.
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
    """Return the id of an event's dead letter; it is the same if the event is given up again."""
    text = "\n".join((bot, thread or "", event_key))
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


class Progress(IntEnum):
    """What a recorded handler is doing; the numbers are stored."""

    WAITING = 0
    """It is not running."""

    RUNNING = 1

    LONG = 2
    """It has run for more than a minute, or did not end when it was canceled."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A handler that is recorded because a process died or was stopped while it ran, or because it runs for long.

    Args:
        event_key: the key of its event.
        count: how often a process has died while it ran.
        cuts: how often a stop of the process has interrupted it.
        progress: what it is doing.
        handler: the qualified name of the handler or error handler.
    """

    event_key: str
    count: int
    cuts: int = 0
    progress: Progress = Progress.WAITING
    handler: str = ""


@dataclass(frozen=True, slots=True)
class StateKey:
    """The key of a state.

    Args:
        name: the stored name of its class.
        thread: its thread; None for a state of all threads.
        user: its person; None for a state of all people.
    """

    name: str
    thread: ThreadId | None = None
    user: UserId | None = None


@dataclass(frozen=True, slots=True)
class StoredState:
    """A committed state.

    Args:
        value: JSON text.
        version: grows with every commit of this state.
    """

    value: str = field(repr=False)
    version: int


@dataclass(frozen=True, slots=True)
class PersonalRecord:
    """A record that holds data of a person.

    Args:
        bot: the bot that stores it.
        kind: what it is: state, dialog, timer, action, dead letter or result.
        columns: its columns as they are stored; values, events and journals are JSON texts.
    """

    bot: UserId
    kind: str
    columns: Mapping[str, str | int | float | None] = field(repr=False)


@dataclass(frozen=True, slots=True)
class DialogRecord:
    """A dialog in progress.

    Args:
        id: its permanent id.
        thread: its thread.
        user: the person.
        handler: the qualified name of its function.
        event: the event that began it.
        journal: its steps so far, as JSON text.
        event_key: the event that it handled last; if that event is handled again, the dialog continues from there.
        is_waiting: it has asked a question, and the person's next message is the answer.
        deadline_ms: until when it waits, epoch ms; None is without limit.
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
    """A timer, or the next run of a schedule.

    Args:
        id: its permanent id.
        handler: the qualified name of the function to call.
        due_ms: when it is due, epoch ms.
        thread: its thread; None for a schedule.
        payload: the arguments of the function, as JSON text.
        caused_by: the person who caused it, whom it may quote; `Store.forget` erases by this.
    """

    id: str
    handler: str
    due_ms: int
    thread: ThreadId | None = None
    payload: str = field(default="{}", repr=False)
    caused_by: UserId | None = None
