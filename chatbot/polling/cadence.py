"""When to look at a thread. Pure: times are arguments, in seconds of one monotonic clock.

A thread that just spoke is looked at on a fast beat that decays as it falls silent, down to a slow beat of doubt.
In between the doorbell rings. Defaults keep within the service's quotas (list messages: 50 per 10 s and 200 per
minute for one user in one thread; list threads: 50 per 10 s for one user; service limits documentation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIN_INTERVAL: Final = 0.3
"""Seconds; the fastest beat that stays within 200 looks a minute."""

DECAY: Final = 4
"""A thread silent for t seconds is looked at again after t / DECAY."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often threads are looked at.

    Args:
        interval: seconds between looks at a thread that speaks, and between two rings of the doorbell.
        idle: seconds between looks at a silent thread, and at most between two whole looks.
        rate: looks a second, in all threads together, that nothing asked for; more threads than that are looked at
            less often, and what the doorbell does not tell (an edit, perhaps) is noticed later there.
    """

    interval: float = 1.0
    idle: float = 30.0
    rate: float = 100.0

    def pause(self, silent_for: float) -> float:
        """Seconds until the next look at a thread that has been silent for so long."""
        return min(self.idle, max(self.interval, MIN_INTERVAL, silent_for / DECAY))

    def is_full_poll_due(self, since_whole_look: float | None) -> bool:
        """Whether the next look must be a whole one, given the seconds since the last (None: never)."""
        return since_whole_look is None or since_whole_look >= self.idle
