"""The service's quotas, and how much of each is left. Pure: the clock is an argument, in seconds.

Whoever speaks to the service asks here first, so that one bot is never throttled by its own making. The windows
slide: whether the service's own windows slide or stand is not documented, and a sliding one is right for both.
Limits: Azure documentation, "Service limits for Azure Communication Services", chat.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from chatbot.model import ThreadId, UserId


@dataclass(frozen=True, slots=True)
class Window:
    """So many requests in so many seconds."""

    limit: int
    seconds: float


class Operation(Enum):
    """Requests that share a quota."""

    LIST_THREADS = "list threads"
    WALK_THREADS = "the part of list threads that walks to the end of the list may use"
    LIST_MESSAGES = "list messages"
    GET_MESSAGE = "get message"
    WRITE_MESSAGE = "send, edit and delete messages"
    STREAM_MESSAGE = "the part of sends and edits that streams may use"
    SEND_RECEIPT = "send read receipts"
    LIST_RECEIPTS = "list read receipts"
    SEND_TYPING = "send typing notifications"
    LIST_PARTICIPANTS = "list participants"
    CHANGE_PARTICIPANTS = "add and remove participants"
    UPDATE_THREAD = "update thread"

    @property
    def label(self) -> str:
        """What programs and metrics call it: `list_threads`."""
        return self.name.lower()


QUOTAS: Final[dict[Operation, tuple[Window, ...]]] = {
    Operation.LIST_THREADS: (Window(50, 10),),
    Operation.WALK_THREADS: (Window(20, 10),),  # our own rule: the doorbell needs the others
    Operation.LIST_MESSAGES: (Window(50, 10), Window(200, 60)),
    Operation.GET_MESSAGE: (Window(50, 10),),
    Operation.WRITE_MESSAGE: (Window(10, 10), Window(30, 60)),
    Operation.STREAM_MESSAGE: (Window(3, 10), Window(10, 60)),  # our own rule: a third of WRITE_MESSAGE
    Operation.SEND_RECEIPT: (Window(10, 10), Window(30, 60)),
    Operation.LIST_RECEIPTS: (Window(5, 10),),
    Operation.SEND_TYPING: (Window(5, 10), Window(15, 60)),
    Operation.LIST_PARTICIPANTS: (Window(10, 10),),
    Operation.CHANGE_PARTICIPANTS: (Window(10, 10), Window(30, 60)),
    Operation.UPDATE_THREAD: (Window(5, 10),),
}
"""For one user in one thread (for WRITE_MESSAGE for all people in it together), LIST_THREADS for one user."""

SERVICE_QUOTAS: Final = {
    operation.label: windows
    for operation, windows in QUOTAS.items()
    if operation not in (Operation.WALK_THREADS, Operation.STREAM_MESSAGE)
}
"""Those that are the service's, by label; what is used up of a rule of our own is nobody's trouble."""

SHARED_QUOTAS: Final[dict[Operation, tuple[Window, ...]]] = {
    Operation.LIST_MESSAGES: (Window(250, 10), Window(400, 60)),
    Operation.GET_MESSAGE: (Window(250, 10),),
    Operation.LIST_PARTICIPANTS: (Window(250, 10),),
    Operation.LIST_RECEIPTS: (Window(100, 10),),
    Operation.SEND_TYPING: (Window(10, 10),),
    Operation.WRITE_MESSAGE: QUOTAS[Operation.WRITE_MESSAGE],
    Operation.CHANGE_PARTICIPANTS: QUOTAS[Operation.CHANGE_PARTICIPANTS],
    Operation.UPDATE_THREAD: QUOTAS[Operation.UPDATE_THREAD],
}
"""For all people in one thread together."""

LONGEST_SECONDS: Final = 60.0
"""The longest window of any quota."""

JITTER: Final = 0.05
"""Seconds by which requests may bunch on their way, so that the service's window holds one more than ours."""


class Budget:
    """What is left of the quotas of one scope: one thread of a bot, or the bot itself.

    Args:
        quotas: which.
        shared: what is left of those that others in this process use up as well; asked and counted, too.
    """

    __slots__ = ("_closed_until", "_noted", "_quotas", "_shared", "_spent")

    def __init__(
        self, quotas: Mapping[Operation, tuple[Window, ...]] = QUOTAS, *, shared: Budget | None = None
    ) -> None:
        self._quotas = quotas
        self._shared = shared
        self._spent: dict[Operation, deque[float]] = {}
        self._closed_until: dict[Operation, float] = {}
        self._noted: dict[int, float] | None = None

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
            for window in self._quotas[operation]:
                limit = window.limit - spare
                if len(spent) >= limit:
                    ready = max(ready, spent[-limit] + window.seconds + JITTER)
        wait = max(0.0, ready - now)
        shared = self._sharing(operation)
        return wait if shared is None else max(wait, shared.delay(operation, now, spare=spare))

    def _sharing(self, operation: Operation) -> Budget | None:
        return self._shared if operation in SHARED_QUOTAS else None

    def left(self, operation: Operation, now: float) -> int:
        """How many requests of this operation may be made at once."""
        if self._closed_until.get(operation, now) > now:
            return 0
        spent = self._spent.get(operation, ())
        left = min(
            max(0, window.limit - sum(at + window.seconds > now for at in spent)) for window in self._quotas[operation]
        )
        shared = self._sharing(operation)
        return left if shared is None else min(left, shared.left(operation, now))

    def spend(self, operation: Operation, at: float) -> None:
        """Count one request of ours."""
        self._count(operation, at)
        if (shared := self._sharing(operation)) is not None:
            shared.spend(operation, at)

    def count_other(self, operation: Operation, at: float, change: int | None) -> None:
        """Count one request of somebody else's, of a quota that is shared.

        Args:
            operation: which one.
            at: when it was.
            change: what tells it from others, as several who share may see it; None if it was counted by who made it.
        """
        if change is None:
            self._count(operation, at)
        else:
            # Once, however often it is told: a message whose handler is tried again is seen by every poll.
            (self._shared or self).count_once(operation, at, change)

    def count_once(self, operation: Operation, at: float, change: int) -> None:
        """Count a request that several may tell of, the first time that one does."""
        self._noted = self._noted or {}
        if change not in self._noted:
            self._noted[change] = at
            self._count(operation, at)

    def _count(self, operation: Operation, at: float) -> None:
        longest = self._quotas[operation][-1]
        spent = self._spent.setdefault(operation, deque(maxlen=longest.limit))
        # What no window holds any more goes at once: a thread that talks for hours would keep up to `limit` of them.
        while spent and spent[0] + longest.seconds + JITTER < at:
            spent.popleft()
        spent.append(at)

    def block(self, operation: Operation, until: float) -> None:
        """The service throttled this operation: leave it alone until then."""
        self._closed_until[operation] = max(until, self._closed_until.get(operation, until))

    def expire(self, now: float) -> None:
        """Drop what no window can hold any more, so that a silent thread costs nothing."""
        for operation in list(self._spent):
            if self._spent[operation][-1] + self._quotas[operation][-1].seconds < now:
                del self._spent[operation]
        for operation in list(self._closed_until):
            if self._closed_until[operation] <= now:
                del self._closed_until[operation]
        if self._noted is not None:
            self._noted = {change: at for change, at in self._noted.items() if at + LONGEST_SECONDS >= now} or None
        if self._shared is not None:
            self._shared.expire(now)


@dataclass(frozen=True, slots=True)
class AbandonedHandler:
    """A handler that runs on although it was told to stop.

    Args:
        name: its qualified name.
        place: where it is defined, `file:line`.
        since: when it was given up, in seconds of the event loop's clock.
    """

    name: str
    place: str
    since: float


class SharedQuotas:
    """What the bots of one process use up together, thread by thread.

    Attributes:
        users: those bots; what they do is counted by who does it.
        abandoned: handlers that did not end although they were told to stop, by their bots' users and their threads
            ("" is none). A bot that takes another's place starts nothing beside them either.
        recalled: the bots' users that have read in this process how the last one ended: it is told only once.
    """

    def __init__(self) -> None:
        self.users: set[UserId] = set()
        self.restored: set[UserId] = set()
        self.abandoned: dict[tuple[UserId, str], AbandonedHandler] = {}
        self._budgets: dict[ThreadId, Budget] = {}

    def of(self, thread: ThreadId) -> Budget:
        """What is left in a thread for all of them."""
        if thread not in self._budgets:
            self._budgets[thread] = Budget(SHARED_QUOTAS)
        return self._budgets[thread]
