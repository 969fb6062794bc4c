"""Observations, heartbeats and tracing of a bot, for health checks, metrics, logs and traces.

Monitoring never changes what a bot does.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, Protocol

from msgspec import Struct

from chatbot.dispatch import Outcome
from chatbot.dispatch.handler import Handler
from chatbot.errors import kind_of
from chatbot.events import Event, ThreadEvent
from chatbot.model import MessageId, ThreadId
from chatbot.stores.records import OutboxRow


class EventNoticed(Struct, frozen=True):
    """A poll has shown an event for the handlers.

    Args:
        latency: Seconds since the change on the service; the backlog after a restart counts with its full age.
    """

    latency: float


class EventHandled(Struct, frozen=True):
    """The handlers of an event have run.

    Args:
        handler: Qualified name of the handler that answered; None if none did.
        seconds: Duration, including the wait for a free handler slot.
        error: Class of the error; None on success.
    """

    handler: str | None
    seconds: float
    error: str | None = None


class HandlerSlow(Struct, frozen=True):
    """A handler has run for more than a minute and has not ended.

    Args:
        handler: Qualified name of the handler.
        is_abandoned: The handler did not end after it was canceled.
    """

    handler: str
    is_abandoned: bool = False


class EventDeadLettered(Struct, frozen=True):
    """An event failed for good and became a dead letter."""


class DoubleHealed(Struct, frozen=True):
    """A duplicate reply was found, and its removal is recorded."""


Observation = EventNoticed | EventHandled | HandlerSlow | EventDeadLettered | DoubleHealed


class Observer(Protocol):
    """Receives observations."""

    def observe(self, fact: Observation) -> None:
        """Record an observation. Must be quick and must not raise: it is called in the middle of the work."""
        ...


class NoObserver:
    """Observer that ignores everything."""

    def observe(self, fact: Observation) -> None:
        """Ignore the observation."""


THREAD_LIST: Final = "thread list"
"""Name of the poller of the thread list; the other pollers have the names of their threads."""

STALLED_SECONDS: Final = 300.0
"""Seconds overdue after which a poller is stalled: a call timeout, the longest back-off and a long list walk."""


class Heartbeats:
    """Heartbeats of one bot's pollers: each has a deadline by which it must report again.

    A failing service does not make a poller late: a poller that keeps retrying is alive. Neither does a running
    handler, whose time limit is up to its author; running handlers are listed separately.

    All times are arguments, in seconds of one monotonic clock.
    """

    __slots__ = ("_deadlines", "_running", "_slow_handlers", "_waiting")

    def __init__(self) -> None:
        self._deadlines: dict[str, float] = {}
        self._running: dict[str, tuple[str, float]] = {}
        self._slow_handlers: dict[str, str] = {}
        self._waiting: set[str] = set()

    def set_deadline(self, poller: str, until: float) -> None:
        """Set the time by which a poller reports again."""
        self._deadlines[poller] = until

    def remove(self, poller: str) -> None:
        """Remove a poller that has finished its turn."""
        self._deadlines.pop(poller, None)

    def mark_waiting(self, poller: str) -> None:
        """Mark a poller as waiting for a handler slot. It is not late: a restart would not shorten the wait."""
        self._waiting.add(poller)

    def handler_started(self, poller: str, event: str, now: float) -> None:
        """Record that a handler runs on this kind of event."""
        self._waiting.discard(poller)
        self._running[poller] = (event, now)

    def set_slow_handler(self, poller: str, handler: str) -> None:
        """Record the slow handler of a poller, with its place in the code."""
        self._slow_handlers[poller] = handler

    def slow_handler_of(self, poller: str) -> str:
        """Return the slow handler of a poller; "" if there is none."""
        return self._slow_handlers.get(poller, "")

    def handler_ended(self, poller: str, now: float) -> None:
        """Record that the handler has ended, or that the wait for a slot is over. The poller's time starts now."""
        self._waiting.discard(poller)
        self._slow_handlers.pop(poller, None)
        self._running.pop(poller, None)
        if poller in self._deadlines:
            self._deadlines[poller] = now

    def overdue(self, now: float) -> dict[str, float]:
        """Return the overdue pollers, with the seconds by which they are overdue."""
        return {
            poller: now - promised
            for poller, promised in self._deadlines.items()
            if promised < now and poller not in self._running and poller not in self._waiting
        }

    def running(self, now: float) -> dict[str, tuple[str, float]]:
        """Return the running handlers by poller: the kind of event, and for how many seconds."""
        return {poller: (event, now - started_at) for poller, (event, started_at) in self._running.items()}


class Monitor:
    """Keeps the heartbeats of a bot and reports to its observer.

    Args:
        observer: Receives the observations.
    """

    __slots__ = ("_observer", "heartbeats")

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.heartbeats = Heartbeats()

    def thread_list_polled(self, pause: float = 0.0) -> None:
        """Record a poll of the thread list; the next one follows after this pause, in seconds."""
        self.heartbeats.set_deadline(THREAD_LIST, get_running_loop().time() + pause)

    def lane_at_work(self, thread: ThreadId) -> None:
        """Record activity of a thread's lane."""
        self.heartbeats.set_deadline(thread, get_running_loop().time())

    def lane_ended(self, thread: ThreadId) -> None:
        """Record the end of a lane's turn."""
        self.heartbeats.remove(thread)

    @contextmanager
    def waiting(self, event: Event) -> Iterator[None]:
        """Mark the event as waiting for a handler slot while the block runs."""
        place = event.thread if isinstance(event, ThreadEvent) else ""
        self.heartbeats.mark_waiting(place)
        try:
            yield
        finally:
            self.heartbeats.handler_ended(place, get_running_loop().time())

    def handling(self, event: Event) -> AbstractContextManager[None]:
        """Mark the event's handlers as running while the block runs."""
        return _Handling(self.heartbeats, event)

    def handled(self, outcome: Outcome, started_at: float) -> None:
        """Report the outcome of the handlers, which ran or waited to run since `started_at`."""
        error = kind_of(outcome.error) if outcome.error is not None else None
        self._observer.observe(EventHandled(outcome.handler, get_running_loop().time() - started_at, error))

    def slow(self, event: Event, handler: str, place: str) -> None:
        """Report a handler that has run for more than a minute; `place` is its current line of code."""
        self.heartbeats.set_slow_handler(event.thread if isinstance(event, ThreadEvent) else "", f"{handler} ({place})")
        self._observer.observe(HandlerSlow(handler))

    def abandoned(self, handler: str) -> None:
        """Report a handler that did not end after it was canceled."""
        self._observer.observe(HandlerSlow(handler, is_abandoned=True))

    def event_noticed(self, latency: float) -> None:
        """Report an event; `latency` is its age in seconds."""
        self._observer.observe(EventNoticed(max(0.0, latency)))

    def healed(self) -> None:
        """Report a duplicate reply whose removal is recorded."""
        self._observer.observe(DoubleHealed())

    def dead_lettered(self) -> None:
        """Report an event that became a dead letter."""
        self._observer.observe(EventDeadLettered())


class _Handling(AbstractContextManager[None]):
    """See `Monitor.handling`; a class, because a generator in its place would cost every event two microseconds."""

    __slots__ = ("_event", "_heartbeats", "_place")

    def __init__(self, heartbeats: Heartbeats, event: Event) -> None:
        self._heartbeats = heartbeats
        self._event = event
        self._place = event.thread if isinstance(event, ThreadEvent) else ""

    def __enter__(self) -> None:
        self._heartbeats.handler_started(self._place, type(self._event).__name__, get_running_loop().time())

    def __exit__(self, *exc_info: object) -> None:
        self._heartbeats.handler_ended(self._place, get_running_loop().time())


Block = AbstractContextManager[object]
"""Context manager around a piece of work; an exception that leaves it means that the work failed."""


Considered = Callable[[Handler, object], None]
"""Takes a handler that is tried, and what it would be called with; None without a match."""


class Tracer(Protocol):
    """Traces the work of a bot. Methods must be quick and must not raise: they are called in the middle of the work."""

    def polled(self, thread: ThreadId, seconds: float) -> None:
        """Record a poll that has shown messages in a thread; it began `seconds` ago."""
        ...

    def attempt(self, event: Event, number: int) -> Block:
        """Return a block around handling an event and committing the results; attempts count from 1."""
        ...

    def handler(self, name: str) -> Block:
        """Return a block around a handler."""
        ...

    @property
    def considered(self) -> Considered | None:
        """Called with each handler that is tried; None if nobody looks, which costs nothing.

        The handlers of a busy bot are tried millions of times.
        """
        ...

    def commit(self) -> Block:
        """Return a block around a write to the store."""
        ...

    def journalled(self, rows: Sequence[OutboxRow]) -> None:
        """Record the actions of the current event."""
        ...

    def action(self, row: OutboxRow) -> Block:
        """Return a block around carrying out an action."""
        ...

    def receipt(self, thread: ThreadId, message: MessageId) -> Block:
        """Return a block around sending a read receipt."""
        ...


_NOTHING: Final = nullcontext()


class NoTracer:
    """Tracer that does nothing."""

    def __init__(self) -> None:
        self.considered: Considered | None = None

    def polled(self, thread: ThreadId, seconds: float) -> None:
        """Do nothing."""

    def attempt(self, event: Event, number: int) -> Block:
        """Do nothing."""
        return _NOTHING

    def handler(self, name: str) -> Block:
        """Do nothing."""
        return _NOTHING

    def commit(self) -> Block:
        """Do nothing."""
        return _NOTHING

    def journalled(self, rows: Sequence[OutboxRow]) -> None:
        """Do nothing."""

    def action(self, row: OutboxRow) -> Block:
        """Do nothing."""
        return _NOTHING

    def receipt(self, thread: ThreadId, message: MessageId) -> Block:
        """Do nothing."""
        return _NOTHING
