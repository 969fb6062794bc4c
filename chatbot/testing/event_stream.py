"""The fake event stream: events for handlers alone, with no service, no store and no waiting.

What handlers asked for comes back as values. For the whole line, from the service to the outbox, use `chat`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, overload

from chatbot.actions import Action, SendMessage
from chatbot.conversation import Conversations, Memory
from chatbot.dispatch.context import Context
from chatbot.dispatch.dispatcher import Dispatcher, HandlerSource
from chatbot.dispatch.ledger import Ledger
from chatbot.dispatch.line import Line, NoLine
from chatbot.dispatch.occasion import BotInfo, Occasion
from chatbot.dispatch.outcome import Ack, Outcome
from chatbot.events import BotStarted, BotStopping, Event, MessageReceived, ThreadJoined, ThreadLeft
from chatbot.model import Participant, ThreadId, UserId
from chatbot.stores import MemoryStore
from chatbot.testing.author import Author

E = TypeVar("E", bound=Event)

_START: Final = datetime(2026, 1, 1, 9, 0, tzinfo=UTC)
_BETWEEN: Final = timedelta(seconds=1)
_THREAD: Final = ThreadId("19:test@thread.v2")
_BOT: Final = BotInfo(name="bot", user=UserId("8:acs:test_bot"), display_name="Bot")


@dataclass(frozen=True, slots=True)
class Handled:
    """What came of a piece of the stream.

    Args:
        outcomes: what came of each event, in order.
    """

    outcomes: tuple[Outcome, ...]

    @property
    def actions(self) -> list[Action]:
        """Everything the handlers asked for, in order."""
        return [action for outcome in self.outcomes for action in outcome.actions]

    @property
    def replies(self) -> list[str]:
        """What was said, in order."""
        return [action.content for action in self.actions if isinstance(action, SendMessage)]

    @property
    def handlers(self) -> list[str | None]:
        """The qualified name of the handler that took each event; None where none did."""
        return [outcome.handler for outcome in self.outcomes]


class _People(NoLine):
    """The line of handlers in a stream: they can ask who is there; typing is not noted, streams are whole."""

    def __init__(self, people: Sequence[Participant]) -> None:
        self._people = people

    async def participants(self) -> Sequence[Participant]:
        return self._people


class EventStream:
    """Events of one thread, fed to handlers by `into`. Handlers find the bot and all its users in the thread.

    Args:
        bot: who the bot is.
        thread: where it happens.
        start: when the first event happens, UTC; the others follow a second apart.

    State and dialogs are remembered from one event to the next, and from one `into` to the next. Timers do not ring.

    Attributes:
        events: what was added and is not handled yet.
    """

    def __init__(self, *, bot: BotInfo = _BOT, thread: ThreadId = _THREAD, start: datetime = _START) -> None:
        self.bot = bot
        self.thread = thread
        self._now = start
        self._people: list[Participant] = []
        self._store = MemoryStore()
        self._clock = start.timestamp()
        self._conversations = Conversations(bot.user, self._store, clock=lambda: self._clock)
        self.events: list[Event] = []

    def user(self, display_name: str | None) -> Author:
        """Somebody new in the thread; None is somebody without a name."""
        self._people.append(Participant(UserId(f"8:acs:test_{len(self._people) + 1:08}"), display_name))
        return Author(self, self._people[-1])

    def sibling(self, display_name: str) -> Author:
        """Another bot of the same daemon, new in the thread."""
        author = self.user(display_name)
        self.bot = replace(self.bot, siblings=self.bot.siblings | {author.user})
        return author

    def itself(self) -> Author:
        """The bot: what it says must not come back to it."""
        return Author(self, Participant(self.bot.user, self.bot.display_name))

    def bot_joined(self) -> ThreadJoined:
        """The bot comes into the thread."""
        return ThreadJoined(**self.place(self.tick()))

    def bot_left(self, *, is_deleted: bool = False) -> ThreadLeft:
        """The bot leaves the thread, or the thread is deleted."""
        return ThreadLeft(is_deleted=is_deleted, **self.place(self.tick()))

    def bot_started(self) -> BotStarted:
        """The bot begins to look."""
        return BotStarted(bot=self.bot.user, occurred_on=self.tick())

    def bot_stopping(self) -> BotStopping:
        """The bot has stopped looking, and will end."""
        return BotStopping(bot=self.bot.user, occurred_on=self.tick())

    def __iadd__(self, events: Event | Iterable[Event]) -> EventStream:
        self.events += [events] if isinstance(events, Event) else events
        return self

    async def into(self, *plugins: HandlerSource, ack: Ack = Ack.HANDLED, should_raise: bool = True) -> Handled:
        """Let these plugins handle what was added since the last time.

        Args:
            plugins: as in bots.yaml, in this order.
            ack: when messages are shown as read.
            should_raise: whether a handler's failure is raised here. If not, it is its outcome's `error`, and the
                error handlers have the last word, as after the last retry.

        Raises:
            PluginError: a plugin is not as it should be.
            Exception: what a handler raised.
        """
        events, self.events = self.events, []
        outcomes: list[Outcome] = []
        line = _People([Participant(self.bot.user, self.bot.display_name), *self._people])
        async with self._store, Dispatcher(plugins, bot=self.bot, ack=ack) as dispatcher:
            for event in events:
                outcome = await self._dispatch(dispatcher, event, line)
                if outcome.error is not None and should_raise:
                    raise outcome.error
                if outcome.error is not None:
                    memory = self._conversations.open(event)
                    last_words = await dispatcher.dispatch_failure(event, outcome, memory, line=line)
                    outcome = replace(outcome, wishes=last_words.wishes, error=last_words.error or outcome.error)
                outcomes.append(outcome)
        return Handled(tuple(outcomes))

    async def _dispatch(self, dispatcher: Dispatcher, event: Event, line: Line) -> Outcome:
        self._clock = event.occurred_on.timestamp()
        outcome = await dispatcher.dispatch(event, self._conversations.open(event), line=line)
        if outcome.error is None:
            await self._conversations.commit(outcome.writes)
        return outcome

    def tick(self) -> datetime:
        """A second passes; gives the new time."""
        self._now += _BETWEEN
        return self._now

    def place(self, now: datetime) -> dict[str, Any]:
        """What every event of this stream has in common."""
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
    """A context to call a handler with, plainly: `await roll(context("/roll 2 6"), 2, 6)`.

    Args:
        happened: an event, or the text of a message from somebody named Ann.
        plugins: whose commands `ctx.commands` shall list.
        bot: who the bot is.
        people: who is in the thread, besides Ann and the bot.
    """
    ann = EventStream(bot=bot).user("Ann")
    event = ann.said(happened) if isinstance(happened, str) else happened
    dispatcher = Dispatcher(plugins, bot=bot)
    occasion = Occasion(event, bot, dispatcher.commands, dispatcher.timers)
    everybody = [Participant(bot.user, bot.display_name), ann.participant, *people]
    return Context(occasion, handler="test", ledger=Ledger(occasion, Memory(event), line=_People(everybody)))
