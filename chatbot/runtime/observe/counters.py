"""Counters of each bot, kept on the event loop and independent of any metrics system."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from chatbot.bot.monitoring import DoubleHealed, EventDeadLettered, EventHandled, EventNoticed, HandlerSlow, Observation
from chatbot.cluster.canary import Counted

BOUNDS: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Upper bounds of the histogram buckets, in seconds; a further bucket has no bound."""

MAX_FAILURES: Final = 10
"""Number of recent failures kept."""


class Distribution(Struct, frozen=True):
    """Histogram of durations.

    Args:
        counts: Number of durations in each bucket of `BOUNDS`, and above the last bound.
        total: Sum of all durations, in seconds.
    """

    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """Total number of durations."""
        return sum(self.counts)


class Stopwatch:
    """Collects durations into a histogram."""

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total = 0.0

    def add(self, seconds: float) -> None:
        """Add a duration; a negative one counts as 0 s."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._total += max(0.0, seconds)

    @property
    def count(self) -> int:
        """Number of durations so far."""
        return sum(self._counts)

    def read(self) -> Distribution:
        """Return the histogram so far."""
        return Distribution(tuple(self._counts), self._total)


class RecentFailure(Struct, frozen=True):
    """A failure of a handler.

    Args:
        at: Epoch seconds.
        handler: Qualified name of the handler; "" if none was selected.
        error: Class of the exception. Its text may quote messages, so it is not kept.
    """

    at: float
    handler: str
    error: str


class Counts(Struct, frozen=True):
    """Counts of one bot since the process started.

    Args:
        detection: Time from a change on the service to the poll that shows it.
        handlers: Handler durations by qualified name ("" if no handler matched) and outcome.
        calls: Number of service calls by operation and outcome.
        call_seconds: Durations of service calls by operation.
        buried: Events that became dead letters.
        healed: Duplicate replies that were removed.
        token_expires_on: Epoch seconds; None before the first token.
        failures: Recent failures, oldest first.
        slow: Handlers that ran for more than a minute.
        abandoned: Handlers that did not end after they were canceled.
    """

    detection: Distribution
    handlers: Mapping[tuple[str, str], Distribution]
    calls: Mapping[tuple[str, str], int]
    call_seconds: Mapping[str, Distribution]
    dead_lettered: int
    healed: int
    token_expires_on: float | None
    failures: tuple[RecentFailure, ...]
    slow: int = 0
    abandoned: int = 0


class BotCounters:
    """Counts the observations and service calls of one bot. Use it on the event loop only.

    Args:
        clock: Returns epoch seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._failures: deque[RecentFailure] = deque(maxlen=MAX_FAILURES)
        self._detection = Stopwatch()
        self._handlers: defaultdict[tuple[str, str], Stopwatch] = defaultdict(Stopwatch)
        self._calls: Counter[tuple[str, str]] = Counter()
        self._call_seconds: defaultdict[str, Stopwatch] = defaultdict(Stopwatch)
        self._slow = 0
        self._abandoned = 0
        self._dead_lettered = 0
        self._healed = 0
        self.token_expires_on: float | None = None

    def observe(self, fact: Observation) -> None:
        """Count an observation."""
        match fact:
            case EventNoticed(latency):
                self._detection.add(latency)
            case EventHandled(handler, seconds, error):
                key = (handler or "", "failed" if error else "succeeded")
                self._handlers[key].add(seconds)
                if error is not None:
                    self._failures.append(RecentFailure(self._clock(), handler or "", error))
            case HandlerSlow(is_abandoned=True):
                self._abandoned += 1
            case HandlerSlow():
                self._slow += 1
            case EventDeadLettered():
                self._dead_lettered += 1
            case DoubleHealed():
                self._healed += 1

    @property
    def events(self) -> Counted:
        """Events that were handled, and those of them that became dead letters. A retried event counts once."""
        handled = sum(watch.count for (_, outcome), watch in self._handlers.items() if outcome == "succeeded")
        return Counted(handled + self._dead_lettered, self._dead_lettered)

    def count_call(self, operation: str, outcome: str, seconds: float) -> None:
        """Count a service call."""
        self._calls[operation, outcome] += 1
        self._call_seconds[operation].add(seconds)

    def read(self) -> Counts:
        """Return a snapshot of all counts."""
        return Counts(
            detection=self._detection.read(),
            handlers={key: watch.read() for key, watch in self._handlers.items()},
            calls=dict(self._calls),
            call_seconds={key: watch.read() for key, watch in self._call_seconds.items()},
            dead_lettered=self._dead_lettered,
            healed=self._healed,
            token_expires_on=self.token_expires_on,
            failures=tuple(self._failures),
            slow=self._slow,
            abandoned=self._abandoned,
        )
