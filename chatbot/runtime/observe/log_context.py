"""What is in hand: every line of the log that is written meanwhile says so, whoever writes it.

Each bot has a `LoggedWork` as its tracer. What it knows is held in a context variable, so that it follows the work into
the tasks that a handler starts, and the log reads it from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from chatbot.actions import EditMessage, SendMessage
from chatbot.bot.monitoring import Block
from chatbot.events import Event, MessageEdited, MessageEvent, MessageReceived, ThreadEvent
from chatbot.model import MessageId, ThreadId
from chatbot.stores.records import OutboxRow

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_SAID: Final = {MessageReceived: "message.received", MessageEdited: "message.edited"}


@dataclass(frozen=True, slots=True)
class LogContext:
    """A piece of work.

    Args:
        bot: whose, by its name in bots.yaml.
        event: what is handled; None while an action of an event that is done with is carried out.
        attempt: for the how-manieth time, from 1; 0 if it is no attempt.
        handler: the qualified name of the handler that runs.
        facts: more for the log, such as the trace.
    """

    bot: str
    event: Event | None = None
    attempt: int = 0
    handler: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    def as_values(self) -> dict[str, Any]:
        """What lines of the log are bound to."""
        values: dict[str, Any] = {"bot": self.bot}
        if isinstance(self.event, ThreadEvent):
            values["thread"] = self.event.thread
        if isinstance(self.event, MessageEvent):
            values["message"] = self.event.message.id
        if self.event is not None:
            values["event_key"] = self.event.key
        if self.handler is not None:
            values["handler"] = self.handler
        if self.attempt:
            values["attempt"] = self.attempt
        return values | dict(self.facts)


IN_HAND: Final[ContextVar[LogContext | None]] = ContextVar("IN_HAND", default=None)
"""What the present task works at."""


class InHand:
    """A block in which a piece of work is in hand."""

    __slots__ = ("_token", "_work")

    def __init__(self, work: LogContext) -> None:
        self._work = work

    def __enter__(self) -> LogContext:
        self._token: Token[LogContext | None] = IN_HAND.set(self._work)
        return self._work

    def __exit__(self, *exc_info: object) -> None:
        IN_HAND.reset(self._token)


class Saying(InHand):
    """A block in which an action is carried out; what was said is logged once that has succeeded.

    Args:
        work: the action.
        log: where it is said.
        verb: what is done.
        text: with these words.
    """

    __slots__ = ("_log", "_text", "_verb")

    def __init__(self, work: LogContext, log: FilteringBoundLogger, verb: str, text: str) -> None:
        super().__init__(work)
        self._log, self._verb, self._text = log, verb, text

    def __exit__(self, *exc_info: object) -> None:
        if exc_info[0] is None:
            self._log.info(self._verb, text=self._text)
        super().__exit__(*exc_info)


class LoggedWork:
    """The tracer that binds lines of the log to the work in hand.

    Args:
        bot: the bot's name.
        texts: whether what people and the bot say is logged.
    """

    def __init__(self, bot: str, *, texts: bool = False) -> None:
        self._bot = bot
        self.log_texts(texts)

    def log_texts(self, texts: bool) -> None:
        """Log from now on what people and the bot say, or do not."""
        self._log = structlog.get_logger() if texts else None

    def looked(self, thread: ThreadId, seconds: float) -> None:
        """Let it pass: what was found will be in hand."""

    def attempt(self, event: Event, number: int) -> Block:
        """Have the event in hand."""
        block = InHand(LogContext(self._bot, event, number, facts=self._facts()))
        if self._log is not None and number == 1 and isinstance(event, MessageEvent) and type(event) in _SAID:
            with block:
                self._log.info(_SAID[type(event)], sender=event.message.sender, text=event.message.content)
        return block

    def handler(self, name: str) -> Block:
        """Have the handler in hand, too."""
        work = IN_HAND.get() or LogContext(self._bot)
        return InHand(LogContext(work.bot, work.event, work.attempt, name, work.facts))

    def commit(self) -> Block:
        """Nothing more is known."""
        return nullcontext()

    def journalled(self, rows: Sequence[OutboxRow]) -> None:
        """Let it pass: actions are known by their keys."""

    def action(self, row: OutboxRow) -> Block:
        """Have the action in hand, and log what is said, if asked to."""
        work = LogContext(self._bot, facts={"thread": row.thread, "key": row.key, **self._facts()})
        if self._log is None or not isinstance(row.action, SendMessage | EditMessage):
            return InHand(work)
        verb = "reply.sent" if isinstance(row.action, SendMessage) else "reply.edited"
        return Saying(work, self._log, verb, row.action.content)

    def receipt(self, thread: ThreadId, message: MessageId) -> Block:
        """Nothing more is known."""
        return nullcontext()

    def _facts(self) -> Mapping[str, str]:
        """What else lines are to be bound to."""
        return {}
