"""Event streams: call the handlers of plugins with events, without a service and without waiting.

An `Author` makes the events of one person or bot; `EventStream.into` feeds them to plugins and returns the handlers'
actions as values. To test the whole pipeline, from the service to the outbox, use `chat`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, overload

from chatbot.actions import Action, SendMessage
from chatbot.conversation import Conversations, UnitOfWork
from chatbot.dispatch.action_buffer import ActionBuffer
from chatbot.dispatch.binding import payload_of
from chatbot.dispatch.context import Context
from chatbot.dispatch.dispatcher import Dispatcher, HandlerSource
from chatbot.dispatch.event_view import BotInfo, EventView
from chatbot.dispatch.live import LiveChannel, NoLiveChannel
from chatbot.dispatch.outcome import Ack, Outcome, Reply
from chatbot.dispatch.parameters import read_signature
from chatbot.dispatch.source_location import qualified_name
from chatbot.errors import StateError
from chatbot.events import (
    BotStarted,
    BotStopping,
    Event,
    MessageDeleted,
    MessageEdited,
    MessageReceived,
    ParticipantsAdded,
    ParticipantsRemoved,
    ReadReceiptReceived,
    ScheduleFired,
    ThreadJoined,
    ThreadLeft,
    TimerFired,
    TopicUpdated,
)
from chatbot.model import (
    Attachment,
    ChatMessage,
    MessageId,
    MessageType,
    Participant,
    Receipt,
    ThreadId,
    UserId,
    milliseconds,
)
from chatbot.stores import MemoryStore
from chatbot.stores.writes import Write
from chatbot.testing.outcomes import detecting_interrupts, ends_the_test, raising_test_outcomes
from chatbot.testing.provided import check_provided, with_provided
from chatbot.testing.transcripts import check_plugins_fit, without_framework_frames


class Author:
    """A person or a bot in the stream's thread. Made by `EventStream.user`, `sibling` and `itself`."""

    def __init__(self, stream: EventStream, participant: Participant) -> None:
        self.participant = participant
        self._stream = stream
        self._last: ChatMessage | None = None

    @property
    def user(self) -> UserId:
        """The user id."""
        return self.participant.user

    def said(
        self,
        text: str = "",
        *,
        html: str | None = None,
        attachments: tuple[Attachment, ...] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> MessageReceived:
        """Return the event of a message of theirs, as plain text or as HTML."""
        now = self._stream.tick()
        self._last = ChatMessage(
            id=MessageId(str(milliseconds(now))),
            version=milliseconds(now),
            type=MessageType.TEXT if html is None else MessageType.HTML,
            content=text if html is None else html,
            created_on=now,
            sender=self.user,
            sender_display_name=self.participant.display_name,
            attachments=attachments,
            metadata=metadata or {},
        )
        return MessageReceived(message=self._last, **self._stream.place(now))

    def edited(self, content: str) -> MessageEdited:
        """Return the event of an edit of their last message."""
        now = self._stream.tick()
        self._last = replace(self._latest("edit"), content=content, version=milliseconds(now), edited_on=now)
        return MessageEdited(message=self._last, **self._stream.place(now))

    def deleted(self) -> MessageDeleted:
        """Return the event of the deletion of their last message."""
        now = self._stream.tick()
        gone = replace(self._latest("delete"), content="", version=milliseconds(now), edited_on=None, deleted_on=now)
        self._last = None
        return MessageDeleted(message=gone, **self._stream.place(now))

    def joined(self, *others: Author) -> ParticipantsAdded:
        """Return the event that they were added to the thread, alone or with others."""
        now, people = self._stream.tick(), tuple(author.participant for author in (self, *others))
        message = replace(self._system_message(now, MessageType.PARTICIPANT_ADDED), participants=people)
        return ParticipantsAdded(message=message, participants=people, initiator=self.user, **self._stream.place(now))

    def left(self, *others: Author) -> ParticipantsRemoved:
        """Return the event that they left the thread, alone or with others."""
        now, people = self._stream.tick(), tuple(author.participant for author in (self, *others))
        message = replace(self._system_message(now, MessageType.PARTICIPANT_REMOVED), participants=people)
        return ParticipantsRemoved(message=message, participants=people, initiator=self.user, **self._stream.place(now))

    def renamed(self, topic: str) -> TopicUpdated:
        """Return the event that they changed the topic."""
        now = self._stream.tick()
        message = replace(self._system_message(now, MessageType.TOPIC_UPDATED), topic=topic)
        return TopicUpdated(message=message, topic=topic, initiator=self.user, **self._stream.place(now))

    def read(self, message: MessageId) -> ReadReceiptReceived:
        """Return the event that they have read up to this message."""
        now = self._stream.tick()
        return ReadReceiptReceived(receipt=Receipt(self.user, message, now), **self._stream.place(now))

    def _latest(self, verb: str) -> ChatMessage:
        if self._last is None:
            msg = f"{self.participant.display_name} has said nothing to {verb}; put a said(…) before it"
            raise StateError(msg)
        return self._last

    def _system_message(self, now: datetime, type: MessageType) -> ChatMessage:
        return ChatMessage(
            id=MessageId(str(milliseconds(now))),
            version=milliseconds(now),
            type=type,
            created_on=now,
            initiator=self.user,
        )


__tracebackhide__ = True  # pytest: what is of interest is the author's test and code

E = TypeVar("E", bound=Event)

_START: Final = datetime(2026, 1, 1, 9, 0, tzinfo=UTC)
_BETWEEN: Final = timedelta(seconds=1)
_THREAD: Final = ThreadId("19:test@thread.v2")
_BOT: Final = BotInfo(name="bot", user=UserId("8:acs:test_bot"), display_name="Bot")


@dataclass(frozen=True, slots=True)
class Handled:
    """What handlers did with events.

    Args:
        outcomes: the outcome of each event, in order.
    """

    outcomes: tuple[Outcome, ...]

    @property
    def actions(self) -> list[Action]:
        """All actions of the handlers, in order."""
        return [action for outcome in self.outcomes for action in outcome.actions]

    @property
    def replies(self) -> list[str]:
        """The texts of all sent messages, in order."""
        return [action.content for action in self.actions if isinstance(action, SendMessage)]

    @property
    def handlers(self) -> list[str | None]:
        """The qualified name of the handler of each event; None where there was none."""
        return [outcome.handler for outcome in self.outcomes]


class _People(NoLiveChannel):
    """The live channel of a stream: lists participants, ignores typing, and sends streams as one message."""

    def __init__(self, people: Sequence[Participant]) -> None:
        self._people = people

    async def participants(self) -> Sequence[Participant]:
        return self._people


class EventStream:
    """Events of one thread, fed to handlers by `into`. Handlers find the bot and all its users in the thread.

    Args:
        bot: the bot.
        thread: the thread.
        start: time of the start, UTC; events follow a second apart.

    State, dialogs and timers are kept from one event to the next, and from one `into` to the next. Timers, schedules
    and timeouts of dialogs that are due happen before the next event and at the end of `into`. `advance` moves the
    clock.

    Attributes:
        events: events that were added and are not handled yet.
    """

    def __init__(self, *, bot: BotInfo = _BOT, thread: ThreadId = _THREAD, start: datetime = _START) -> None:
        self.bot = bot
        self.thread = thread
        self._now = start
        self._people: list[Participant] = []
        self._store = MemoryStore()
        self._clock_ms = milliseconds(start)
        # Half a millisecond more, so that none is lost on the way through seconds and back.
        self._conversations = Conversations(bot.user, self._store, clock=lambda: (self._clock_ms + 0.5) / 1000)
        self.events: list[Event] = []

    def user(self, display_name: str | None) -> Author:
        """Add a person to the thread; None is a person without a name."""
        self._people.append(Participant(UserId(f"8:acs:test_{len(self._people) + 1:08}"), display_name))
        return Author(self, self._people[-1])

    def sibling(self, display_name: str) -> Author:
        """Add another bot of the same daemon to the thread."""
        author = self.user(display_name)
        self.bot = replace(self.bot, siblings=self.bot.siblings | {author.user})
        return author

    def itself(self) -> Author:
        """Return the bot as an author, to test that it does not handle its own messages."""
        return Author(self, Participant(self.bot.user, self.bot.display_name))

    def bot_joined(self) -> ThreadJoined:
        """Return the event that the bot was added to the thread."""
        return ThreadJoined(**self.place(self.tick()))

    def bot_left(self, *, is_deleted: bool = False) -> ThreadLeft:
        """Return the event that the bot left the thread, or that the thread was deleted."""
        return ThreadLeft(is_deleted=is_deleted, **self.place(self.tick()))

    def bot_started(self) -> BotStarted:
        """Return the event of the bot's start."""
        return BotStarted(bot=self.bot.user, occurred_on=self.tick())

    def bot_stopping(self) -> BotStopping:
        """Return the event that the bot is stopping."""
        return BotStopping(bot=self.bot.user, occurred_on=self.tick())

    def timer_fired(self, timer: Callable[..., Coroutine[Any, Any, Reply]], /, **payload: object) -> TimerFired:
        """Return the event of a timer that is due, as if `ctx.later(…, timer, **payload)` had set it.

        Args:
            timer: the `@plugin.timer` function to call.
            payload: its arguments, besides state and what is provided.

        Raises:
            PluginError: the function cannot be a timer.
            TypeError: the function does not take these arguments.
            CannotStore: an argument is not of its declared type.
        """
        now, taken = self.tick(), read_signature(timer, TimerFired, "timer").parameters
        takes = payload_of(timer, [parameter for parameter in taken if parameter.name in payload])
        return TimerFired(
            timer=qualified_name(timer), id="test", due=now, payload=takes.encode(payload), **self.place(now)
        )

    def schedule_fired(self, schedule: Callable[..., Coroutine[Any, Any, Reply]], /) -> ScheduleFired:
        """Return the event of a due `@plugin.every` or `@plugin.cron`; `advance` makes these by itself."""
        now = self.tick()
        return ScheduleFired(bot=self.bot.user, occurred_on=now, schedule=qualified_name(schedule), due=now)

    def advance(self, duration: timedelta | None = None, **units: float) -> None:
        """Advance the stream's clock: what follows happens that much later.

        Args:
            duration: how long; or in the units of `timedelta`: `advance(days=1, hours=2)`.
            units: keyword arguments of `timedelta`.
        """
        self._now += (duration or timedelta()) + timedelta(**units)

    def __iadd__(self, events: Event | Iterable[Event]) -> EventStream:
        self.events += [events] if isinstance(events, Event) else events
        return self

    async def into(
        self,
        *plugins: HandlerSource,
        ack: Ack = Ack.HANDLED,
        should_raise: bool = True,
        provide: Mapping[Any, object] | None = None,
    ) -> Handled:
        """Let plugins handle the events added since the last call, and what was due meanwhile.

        Args:
            plugins: as in bots.yaml, in this order.
            ack: when read receipts are sent.
            should_raise: raise a handler's failure here. If not, it is the `error` of the outcome, and error handlers
                run, as after the last retry.
            provide: objects by type, such as `{Api: FakeApi()}`, in place of what the plugins' providers make.

        Raises:
            PluginError: a plugin cannot be used.
            Exception: what a handler raised.
        """
        events, self.events = self.events, []
        outcomes: list[Outcome] = []
        sources = with_provided(plugins, provide or {}, "into()")
        check_provided(sources, provide or {})
        check_plugins_fit(sources)
        line = _People([Participant(self.bot.user, self.bot.display_name), *self._people])
        dispatcher = Dispatcher(sources, bot=self.bot, ack=ack, is_fatal=ends_the_test)
        with detecting_interrupts(), raising_test_outcomes():
            async with self._store, dispatcher:
                await self._conversations.reschedule(dispatcher.schedules)
                for event, writes in self._timeline(events):
                    outcome = await dispatcher.dispatch(event, self._conversations.unit_of_work(event), live=line)
                    writes += outcome.writes
                    if outcome.error is not None:
                        if should_raise:
                            raise without_framework_frames(outcome.error)
                        outcome = await self._given_up(event, outcome, writes, dispatcher, line)
                    await self._conversations.commit(writes)
                    outcomes.append(outcome)
        return Handled(tuple(outcomes))

    async def _given_up(
        self, event: Event, failed: Outcome, writes: list[Write], dispatcher: Dispatcher, live: LiveChannel
    ) -> Outcome:
        """Run the error handlers, and return what they did, with the error of the handler unless one of them failed."""
        unit_of_work = self._conversations.unit_of_work(event)
        outcome = await dispatcher.dispatch_failure(event, failed, unit_of_work, live=live)
        writes += outcome.writes
        return failed._replace(
            keyed_actions=outcome.keyed_actions, error=outcome.error or failed.error, receipt=outcome.receipt
        )

    def _timeline(self, events: Sequence[Event]) -> Iterator[tuple[Event, list[Write]]]:
        """Yield events in order of time, each with the writes to commit with it."""
        for event in events:
            moment = milliseconds(event.occurred_on)
            yield from self._due(moment)
            self._clock_ms = max(self._clock_ms, moment)
            yield event, []
        yield from self._due(milliseconds(self._now))

    def _due(self, until_ms: int) -> Iterator[tuple[Event, list[Write]]]:
        """Yield what is due until then, in order of time; handling one may add more that is due."""
        while True:
            self._conversations.collect_due()
            for thread in (self.thread, None):
                while (due := self._conversations.first_due(thread)) is not None:
                    yield due
            next_ms = self._conversations.next_due_ms()
            if next_ms is None or next_ms > until_ms:
                return
            self._clock_ms = max(self._clock_ms, next_ms)

    def tick(self) -> datetime:
        """Advance the clock by a second and return the new time."""
        self._now += _BETWEEN
        return self._now

    def place(self, now: datetime) -> dict[str, Any]:
        """Return the fields that all events of this stream share."""
        return {"bot": self.bot.user, "thread": self.thread, "occurred_on": now}


@overload
def context(
    happened: str = "", *plugins: HandlerSource, bot: BotInfo = _BOT, people: Iterable[Participant] = ()
) -> Context[MessageReceived]: ...


@overload
def context(
    happened: E, *plugins: HandlerSource, bot: BotInfo = _BOT, people: Iterable[Participant] = ()
) -> Context[E]: ...


def context(
    happened: str | Event = "", *plugins: HandlerSource, bot: BotInfo = _BOT, people: Iterable[Participant] = ()
) -> Context[Any]:
    """Return a context to call a handler with directly: `await roll(context("/roll 2 6"), 2, 6)`.

    Args:
        happened: an event, or the text of a message from somebody named Ann.
        plugins: their commands are in `ctx.commands`.
        bot: the bot.
        people: participants of the thread besides Ann and the bot.
    """
    ann = EventStream(bot=bot).user("Ann")
    event = ann.said(happened) if isinstance(happened, str) else happened
    dispatcher = Dispatcher(plugins, bot=bot)
    view = EventView(event, bot, dispatcher.commands, dispatcher.timers)
    everybody = [Participant(bot.user, bot.display_name), ann.participant, *people]
    return Context(view, handler="test", buffer=ActionBuffer(view, UnitOfWork(event), live=_People(everybody)))
