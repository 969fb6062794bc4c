"""Counts of what happens, kept on the event loop. Plain numbers: adapters turn them into whatever a system wants."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from chatbot.bot.monitoring import DoubleHealed, EventBuried, EventHandled, EventNoticed, HandlerSlow, Observation

BOUNDS: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Upper bounds of the buckets, in seconds; a last one has no bound."""

MOST_FAILURES: Final = 10
"""So many of the latest failures are kept."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """How long something took.

    Args:
        counts: how often, one for each of `BOUNDS` and one above.
        total: of all, in seconds.
    """

    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """How often in all."""
        return sum(self.counts)


class Stopwatch:
    """Collects how long something takes."""

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._total += max(0.0, seconds)

    def read(self) -> Distribution:
        """What was collected so far."""
        return Distribution(tuple(self._counts), self._total)


@dataclass(frozen=True, slots=True)
class RecentFailure:
    """A handler that failed.

    Args:
        at: epoch seconds.
        handler: its qualified name.
        error: the class of its exception; texts of exceptions may quote messages, so they are not kept here.
    """

    at: float
    handler: str
    error: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What a bot did since the process began.

    Args:
        detection: from a change on the service to the look that shows it.
        handlers: by qualified name ("" where no handler answered) and whether they succeeded.
        calls: of the service, by operation and outcome.
        call_seconds: of the service, by operation.
        buried: events that became dead letters.
        healed: replies that were there twice, and are no more.
        token_expires_on: epoch seconds; None while there was none.
        failures: the latest ones, oldest first.
        slow: how often a handler ran for more than a minute.
        abandoned: how often a handler did not end although it was told to stop.
    """

    detection: Distribution
    handlers: Mapping[tuple[str, str], Distribution]
    calls: Mapping[tuple[str, str], int]
    call_seconds: Mapping[str, Distribution]
    buried: int
    healed: int
    token_expires_on: float | None
    failures: tuple[RecentFailure, ...]
    slow: int = 0
    abandoned: int = 0


class BotCounters:
    """Counts what one bot says it does, and how its calls of the service end.

    Args:
        clock: epoch seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._failures: deque[RecentFailure] = deque(maxlen=MOST_FAILURES)
        self._detection = Stopwatch()
        self._handlers: dict[tuple[str, str], Stopwatch] = {}
        self._calls: Counter[tuple[str, str]] = Counter()
        self._call_seconds: dict[str, Stopwatch] = {}
        self._slow = 0
        self._abandoned = 0
        self._buried = 0
        self._healed = 0
        self.token_expires_on: float | None = None

    def observe(self, fact: Observation) -> None:
        """Count a fact."""
        match fact:
            case EventNoticed(latency):
                self._detection.add(latency)
            case EventHandled(handler, seconds, error):
                key = (handler or "", "failed" if error else "succeeded")
                self._handlers.setdefault(key, Stopwatch()).add(seconds)
                if error is not None:
                    self._failures.append(RecentFailure(self._clock(), handler or "", error))
            case HandlerSlow(is_abandoned=True):
                self._abandoned += 1
            case HandlerSlow():
                self._slow += 1
            case EventBuried():
                self._buried += 1
            case DoubleHealed():
                self._healed += 1

    def called(self, operation: str, outcome: str, seconds: float) -> None:
        """Count a call of the service."""
        self._calls[operation, outcome] += 1
        self._call_seconds.setdefault(operation, Stopwatch()).add(seconds)

    def read(self) -> Counts:
        """Everything so far."""
        return Counts(
            detection=self._detection.read(),
            handlers={key: watch.read() for key, watch in self._handlers.items()},
            calls=dict(self._calls),
            call_seconds={key: watch.read() for key, watch in self._call_seconds.items()},
            buried=self._buried,
            healed=self._healed,
            token_expires_on=self.token_expires_on,
            failures=tuple(self._failures),
            slow=self._slow,
            abandoned=self._abandoned,
        )
