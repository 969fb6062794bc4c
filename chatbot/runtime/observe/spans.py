"""The work of a bot as OpenTelemetry's spans: one trace from the look that showed an event to the replies that it made.

```
MessageReceived            from the look to the commit; another attempt is another such span of the same trace
├── look                   reading the thread, until the event was seen
├── plugins.dice.roll      each handler that ran
├── commit                 the transaction with everything that came of it
├── SendMessage            each action, when it was carried out: after the commit, and after quotas allowed it
└── receipt                the read receipt
```

What people said, display names and secrets are in no span: only ids, names of handlers and classes of errors. Actions
that an earlier process left are traces of their own. This module is imported only where traces are exported.
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

REMEMBERED: Final = 10_000
"""So many events and actions whose traces may go on are remembered; what comes of older ones begins a new trace."""

_NANOSECONDS: Final = 1_000_000_000


class SpannedWork(LoggedWork):
    """The tracer that makes spans, beside what `LoggedWork` does; lines of the log name the trace, too.

    Args:
        bot: the bot's name.
        provider: makes the spans.
        texts: whether what people and the bot say is logged; it is in no span.
    """

    def __init__(self, bot: str, provider: TracerProvider, *, texts: bool = False) -> None:
        super().__init__(bot, texts=texts)
        self._tracer = provider.get_tracer("chatbot")
        self._looks: dict[ThreadId, tuple[int, int]] = {}
        self._traces: OrderedDict[tuple[str, ...], SpanContext] = OrderedDict()

    def looked(self, thread: ThreadId, seconds: float) -> None:
        """Keep when the look began and when it showed something: an event's trace begins with it."""
        now = time.time_ns()
        self._looks[thread] = (now - int(seconds * _NANOSECONDS), now)

    @contextmanager
    def attempt(self, event: Event, number: int) -> Iterator[object]:
        """Begin the event's trace, or go on with it."""
        thread = event.thread if isinstance(event, ThreadEvent) else ThreadId("")
        known = self._parent("event", thread, event.key)
        look = self._looks.get(thread) if isinstance(event, MessageEvent) and number == 1 else None
        attributes: dict[str, str | int] = {
            "chatbot.bot": self._bot,
            "chatbot.event": type(event).__name__,
            "chatbot.event_key": event.key,
            "chatbot.attempt": number,
            **({"chatbot.thread": thread} if thread else {}),
            **({"chatbot.message": event.message.id} if isinstance(event, MessageEvent) else {}),
        }
        name, begun = type(event).__name__, look[0] if look else None
        with self._spanning(name, attributes, parent=known, kind=SpanKind.CONSUMER, begun=begun) as span:
            if known is None:
                self._remember(("event", thread, event.key), span.get_span_context())
            if look:
                self._tracer.start_span("look", start_time=look[0]).end(look[1])
            with super().attempt(event, number):
                yield span

    @contextmanager
    def handler(self, name: str) -> Iterator[object]:
        """A span of the handler's name."""
        with self._spanning(name, {"chatbot.handler": name}) as span, super().handler(name):
            yield span

    def commit(self) -> Block:
        """A span, if there is a trace that it belongs to."""
        return self._spanning("commit", {}) if _current().is_valid else nullcontext()

    def journalled(self, rows: Sequence[OutboxRow]) -> None:
        """Remember the trace for when the actions are carried out."""
        for row in rows:
            self._remember(("action", row.key), _current())

    @contextmanager
    def action(self, row: OutboxRow) -> Iterator[object]:
        """A span of the action's name, in the trace of the event that it came of."""
        name = type(row.action).__name__
        attributes = {"chatbot.bot": self._bot, "chatbot.thread": row.thread, "chatbot.key": row.key}
        parent = self._parent("action", row.key)
        with self._spanning(name, attributes, parent=parent, kind=SpanKind.PRODUCER) as span, super().action(row):
            yield span

    def receipt(self, thread: ThreadId, message: MessageId) -> Block:
        """A span in the trace of the message that it is for."""
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
        """A span around a block; an error that passes is told by its class alone."""
        span = self._tracer.start_span(name, parent, kind=kind, attributes=dict(attributes), start_time=begun)
        try:
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
            if len(self._traces) > REMEMBERED:
                self._traces.popitem(last=False)

    def _parent(self, *key: str) -> Context | None:
        known = self._traces.get(key)
        return None if known is None else trace.set_span_in_context(NonRecordingSpan(known))


def _current() -> SpanContext:
    return trace.get_current_span().get_span_context()
