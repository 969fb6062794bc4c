"""A bot as it is watched: its pulse, and whoever hears what it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from chatbot.bot.observer import DoubleHealed, EventBuried, EventHandled, EventNoticed, HandlerSlow, Observer
from chatbot.bot.pulse import DOORBELL, Pulse
from chatbot.dispatch import Outcome
from chatbot.errors import kind_of
from chatbot.events import Event, ThreadEvent
from chatbot.model import ThreadId


class Watch:
    """Keeps the pulse of a bot and tells its observer.

    Args:
        observer: who hears.
    """

    __slots__ = ("_observer", "pulse")

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.pulse = Pulse()

    def doorbell(self, pause: float = 0.0) -> None:
        """The doorbell was heard, and will be again after this pause, in seconds."""
        self.pulse.promise(DOORBELL, anyio.current_time() + pause)

    def at_work(self, thread: ThreadId) -> None:
        """The lane of this thread is at work, and was just heard."""
        self.pulse.promise(thread, anyio.current_time())

    def at_rest(self, thread: ThreadId) -> None:
        """The lane's turn has ended."""
        self.pulse.retire(thread)

    @contextmanager
    def waiting(self, event: Event) -> Iterator[None]:
        """An event waits for a free handler while the block runs."""
        place = event.thread if isinstance(event, ThreadEvent) else ""
        self.pulse.wait(place)
        try:
            yield
        finally:
            self.pulse.end(place, anyio.current_time())

    @contextmanager
    def handling(self, event: Event) -> Iterator[None]:
        """Handlers run while the block does."""
        place = event.thread if isinstance(event, ThreadEvent) else ""
        self.pulse.begin(place, type(event).__name__, anyio.current_time())
        try:
            yield
        finally:
            self.pulse.end(place, anyio.current_time())

    def handled(self, outcome: Outcome, begun: float) -> None:
        """Handlers have run, or waited to run, since `begun`."""
        error = kind_of(outcome.error) if outcome.error is not None else None
        self._observer.note(EventHandled(outcome.handler, anyio.current_time() - begun, error))

    def slow(self, event: Event, handler: str, place: str) -> None:
        """A handler has run for more than a minute on this event; `place` is where it is in the code."""
        self.pulse.name(event.thread if isinstance(event, ThreadEvent) else "", f"{handler} ({place})")
        self._observer.note(HandlerSlow(handler))

    def abandoned(self, handler: str) -> None:
        """A handler did not end although it was told to stop."""
        self._observer.note(HandlerSlow(handler, is_abandoned=True))

    def noticed(self, latency: float) -> None:
        """A look has shown a change that is so many seconds old."""
        self._observer.note(EventNoticed(max(0.0, latency)))

    def healed(self) -> None:
        """A double was found, and its healing was journalled."""
        self._observer.note(DoubleHealed())

    def buried(self) -> None:
        """An event became a dead letter."""
        self._observer.note(EventBuried())
