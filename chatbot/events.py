"""What happened: frozen facts that pollers make and handlers receive.

Every event knows its bot, and a `key` that is the same whenever the same thing is seen again: after a retry, a
restart, or a second look. Reply keys are built on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from chatbot.actions import Action, ActionKey
from chatbot.model import ChatMessage, MessageId, Participant, Receipt, ThreadId, UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a bot; the base of all events.

    Args:
        bot: the bot's own user.
        occurred_on: when, UTC; for messages by the service's clock.
    """

    bot: UserId
    occurred_on: datetime

    @property
    def key(self) -> str:
        """What identifies this event among all events of its thread (or of its bot)."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadEvent(Event):
    """Something that happened in one thread."""

    thread: ThreadId


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageEvent(ThreadEvent):
    """Something that happened to a message."""

    message: ChatMessage

    @property
    def key(self) -> str:
        """Id and version of the message: each further change is an event of its own."""
        return f"{self.message.id}@{self.message.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReceived(MessageEvent):
    """Somebody said something. If it was edited before the bot saw it, this carries the edited content."""

    @property
    def key(self) -> str:
        """The message's id alone: an edit between two attempts does not make it another message."""
        return self.message.id


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageEdited(MessageEvent):
    """A message the bot has seen, or one older than its history, has new content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDeleted(MessageEvent):
    """A message the bot has seen, or one older than its history, was taken back; its content is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemEvent(MessageEvent):
    """Something the service itself wrote into the thread."""

    @property
    def key(self) -> str:
        """The id of the system message."""
        return self.message.id


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantsAdded(SystemEvent):
    """People came into the thread. The bot itself is never among them: its own arrival is `ThreadJoined`."""

    participants: tuple[Participant, ...]
    initiator: UserId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantsRemoved(SystemEvent):
    """People left the thread, or were removed. The bot's own going is `ThreadLeft`."""

    participants: tuple[Participant, ...]
    initiator: UserId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicUpdated(SystemEvent):
    """The thread has another topic."""

    topic: str
    initiator: UserId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReceiptReceived(ThreadEvent):
    """Somebody has read up to a message, of those since the bot came.

    Asked of the service only if a handler wants it, in threads of at most 20 people, and for an hour after somebody
    has spoken there; of several that somebody sends meanwhile, the latest is told.
    """

    receipt: Receipt

    @property
    def key(self) -> str:
        """Who read what."""
        return f"receipt:{self.receipt.reader}:{self.receipt.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadJoined(ThreadEvent):
    """The bot is in a thread it was not in before.

    Args:
        arrival: the system message that lists the bot; None where the thread does not show it.
        absent_since_ms: where no message tells of a return, since when the bot was found to be out, epoch ms.
    """

    arrival: MessageId | None = None
    absent_since_ms: int | None = None

    @property
    def key(self) -> str:
        """The arrival, so that a second arrival is a second event."""
        since = "" if self.absent_since_ms is None else f"+{self.absent_since_ms}"
        return f"joined:{self.arrival or ''}{since}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadLeft(ThreadEvent):
    """The bot is no longer in the thread, or the thread was deleted. Nothing can be said there any more.

    Args:
        is_deleted: the thread is gone, rather than the bot from it.
        floor: where the ended stay had begun; tells one leaving from the next.
    """

    is_deleted: bool = False
    floor: int = 0

    @property
    def key(self) -> str:
        """The stay that ended."""
        return f"left:{self.floor}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionFailed(ThreadEvent):
    """Something the bot was asked to do will never be done: the service refused it.

    Args:
        action: what was asked for.
        action_key: the key it was asked under.
        reason: what the service said.
    """

    action: Action
    action_key: ActionKey
    reason: str

    @property
    def key(self) -> str:
        """The wish that failed."""
        return f"failed:{self.action_key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired(ThreadEvent):
    """The time has come that a handler set with `ctx.later`.

    Args:
        timer: the qualified name of the function to call.
        id: which of its timers.
        due: when it was to be; `occurred_on` is later where the bot was not running.
        payload: JSON text; what the function is called with.
        caused_by: whose doing the event was that it was set for.
    """

    timer: str
    id: str
    due: datetime
    payload: str = field(default="{}", repr=False)
    caused_by: UserId | None = None

    @property
    def key(self) -> str:
        """Which timer, and when it was to be."""
        return f"timer:{self.id}@{self.due.isoformat()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleFired(Event):
    """The time has come that `@plugin.every` or `@plugin.cron` says. It happens in no thread.

    Args:
        schedule: the qualified name of the function to call.
        due: when it was to be: after a time without the bot, the first time that was missed.
    """

    schedule: str
    due: datetime

    @property
    def key(self) -> str:
        """Which schedule, and when it was to be."""
        return f"schedule:{self.schedule}@{self.due.isoformat()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DialogTimedOut(ThreadEvent):
    """Somebody has not answered in time.

    Args:
        dialog: which dialog waits.
        user: for whom.
        step: for the answer to which step of it.
    """

    dialog: str
    user: UserId
    step: int

    @property
    def key(self) -> str:
        """Which step of which dialog."""
        return f"overdue:{self.dialog}@{self.step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BotStarted(Event):
    """The bot has begun to look."""

    @property
    def key(self) -> str:
        """The moment of the start."""
        return f"started:{self.occurred_on.isoformat()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BotStopping(Event):
    """The bot has stopped looking and will end after this event."""

    @property
    def key(self) -> str:
        """The moment of the stop."""
        return f"stopping:{self.occurred_on.isoformat()}"
