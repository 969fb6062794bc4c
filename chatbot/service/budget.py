"""The service's quotas, and how much of each is left. Pure: the clock is an argument, in seconds.

Whoever speaks to the service asks here first, so that one bot is never throttled by its own making. The windows
slide: whether the service's own windows slide or stand is not documented, and a sliding one is right for both.
Limits: Azure documentation, "Service limits for Azure Communication Services", chat.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final


@dataclass(frozen=True, slots=True)
class Window:
    """So many requests in so many seconds."""

    limit: int
    seconds: float


class Operation(Enum):
    """Requests that share a quota."""

    LIST_THREADS = "list threads"
    LIST_MESSAGES = "list messages"
    WRITE_MESSAGE = "send, edit and delete messages"
    STREAM_MESSAGE = "the part of sends and edits that streams may use"
    SEND_RECEIPT = "send read receipts"
    SEND_TYPING = "send typing notifications"
    LIST_PARTICIPANTS = "list participants"
    CHANGE_PARTICIPANTS = "add and remove participants"
    UPDATE_THREAD = "update thread"


QUOTAS: Final[dict[Operation, tuple[Window, ...]]] = {
    Operation.LIST_THREADS: (Window(50, 10),),
    Operation.LIST_MESSAGES: (Window(50, 10), Window(200, 60)),
    Operation.WRITE_MESSAGE: (Window(10, 10), Window(30, 60)),
    Operation.STREAM_MESSAGE: (Window(3, 10), Window(10, 60)),  # our own rule: a third of WRITE_MESSAGE
    Operation.SEND_RECEIPT: (Window(10, 10), Window(30, 60)),
    Operation.SEND_TYPING: (Window(5, 10), Window(15, 60)),
    Operation.LIST_PARTICIPANTS: (Window(10, 10),),
    Operation.CHANGE_PARTICIPANTS: (Window(10, 10), Window(30, 60)),
    Operation.UPDATE_THREAD: (Window(5, 10),),
}
"""Per thread (for WRITE_MESSAGE for all people in it together), LIST_THREADS per user."""

JITTER: Final = 0.05
"""Seconds by which requests may bunch on their way, so that the service's window holds one more than ours."""


class Budget:
    """What is left of the quotas of one scope: one thread of a bot, or the bot itself."""

    __slots__ = ("_closed_until", "_spent")

    def __init__(self) -> None:
        self._spent: dict[Operation, deque[float]] = {}
        self._closed_until: dict[Operation, float] = {}

    def delay(self, operation: Operation, now: float, *, spare: int = 0) -> float:
        """Seconds until this operation may be asked of the service; 0 when it may be now.

        Args:
            operation: which one.
            now: the time.
            spare: how many more must be possible besides it, for whoever comes first.
        """
        ready = self._closed_until.get(operation, now)
        spent = self._spent.get(operation)
        if spent:
            for window in QUOTAS[operation]:
                limit = window.limit - spare
                if len(spent) >= limit:
                    ready = max(ready, spent[-limit] + window.seconds + JITTER)
        return max(0.0, ready - now)

    def left(self, operation: Operation, now: float) -> int:
        """How many requests of this operation may be made at once."""
        if self._closed_until.get(operation, now) > now:
            return 0
        spent = self._spent.get(operation, ())
        return min(
            max(0, window.limit - sum(at + window.seconds > now for at in spent)) for window in QUOTAS[operation]
        )

    def spend(self, operation: Operation, at: float) -> None:
        """Count one request, ours or (for shared quotas) anybody's."""
        longest = QUOTAS[operation][-1]
        spent = self._spent.setdefault(operation, deque(maxlen=longest.limit))
        spent.append(at)

    def close(self, operation: Operation, until: float) -> None:
        """The service throttled this operation: leave it alone until then."""
        self._closed_until[operation] = max(until, self._closed_until.get(operation, until))

    def forget(self, now: float) -> None:
        """Drop what no window can hold any more, so that a silent thread costs nothing."""
        for operation in list(self._spent):
            if self._spent[operation][-1] + QUOTAS[operation][-1].seconds < now:
                del self._spent[operation]
        for operation in list(self._closed_until):
            if self._closed_until[operation] <= now:
                del self._closed_until[operation]
