"""Events: frozen values that polling creates and handlers receive.

Every event names its bot, and has a `key` that is the same when the same thing is seen again: after a retry, a restart
or another poll. The keys of actions are derived from it.

A class that adds no fields is not decorated as a dataclass: it inherits everything from its base.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from chatbot.actions import Action, ActionKey
from chatbot.model import ChatMessage, MessageId, Participant, Receipt, ThreadId, UserId, Value


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Event(Value):
    """The base of all events.

    Args:
        bot: the bot's own user.
        occurred_on: when it happened, UTC; for messages by the service's clock.
    """

    bot: UserId
    occurred_on: datetime

    @property
    def key(self) -> str:
        """Identifies this event among all events of its thread, or of its bot if it has no thread."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ThreadEvent(Event):
    """An event of one thread."""

    thread: ThreadId


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MessageEvent(ThreadEvent):
    """An event of a message."""

    message: ChatMessage

    @property
    def key(self) -> str:
        """Id and version of the message: each further change is an event of its own."""
        return f"{self.message.id}@{self.message.version}"


class MessageReceived(MessageEvent):
    """A person or a bot sent a message. If it was edited before the bot saw it, this has the edited content."""

    __slots__ = ()

    @property
    def key(self) -> str:
        """The message's id alone: an edit between two attempts does not make it another message."""
        return self.message.id


class MessageEdited(MessageEvent):
    """A message the bot has seen, or one older than its history, has new content."""

    __slots__ = ()


class MessageDeleted(MessageEvent):
    """A message the bot has seen, or one older than its history, was deleted; its content is gone."""

    __slots__ = ()


class SystemEvent(MessageEvent):
    """The service wrote a system message into the thread."""

    __slots__ = ()

    @property
    def key(self) -> str:
        """The id of the system message."""
        return self.message.id


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ParticipantsAdded(SystemEvent):
    """People were added to the thread. The bot itself is never among them: its own arrival is `ThreadJoined`."""

    participants: tuple[Participant, ...]
    initiator: UserId | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ParticipantsRemoved(SystemEvent):
    """People left the thread or were removed. The bot's own leaving is `ThreadLeft`."""

    participants: tuple[Participant, ...]
    initiator: UserId | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TopicUpdated(SystemEvent):
    """The topic of the thread was changed."""

    topic: str
    initiator: UserId | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ReadReceiptReceived(ThreadEvent):
    """A person has read the thread up to a message that is newer than the bot's arrival.

    The bot polls receipts only if a handler takes this event, in threads of at most 20 people, and for an hour after
    the last message of a person. If a person sends several receipts between two polls, only the latest is reported.
    """

    receipt: Receipt

    @property
    def key(self) -> str:
        """Who read what."""
        return f"receipt:{self.receipt.reader}:{self.receipt.message}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ThreadJoined(ThreadEvent):
    """The bot was added to a thread.

    Args:
        arrival: the system message that lists the bot; None if the thread does not show it.
        absent_since_ms: for a return that no message shows, when the bot found that it had left, epoch ms.
    """

    arrival: MessageId | None = None
    absent_since_ms: int | None = None

    @property
    def key(self) -> str:
        """The arrival, so that a second arrival is a second event."""
        since = "" if self.absent_since_ms is None else f"+{self.absent_since_ms}"
        return f"joined:{self.arrival or ''}{since}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ThreadLeft(ThreadEvent):
    """The bot is no longer in the thread, or the thread was deleted. The bot cannot send messages to it any more.

    Args:
        is_deleted: the thread was deleted.
        floor: the message id at which the ended stay began; it distinguishes this leaving from later ones.
    """

    is_deleted: bool = False
    floor: int = 0

    @property
    def key(self) -> str:
        """The stay that ended."""
        return f"left:{self.floor}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ActionFailed(ThreadEvent):
    """An action has failed for good: the service refused it.

    Args:
        action: the action.
        action_key: its key.
        reason: the answer of the service.
    """

    action: Action
    action_key: ActionKey
    reason: str

    @property
    def key(self) -> str:
        """The key of the failed action."""
        return f"failed:{self.action_key}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TimerFired(ThreadEvent):
    """A timer that was set with `ctx.later` is due.

    Args:
        timer: the qualified name of the function to call.
        id: the id of the timer.
        due: when it was due; `occurred_on` is later if the bot was not running then.
        payload: the arguments of the function, as JSON text.
        caused_by: the person who caused the event in which it was set.
    """

    timer: str
    id: str
    due: datetime
    payload: str = field(default="{}", repr=False)
    caused_by: UserId | None = None

    @property
    def key(self) -> str:
        """The timer and its due time."""
        return f"timer:{self.id}@{self.due.isoformat()}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ScheduleFired(Event):
    """A schedule of `@plugin.every` or `@plugin.cron` is due. The event has no thread.

    Args:
        schedule: the qualified name of the function to call.
        due: when it was due; if the bot was not running, the first time that was missed.
    """

    schedule: str
    due: datetime

    @property
    def key(self) -> str:
        """The schedule and its due time."""
        return f"schedule:{self.schedule}@{self.due.isoformat()}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class DialogTimedOut(ThreadEvent):
    """A person has not answered a dialog's question in time.

    Args:
        dialog: the id of the dialog.
        user: the person.
        step: the step of the dialog that asked.
    """

    dialog: str
    user: UserId
    step: int

    @property
    def key(self) -> str:
        """The dialog and the step that asked."""
        return f"overdue:{self.dialog}@{self.step}"


class BotStarted(Event):
    """The bot has started polling.

    If several processes share a store, only the one that serves the bot outside threads has this event: at its start,
    or when it takes this over from another process.
    """

    __slots__ = ()

    @property
    def key(self) -> str:
        """The moment of the start."""
        return f"started:{self.occurred_on.isoformat()}"


class BotStopping(Event):
    """The bot has stopped polling and will end after this event.

    If several processes share a store, only the one that serves the bot outside threads has this event: when it stops,
    or when it hands this over to another process. Then it may continue with other threads.
    """

    __slots__ = ()

    @property
    def key(self) -> str:
        """The moment of the stop."""
        return f"stopping:{self.occurred_on.isoformat()}"
