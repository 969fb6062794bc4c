"""Back-off: the pause between a failure and the next attempt. Deterministic except for jitter; times are arguments."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from chatbot.errors import ServiceError, StoreError, Throttled
from chatbot.service.budget import QUOTAS, Operation, longest_window

FIRST_PAUSE: Final = 1.0
MAX_PAUSE: Final = 30.0

Jitter = Callable[[float, float], float]
"""Varies a pause, given in seconds, down to at least the given fraction."""


def jittered(pause: float, at_least: float = 0.75) -> float:
    """Vary a pause, so that callers that failed together do not retry together.

    Args:
        pause: the pause in seconds.
        at_least: the smallest factor; the largest is 0.5 more.
    """
    return pause * random.uniform(at_least, at_least + 0.5)  # noqa: S311 - not a secret


class BackOff:
    """The consecutive failures of one task since its last success.

    Each pause is twice the previous one, and at least as long as the service requests. Throttling is counted
    separately, because it is unrelated to other failures: without a `Retry-After`, it waits for the operation's longest
    quota window. Rejected requests count towards the quotas, so a request before the end of a window extends it.

    Args:
        jitter: varies the pauses.
    """

    __slots__ = ("_failures", "_jitter", "_not_before", "_throttlings")

    def __init__(self, jitter: Jitter = jittered) -> None:
        self._jitter = jitter
        self._failures = 0
        self._throttlings = 0
        self._not_before = 0.0

    @property
    def has_failed(self) -> bool:
        """Return whether there was a failure other than throttling."""
        return bool(self._failures)

    def pause(self, now: float) -> float:
        """Return the seconds until the next attempt; 0 or less if it may be made now."""
        return self._not_before - now

    def wait(self, seconds: float, now: float) -> None:
        """Delay the next attempt by this many seconds."""
        self._not_before = now + seconds

    def succeeded(self) -> bool:
        """Reset after a success; return whether there was a failure before it."""
        had_failed = bool(self._failures or self._throttlings)
        self._failures = self._throttlings = 0
        return had_failed

    def failed(self, error: ServiceError | StoreError, now: float, operation: Operation) -> float:
        """Count a failure of this operation; return the seconds until the next attempt."""
        retry_after: float = getattr(error, "retry_after", None) or 0.0
        if not isinstance(error, Throttled):
            self._failures += 1
            own, at_least = _doubled(self._failures, MAX_PAUSE), 0.75
        else:
            self._throttlings += 1
            at_least = 1.0
            # In the one recorded throttling, waiting as requested was not enough, so the pauses grow nevertheless.
            shortest = QUOTAS[operation][0].seconds
            own = _doubled(self._throttlings, shortest) if retry_after else longest_window(operation)
        pause = self._jitter(retry_after, 1.0) if retry_after >= own else self._jitter(own, at_least)
        self.wait(pause, now)
        return pause


def _doubled(failures: int, longest: float) -> float:
    return min(longest, FIRST_PAUSE * 2.0 ** min(failures - 1, 10))
