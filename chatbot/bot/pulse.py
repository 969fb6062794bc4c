"""When each of a bot's pollers was last heard of. Pure: times are arguments, in seconds of one monotonic clock."""

from __future__ import annotations

from typing import Final

DOORBELL: Final = "doorbell"
"""The poller of the list of threads; the others are named by their threads."""

PATIENCE: Final = 300.0
"""Seconds after which a beat was missed: a whole call's timeout, the longest back-off and a long walk together."""


class Pulse:
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
