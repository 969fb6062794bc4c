"""The service's quotas, and how much of each is left. Pure: times are arguments, in seconds.

Every request to the service is asked for and counted here first, so that a bot is never throttled by its own making.
The windows slide: it is not documented whether the service's windows slide or are fixed, and a sliding window stays
within both.
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
    """A number of requests in a number of seconds."""

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
    Operation.WALK_THREADS: (Window(20, 10),),  # our own rule: the rest is for reading the top of the list
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
"""Per user and thread; WRITE_MESSAGE per thread, for all people in it together; LIST_THREADS per user."""

SERVICE_QUOTAS: Final = {
    operation.label: windows
    for operation, windows in QUOTAS.items()
    if operation not in (Operation.WALK_THREADS, Operation.STREAM_MESSAGE)
}
"""The quotas of the service by label. Rules of our own are left out: using one up is no trouble."""

SHARED_QUOTAS: Final[dict[Operation, tuple[Window, ...]]] = {
    Operation.LIST_MESSAGES: (Window(250, 10), Window(400, 60)),
    Operation.GET_MESSAGE: (Window(250, 10),),
    Operation.LIST_PARTICIPANTS: (Window(250, 10),),
    Operation.LIST_RECEIPTS: (Window(100, 10),),
    Operation.SEND_TYPING: (Window(10, 10), Window(30, 60)),
    Operation.WRITE_MESSAGE: QUOTAS[Operation.WRITE_MESSAGE],
    Operation.CHANGE_PARTICIPANTS: QUOTAS[Operation.CHANGE_PARTICIPANTS],
    Operation.UPDATE_THREAD: QUOTAS[Operation.UPDATE_THREAD],
}
"""For all people in one thread together."""

LONGEST_SECONDS: Final = 60.0
"""The longest window of any quota."""

JITTER: Final = 0.05
"""Seconds by which requests may bunch up on their way: the service's window may then hold one more than ours."""


class Budget:
    """What is left of the quotas of one scope: one thread of a bot, or the bot itself.

    Args:
        quotas: the quotas.
        shared: the budget of quotas that other bots of this process use as well; it is asked and counted, too.
    """

    __slots__ = ("_closed_until", "_counted", "_quotas", "_shared", "_spent")

    def __init__(
        self, quotas: Mapping[Operation, tuple[Window, ...]] = QUOTAS, *, shared: Budget | None = None
    ) -> None:
        self._quotas = quotas
        self._shared = shared
        self._spent: dict[Operation, deque[float]] = {}
        self._closed_until: dict[Operation, float] = {}
        self._counted: dict[int, float] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no request is remembered."""
        return not self._spent and not self._counted

    def delay(self, operation: Operation, now: float, *, spare: int = 0) -> float:
        """Return the seconds until this request may be made; 0 if it may be made now.

        Args:
            operation: the operation.
            now: the time.
            spare: how many further requests must be left for others.
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
        """Return how many requests of this operation may be made at once."""
        if self._closed_until.get(operation, now) > now:
            return 0
        spent = self._spent.get(operation, ())
        left = min(
            max(0, window.limit - sum(at + window.seconds > now for at in spent)) for window in self._quotas[operation]
        )
        shared = self._sharing(operation)
        return left if shared is None else min(left, shared.left(operation, now))

    def spend(self, operation: Operation, at: float) -> None:
        """Count a request of this bot."""
        self._count(operation, at)
        if (shared := self._sharing(operation)) is not None:
            shared.spend(operation, at)

    def count_other(self, operation: Operation, at: float, change: int | None) -> None:
        """Count a request of somebody else who uses up the same quota.

        Args:
            operation: the operation.
            at: when it was made.
            change: identifies the request, as several bots may see it; None if the bot that made it has counted it
                in the shared budget.
        """
        if change is None:
            self._count(operation, at)
        else:
            # Once, however often it is seen: every poll reads a message again whose handler is being retried.
            (self._shared or self).count_once(operation, at, change)

    def count_once(self, operation: Operation, at: float, change: int) -> None:
        """Count a request that may be reported several times, the first time only."""
        self._counted = self._counted or {}
        if change not in self._counted:
            self._counted[change] = at
            self._count(operation, at)

    def _count(self, operation: Operation, at: float) -> None:
        longest = self._quotas[operation][-1]
        spent = self._spent.setdefault(operation, deque(maxlen=longest.limit))
        # Drop what no window holds any more: a thread that is busy for hours would keep up to `limit` entries.
        while spent and spent[0] + longest.seconds + JITTER < at:
            spent.popleft()
        spent.append(at)

    def block(self, operation: Operation, until: float) -> None:
        """Make no request of this operation until then: the service has throttled it."""
        self._closed_until[operation] = max(until, self._closed_until.get(operation, until))

    def expire(self, now: float) -> None:
        """Drop what no window holds any more, so that a silent thread holds no memory."""
        for operation in list(self._spent):
            if self._spent[operation][-1] + self._quotas[operation][-1].seconds < now:
                del self._spent[operation]
        for operation in list(self._closed_until):
            if self._closed_until[operation] <= now:
                del self._closed_until[operation]
        if self._counted is not None:
            self._counted = {change: at for change, at in self._counted.items() if at + LONGEST_SECONDS >= now} or None
        if self._shared is not None:
            self._shared.expire(now)


@dataclass(frozen=True, slots=True)
class AbandonedHandler:
    """A handler that runs on although it was told to stop.

    Args:
        name: its qualified name.
        place: where it is defined, `file:line`.
        since: when it was abandoned, in seconds of the event loop's clock.
    """

    name: str
    place: str
    since: float


class SharedQuotas:
    """What the bots of one process share: quotas of threads, and the handlers that they have abandoned.

    Attributes:
        users: the users of these bots; each bot counts its own requests.
        abandoned: handlers that did not end after they were canceled, by bot user and thread ("" is none). A bot that
            is started in the place of another starts nothing beside them.
        restored: the users of bots that have read how the process before ended; it is reported only once.
    """

    def __init__(self) -> None:
        self.users: set[UserId] = set()
        self.restored: set[UserId] = set()
        self.abandoned: dict[tuple[UserId, str], AbandonedHandler] = {}
        self._budgets: dict[ThreadId, Budget] = {}

    def of(self, thread: ThreadId) -> Budget:
        """Return the shared budget of a thread."""
        if thread not in self._budgets:
            self._budgets[thread] = Budget(SHARED_QUOTAS)
        return self._budgets[thread]
