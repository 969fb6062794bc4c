"""Cadence: when to poll a thread. Pure: times are arguments, in seconds of one monotonic clock.

A thread with a new message is polled on a fast interval, which decays to a slow one while the thread is silent. In
between, the thread list shows new messages. The defaults keep within the service's quotas (list messages: 50 per 10 s
and 200 per minute for one user in one thread; list threads: 50 per 10 s for one user, of which polls of the list use
33; service limits documentation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIN_INTERVAL: Final = 0.3
"""Seconds; the fastest interval that stays within 200 polls a minute."""

DECAY: Final = 4
"""A thread that was silent for t seconds is polled again after t / DECAY seconds."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """Polling intervals.

    Args:
        interval: Seconds between polls of an active thread, and between polls of the thread list.
        idle: Seconds between polls of a silent thread; the maximum between two full polls.
        rate: Maximum periodic polls per second of all silent threads together, and of all active ones. With more
            threads, each is polled less often, and changes that the thread list does not show (edits, deletions,
            removals) are noticed later.
    """

    interval: float = 0.3
    idle: float = 30.0
    rate: float = 100.0

    @property
    def fast(self) -> float:
        """Seconds between polls of an active thread, within the quota."""
        return max(self.interval, MIN_INTERVAL)

    def pause(self, silent_for: float) -> float:
        """Return the seconds until the next poll of a thread that has been silent for so long."""
        return min(self.idle, max(self.fast, silent_for / DECAY))

    def is_full_poll_due(self, since_full_poll: float | None) -> bool:
        """Return whether the next poll must be a full one, given the seconds since the last (None: never)."""
        return since_full_poll is None or since_full_poll >= self.idle
