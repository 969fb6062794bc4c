"""How long to wait after a failure, before the same is tried again. Pure, but for chance: the time is an argument."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from chatbot.errors import ServiceError, StoreError, Throttled

FIRST_PAUSE: Final = 1.0
MAX_PAUSE: Final = 30.0

MAX_THROTTLED_PAUSE: Final = 10.0
"""The shortest window of the quotas: after so long something may be free again."""

Jitter = Callable[[float, float], float]
"""A pause of about so many seconds, and at least so great a part of them."""


def jittered(pause: float, at_least: float = 0.75) -> float:
    """A pause of about this many seconds, so that those who failed together do not return together.

    Args:
        pause: seconds.
        at_least: the smallest factor; the greatest is 0.5 more.
    """
    return pause * random.uniform(at_least, at_least + 0.5)  # noqa: S311 - not a secret


class BackOff:
    """The failures of one piece of work since it last succeeded.

    Each pause is twice the one before, and at least as long as the service asks for. Throttlings are counted apart:
    they say nothing of the other failures.

    Args:
        jitter: keeps those apart who failed together.
    """

    __slots__ = ("_failures", "_jitter", "_not_before", "_throttlings")

    def __init__(self, jitter: Jitter = jittered) -> None:
        self._jitter = jitter
        self._failures = 0
        self._throttlings = 0
        self._not_before = 0.0

    @property
    def has_failed(self) -> bool:
        """Whether more than a quota stands in the way."""
        return bool(self._failures)

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

    def failed(self, error: ServiceError | StoreError, now: float) -> float:
        """Count a failure; gives the seconds until the next try."""
        if isinstance(error, Throttled):
            self._throttlings += 1
            count, longest = self._throttlings, MAX_THROTTLED_PAUSE
        else:
            self._failures += 1
            count, longest = self._failures, MAX_PAUSE
        asked: float | None = getattr(error, "retry_after", None)
        own = min(longest, FIRST_PAUSE * 2.0 ** min(count - 1, 10))
        pause = self._jitter(asked, 1.0) if asked else self._jitter(own, 0.75)
        self.wait(pause, now)
        return pause
