"""Bind log lines to the work in progress: bot, thread, message, event, attempt and handler.

Each bot has a `LoggedWork` as its tracer. The context is held in a context variable, so it carries over to tasks that a
handler starts, and applies to every log line written meanwhile, including those of libraries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from chatbot.actions import EditMessage, SendMessage
from chatbot.bot.monitoring import Block, Considered
from chatbot.events import Event, MessageEdited, MessageEvent, MessageReceived, ThreadEvent
from chatbot.model import MessageId, ThreadId
from chatbot.stores.records import OutboxRow

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_MESSAGE_EVENTS: Final = {MessageReceived: "message.received", MessageEdited: "message.edited"}


@dataclass(frozen=True, slots=True)
class LogContext:
    """The work of the current task, as log fields.

    Args:
        bot: Name of the bot in bots.yaml.
        event: The event being handled; None while an action is carried out after its event.
        attempt: Number of the attempt, from 1; 0 outside attempts.
        handler: Qualified name of the running handler.
        facts: Further log fields, such as the trace id.
    """

    bot: str
    event: Event | None = None
    attempt: int = 0
    handler: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    def as_values(self) -> dict[str, Any]:
        """Return the log fields."""
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


CURRENT_WORK: Final[ContextVar[LogContext | None]] = ContextVar("CURRENT_WORK", default=None)
"""Log context of the current task."""


class BoundContext:
    """Block that sets the log context."""

    __slots__ = ("_token", "_work")

    def __init__(self, work: LogContext) -> None:
        self._work = work

    def __enter__(self) -> LogContext:
        self._token: Token[LogContext | None] = CURRENT_WORK.set(self._work)
        return self._work

    def __exit__(self, *exc_info: object) -> None:
        CURRENT_WORK.reset(self._token)


class LoggedText(BoundContext):
    """Block around an action that logs the sent text if the action succeeds.

    Args:
        work: The log context of the action.
        log: The logger.
        verb: The name of the log event.
        text: The sent text.
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
    """Tracer that sets the log context of a bot's work.

    Args:
        bot: Name of the bot.
        texts: Log the texts of messages and replies.
    """

    def __init__(self, bot: str, *, texts: bool = False) -> None:
        self.considered: Considered | None = None
        self._bot = bot
        self.log_texts(texts)

    def log_texts(self, texts: bool) -> None:
        """Switch the logging of message and reply texts on or off."""
        self._log = structlog.get_logger() if texts else None

    def polled(self, thread: ThreadId, seconds: float) -> None:
        """Do nothing: the log context is set per event."""

    def attempt(self, event: Event, number: int) -> Block:
        """Set the event as log context; with texts on, log its message at the first attempt."""
        block = BoundContext(LogContext(self._bot, event, number, facts=self._facts()))
        if self._log is not None and number == 1 and isinstance(event, MessageEvent) and type(event) in _MESSAGE_EVENTS:
            with block:
                self._log.info(_MESSAGE_EVENTS[type(event)], sender=event.message.sender, text=event.message.content)
        return block

    def handler(self, name: str) -> Block:
        """Add the handler to the log context."""
        work = CURRENT_WORK.get() or LogContext(self._bot)
        return BoundContext(LogContext(work.bot, work.event, work.attempt, name, work.facts))

    def commit(self) -> Block:
        """Return a block that does nothing: a commit adds no log fields."""
        return nullcontext()

    def journalled(self, rows: Sequence[OutboxRow]) -> None:
        """Do nothing: log lines identify actions by their keys."""

    def action(self, row: OutboxRow) -> Block:
        """Set the action as log context; with texts on, log the sent text."""
        work = LogContext(self._bot, facts={"thread": row.thread, "key": row.key, **self._facts()})
        if self._log is None or not isinstance(row.action, SendMessage | EditMessage):
            return BoundContext(work)
        verb = "reply.sent" if isinstance(row.action, SendMessage) else "reply.edited"
        return LoggedText(work, self._log, verb, row.action.content)

    def receipt(self, thread: ThreadId, message: MessageId) -> Block:
        """Return a block that does nothing: a receipt adds no log fields."""
        return nullcontext()

    def _facts(self) -> Mapping[str, str]:
        """Return further log fields; subclasses add the trace."""
        return {}
