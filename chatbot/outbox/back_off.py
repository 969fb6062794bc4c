"""How long an outbox waits after a failure. Pure: the time comes in as an argument."""

from __future__ import annotations

from typing import Final

from chatbot.errors import ServiceError, Throttled

FIRST_PAUSE: Final = 1.0
MAX_PAUSE: Final = 60.0

MAX_THROTTLED_PAUSE: Final = 10.0
"""The shortest window of the quotas: after so long something may be free again."""


class BackOff:
    """The failures of one outbox since something last succeeded.

    Each pause is twice the one before. Throttlings are counted apart: they say nothing of the other failures.
    """

    __slots__ = ("_failures", "_not_before", "_throttlings")

    def __init__(self) -> None:
        self._failures = 0
        self._throttlings = 0
        self._not_before = 0.0

    def pause(self, now: float) -> float:
        """Seconds until the next try; 0 or less if it may be made now."""
        return self._not_before - now

    def wait(self, seconds: float, now: float) -> None:
        """Try nothing for so long."""
        self._not_before = now + seconds

    def succeeded(self) -> bool:
        """Something was done: the next failure is a first one. Whether there was one before."""
        had_failed = bool(self._failures or self._throttlings)
        self._failures = self._throttlings = 0
        return had_failed

    def failed(self, error: ServiceError, now: float) -> float:
        """Count a failure; gives the seconds until the next try."""
        if isinstance(error, Throttled):
            self._throttlings += 1
        else:
            self._failures += 1
        count = self._throttlings if isinstance(error, Throttled) else self._failures
        longest = MAX_THROTTLED_PAUSE if isinstance(error, Throttled) else MAX_PAUSE
        asked: float | None = getattr(error, "retry_after", None)
        pause = asked or min(longest, FIRST_PAUSE * 2.0 ** min(count - 1, 10))
        self.wait(pause, now)
        return pause
