"""The rule of a canary: whether the handlers of one process fail more often than those of the others. Performs no I/O.

A canary is a process with new code that takes a small share of the threads. Events are counted for each bot, here and
in the others, over the same time. Chance makes small numbers differ: so it is not asked whether the rate is higher, but
how probable such a difference is if the events that failed are spread over all processes at random (Fisher's exact
test, one-sided). It takes into account how many events either side had.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

WINDOW_SECONDS: Final = 600.0
"""The time over which events are compared: what failed before does not count any more."""

MIN_EVENTS: Final = 20
"""How many events of a bot a canary must have handled before it is judged."""

MIN_FAILURES: Final = 5
"""How many of them must have failed."""

MAX_CHANCE: Final = 1e-5
"""How improbable the difference must be. The numbers are compared again and again, so chance has many attempts."""


class Counted(Struct, frozen=True):
    """Events of a bot.

    Args:
        handled: how many were handled, those that failed included.
        failed: how many became dead letters.
    """

    handled: int = 0
    failed: int = 0

    def __add__(self, other: Counted) -> Counted:
        return Counted(self.handled + other.handled, self.failed + other.failed)

    def since(self, before: Counted) -> Counted:
        """Return what came after `before`."""
        return Counted(max(0, self.handled - before.handled), max(0, self.failed - before.failed))

    def __str__(self) -> str:
        return f"{self.failed} of {self.handled}"


def fails_more(own: Counted, others: Counted) -> bool:
    """Return whether a canary fails more often than the others, and not by chance."""
    if own.handled < MIN_EVENTS or own.failed < MIN_FAILURES:
        return False
    if own.failed * others.handled <= others.failed * own.handled:
        return False  # not even by rate; this is quicker than the test
    return chance(own, others) <= MAX_CHANCE


def chance(own: Counted, others: Counted) -> float:
    """Return the probability that at least so many of the failures fall to one side by chance.

    Without events of the others, it is 1: there is nothing to compare with.
    """
    events, failures = own.handled + others.handled, own.failed + others.failed
    most = min(own.handled, failures)
    all_ways = _log_ways(events, own.handled)
    return min(
        1.0,
        math.fsum(
            math.exp(_log_ways(failures, count) + _log_ways(events - failures, own.handled - count) - all_ways)
            for count in range(own.failed, most + 1)
            if own.handled - count <= events - failures
        ),
    )


def _log_ways(number: int, chosen: int) -> float:
    """Return the logarithm of the binomial coefficient."""
    return math.lgamma(number + 1) - math.lgamma(chosen + 1) - math.lgamma(number - chosen + 1)


class CanaryVerdict(Struct, frozen=True):
    """A bot whose events failed more often in a canary.

    Args:
        bot: its name.
        own: its events in the canary.
        others: its events in the other processes.
    """

    bot: str
    own: Counted
    others: Counted

    def __str__(self) -> str:
        return f"bot {self.bot} failed in {self.own} events here, and in {self.others} of the other processes"


class EventComparison:
    """What a canary and the others have handled in the last `WINDOW_SECONDS`, by bot."""

    def __init__(self) -> None:
        self._last: dict[str, Mapping[str, Counted]] = {}
        self._gains: deque[tuple[float, bool, str, Counted]] = deque()

    def add_own(self, counts: Mapping[str, Counted], now: float) -> None:
        """Add what this process has handled since its start."""
        self._last.setdefault("", {})
        self._add("", counts, now)

    def add_others(self, reports: Mapping[str, Mapping[str, Counted]], now: float) -> None:
        """Add what the others have handled since their starts, by process.

        Of one that is seen for the first time, only what it handles from now on is compared.
        """
        for name in self._last.keys() - reports.keys() - {""}:
            del self._last[name]
        for name, counts in reports.items():
            self._add(name, counts, now)

    def _add(self, name: str, counts: Mapping[str, Counted], now: float) -> None:
        before = self._last.get(name)
        if before is not None:
            gains = {bot: one.since(before.get(bot, Counted())) for bot, one in counts.items()}
            self._gains.extend((now, not name, bot, gain) for bot, gain in gains.items() if gain != Counted())
        self._last[name] = dict(counts)
        while self._gains and self._gains[0][0] <= now - WINDOW_SECONDS:
            self._gains.popleft()

    def totals(self) -> tuple[Counted, Counted]:
        """Return the events of all bots, here and in the others."""
        own = sum((gain for _, is_own, _, gain in self._gains if is_own), Counted())
        others = sum((gain for _, is_own, _, gain in self._gains if not is_own), Counted())
        return own, others

    def verdict(self) -> CanaryVerdict | None:
        """Return a bot that fails more often here; None if there is none."""
        sums: dict[tuple[str, bool], Counted] = {}
        for _, is_own, bot, gain in self._gains:
            sums[bot, is_own] = sums.get((bot, is_own), Counted()) + gain
        for bot in sorted({bot for bot, _ in sums}):
            own, others = sums.get((bot, True), Counted()), sums.get((bot, False), Counted())
            if fails_more(own, others):
                return CanaryVerdict(bot, own, others)
        return None
