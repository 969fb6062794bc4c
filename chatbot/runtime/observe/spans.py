"""Export a bot's work as OpenTelemetry spans: one trace from the poll that showed an event to its replies.

```
MessageReceived            from the poll to the commit; a further attempt is a further such span of the same trace
├── poll                   the poll of the thread, until the event was seen
├── plugins.dice.roll      each handler that ran
├── commit                 the transaction with all results of the event
├── SendMessage            each action, when it is carried out: after the commit, and once quotas allow it
└── receipt                the read receipt
```

Spans contain no message texts, display names or secrets: only ids, handler names and error classes. Actions left by an
earlier process start traces of their own. This module is imported only if traces are exported.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TracerProvider

from chatbot.bot.monitoring import Block
from chatbot.events import Event, MessageEvent, ThreadEvent
from chatbot.model import MessageId, ThreadId
from chatbot.runtime.observe.log_context import LoggedWork
from chatbot.stores.records import OutboxRow

MAX_TRACES: Final = 10_000
"""Number of events and actions whose trace can be continued. Work of older ones starts a new trace."""

_NANOSECONDS: Final = 1_000_000_000


class SpannedWork(LoggedWork):
    """Tracer that creates spans, and adds the trace id to the log context of `LoggedWork`.

    Args:
        bot: Name of the bot.
        provider: Creates the spans.
        texts: Log the texts of messages and replies. Spans never contain them.
    """

    def __init__(self, bot: str, provider: TracerProvider, *, texts: bool = False) -> None:
        super().__init__(bot, texts=texts)
        self._tracer = provider.get_tracer("chatbot")
        self._polls: dict[ThreadId, tuple[int, int]] = {}
        self._traces: OrderedDict[tuple[str, ...], SpanContext] = OrderedDict()

    def polled(self, thread: ThreadId, seconds: float) -> None:
        """Record start and end of a poll: the trace of an event starts with it."""
        now = time.time_ns()
        self._polls[thread] = (now - int(seconds * _NANOSECONDS), now)

    @contextmanager
    def attempt(self, event: Event, number: int) -> Iterator[object]:
        """Start the trace of the event, or continue it."""
        thread = event.thread if isinstance(event, ThreadEvent) else ThreadId("")
        known = self._parent("event", thread, event.key)
        poll = self._polls.get(thread) if isinstance(event, MessageEvent) and number == 1 else None
        attributes: dict[str, str | int] = {
            "chatbot.bot": self._bot,
            "chatbot.event": type(event).__name__,
            "chatbot.event_key": event.key,
            "chatbot.attempt": number,
            **({"chatbot.thread": thread} if thread else {}),
            **({"chatbot.message": event.message.id} if isinstance(event, MessageEvent) else {}),
        }
        name, begun = type(event).__name__, poll[0] if poll else None
        with self._spanning(name, attributes, parent=known, kind=SpanKind.CONSUMER, begun=begun) as span:
            if known is None:
                self._remember(("event", thread, event.key), span.get_span_context())
            if poll:
                self._tracer.start_span("poll", start_time=poll[0]).end(poll[1])
            with super().attempt(event, number):
                yield span

    @contextmanager
    def handler(self, name: str) -> Iterator[object]:
        """Start a span with the name of the handler."""
        with self._spanning(name, {"chatbot.handler": name}) as span, super().handler(name):
            yield span

    def commit(self) -> Block:
        """Start a span if a trace is active."""
        return self._spanning("commit", {}) if _current().is_valid else nullcontext()

    def journalled(self, rows: Sequence[OutboxRow]) -> None:
        """Remember the current trace for the spans of these actions."""
        for row in rows:
            self._remember(("action", row.key), _current())

    @contextmanager
    def action(self, row: OutboxRow) -> Iterator[object]:
        """Start a span with the name of the action, in the trace of the event that caused it."""
        name = type(row.action).__name__
        attributes = {"chatbot.bot": self._bot, "chatbot.thread": row.thread, "chatbot.key": row.key}
        parent = self._parent("action", row.key)
        with self._spanning(name, attributes, parent=parent, kind=SpanKind.PRODUCER) as span, super().action(row):
            yield span

    def receipt(self, thread: ThreadId, message: MessageId) -> Block:
        """Start a span in the trace of the message that the receipt is for."""
        attributes = {"chatbot.bot": self._bot, "chatbot.thread": thread, "chatbot.message": message}
        parent = self._parent("event", thread, message)
        return self._spanning("receipt", attributes, parent=parent, kind=SpanKind.PRODUCER)

    @contextmanager
    def _spanning(
        self,
        name: str,
        attributes: Mapping[str, str | int],
        *,
        parent: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        begun: int | None = None,
    ) -> Iterator[Span]:
        """Wrap a block in a span. Only the class of an error is recorded: its text may quote people."""
        span = self._tracer.start_span(name, parent, kind=kind, attributes=dict(attributes), start_time=begun)
        try:
            # OpenTelemetry would record the text of the exception, which may quote people.
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield span
        except BaseException as error:
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            span.end()

    def _facts(self) -> Mapping[str, str]:
        context = _current()
        return {"trace": trace.format_trace_id(context.trace_id)} if context.is_valid else {}

    def _remember(self, key: tuple[str, ...], context: SpanContext) -> None:
        if context.is_valid:
            self._traces[key] = context
            self._traces.move_to_end(key)
            if len(self._traces) > MAX_TRACES:
                self._traces.popitem(last=False)

    def _parent(self, *key: str) -> Context | None:
        known = self._traces.get(key)
        return None if known is None else trace.set_span_in_context(NonRecordingSpan(known))


def _current() -> SpanContext:
    return trace.get_current_span().get_span_context()
