"""What a bot tells whoever watches it: frozen facts, said as they happen. Watching never changes what a bot does.

When each of a bot's pollers was last heard of. Pure: times are arguments, in seconds of one monotonic clock.

A bot as it is watched: its pulse, and whoever hears what it does.

What goes along with a bot's work, piece by piece, for the log and for traces. It never changes the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final, Protocol

import anyio

from chatbot.dispatch import Outcome
from chatbot.errors import kind_of
from chatbot.events import Event, ThreadEvent
from chatbot.model import MessageId, ThreadId
from chatbot.stores.records import OutboxRow


@dataclass(frozen=True, slots=True)
class EventNoticed:
    """A look has shown something that handlers are to hear of.

    Args:
        latency: seconds from the change on the service to now; a restart's backlog counts with its age.
    """

    latency: float


@dataclass(frozen=True, slots=True)
class EventHandled:
    """Handlers have run on an event.

    Args:
        handler: the qualified name of the one that answered; None when none did.
        seconds: how long that took, waiting for a free place included.
        error: the class of its failure; None when it succeeded.
    """

    handler: str | None
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class HandlerSlow:
    """A handler has run for more than a minute, and has not ended.

    Args:
        handler: its qualified name.
        is_abandoned: it did not end although it was told to stop.
    """

    handler: str
    is_abandoned: bool = False


@dataclass(frozen=True, slots=True)
class EventBuried:
    """An event was given up and became a dead letter."""


@dataclass(frozen=True, slots=True)
class DoubleHealed:
    """A reply that was there twice is there once again."""


Observation = EventNoticed | EventHandled | HandlerSlow | EventBuried | DoubleHealed


class Observer(Protocol):
    """Hears facts."""

    def observe(self, fact: Observation) -> None:
        """Take a fact in; quick, and never raising, because it is called in the middle of the work."""
        ...


class NoObserver:
    """Nobody watches."""

    def observe(self, fact: Observation) -> None:
        """Let it pass."""


DOORBELL: Final = "doorbell"
"""The poller of the list of threads; the others are named by their threads."""

PATIENCE: Final = 300.0
"""Seconds after which a beat was missed: a whole call's timeout, the longest back-off and a long walk together."""


class Heartbeats:
    """The beats of one bot: who is at work says so, and says when it will be heard of again.

    A service that fails does not stop the beat: whoever asks in vain, and will ask again, is alive. Neither does a
    handler, which may take as long as its author lets it; those are listed apart.
    """

    __slots__ = ("_named", "_promised", "_running", "_waiting")

    def __init__(self) -> None:
        self._promised: dict[str, float] = {}
        self._running: dict[str, tuple[str, float]] = {}
        self._named: dict[str, str] = {}
        self._waiting: set[str] = set()

    def promise(self, poller: str, until: float) -> None:
        """This poller will be heard of again by then."""
        self._promised[poller] = until

    def retire(self, poller: str) -> None:
        """This poller has finished its turn."""
        self._promised.pop(poller, None)

    def wait(self, poller: str) -> None:
        """An event waits until a handler may run: for as long as others take, which a restart would not change."""
        self._waiting.add(poller)

    def begin(self, poller: str, event: str, now: float) -> None:
        """A handler runs, on this kind of event."""
        self._waiting.discard(poller)
        self._running[poller] = (event, now)

    def name(self, poller: str, handler: str) -> None:
        """This handler, with its place in the code, is what has run here for long."""
        self._named[poller] = handler

    def name_of(self, poller: str) -> str:
        """The handler that has run here for long; "" if none has."""
        return self._named.get(poller, "")

    def end(self, poller: str, now: float) -> None:
        """The handler has ended, or waits no more."""
        self._waiting.discard(poller)
        self._named.pop(poller, None)
        self._running.pop(poller, None)
        if poller in self._promised:
            self._promised[poller] = now

    def late(self, now: float) -> dict[str, float]:
        """The pollers that should have been heard of, and the seconds since then."""
        return {
            poller: now - promised
            for poller, promised in self._promised.items()
            if promised < now and poller not in self._running and poller not in self._waiting
        }

    def running(self, now: float) -> dict[str, tuple[str, float]]:
        """The handlers that run: where, on which kind of event, and for how many seconds."""
        return {poller: (event, now - begun) for poller, (event, begun) in self._running.items()}


class Monitor:
    """Keeps the pulse of a bot and tells its observer.

    Args:
        observer: who hears.
    """

    __slots__ = ("_observer", "heartbeats")

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.heartbeats = Heartbeats()

    def thread_list_polled(self, pause: float = 0.0) -> None:
        """The doorbell was heard, and will be again after this pause, in seconds."""
        self.heartbeats.promise(DOORBELL, anyio.current_time() + pause)

    def lane_at_work(self, thread: ThreadId) -> None:
        """The lane of this thread is at work, and was just heard."""
        self.heartbeats.promise(thread, anyio.current_time())

    def lane_ended(self, thread: ThreadId) -> None:
        """The lane's turn has ended."""
        self.heartbeats.retire(thread)

    @contextmanager
    def waiting(self, event: Event) -> Iterator[None]:
        """An event waits for a free handler while the block runs."""
        place = event.thread if isinstance(event, ThreadEvent) else ""
        self.heartbeats.wait(place)
        try:
            yield
        finally:
            self.heartbeats.end(place, anyio.current_time())

    @contextmanager
    def handling(self, event: Event) -> Iterator[None]:
        """Handlers run while the block does."""
        place = event.thread if isinstance(event, ThreadEvent) else ""
        self.heartbeats.begin(place, type(event).__name__, anyio.current_time())
        try:
            yield
        finally:
            self.heartbeats.end(place, anyio.current_time())

    def handled(self, outcome: Outcome, begun: float) -> None:
        """Handlers have run, or waited to run, since `begun`."""
        error = kind_of(outcome.error) if outcome.error is not None else None
        self._observer.observe(EventHandled(outcome.handler, anyio.current_time() - begun, error))

    def slow(self, event: Event, handler: str, place: str) -> None:
        """A handler has run for more than a minute on this event; `place` is where it is in the code."""
        self.heartbeats.name(event.thread if isinstance(event, ThreadEvent) else "", f"{handler} ({place})")
        self._observer.observe(HandlerSlow(handler))

    def abandoned(self, handler: str) -> None:
        """A handler did not end although it was told to stop."""
        self._observer.observe(HandlerSlow(handler, is_abandoned=True))

    def event_noticed(self, latency: float) -> None:
        """A look has shown a change that is so many seconds old."""
        self._observer.observe(EventNoticed(max(0.0, latency)))

    def healed(self) -> None:
        """A double was found, and its healing was journalled."""
        self._observer.observe(DoubleHealed())

    def buried(self) -> None:
        """An event became a dead letter."""
        self._observer.observe(EventBuried())


Block = AbstractContextManager[object]
"""Entered when a piece of work begins, left when it ends; an exception that passes says that it failed."""


class Tracer(Protocol):
    """Goes along; each call is quick and never raises, because it is made in the middle of the work."""

    def looked(self, thread: ThreadId, seconds: float) -> None:
        """A look has shown messages in a thread; it began so many seconds ago."""
        ...

    def attempt(self, event: Event, number: int) -> Block:
        """An event is handled and what comes of it is committed, for the so-manieth time, from 1."""
        ...

    def handler(self, name: str) -> Block:
        """A handler runs."""
        ...

    def commit(self) -> Block:
        """Something is written to the store."""
        ...

    def journalled(self, rows: Sequence[OutboxRow]) -> None:
        """The event has produced these actions."""
        ...

    def action(self, row: OutboxRow) -> Block:
        """An action is carried out."""
        ...

    def receipt(self, thread: ThreadId, message: MessageId) -> Block:
        """A read receipt is sent."""
        ...


_NOTHING: Final = nullcontext()


class NoTracer:
    """Nobody goes along."""

    def looked(self, thread: ThreadId, seconds: float) -> None:
        """Let it pass."""

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
        """Let it pass."""

    def action(self, row: OutboxRow) -> Block:
        """Do nothing."""
        return _NOTHING

    def receipt(self, thread: ThreadId, message: MessageId) -> Block:
        """Do nothing."""
        return _NOTHING
