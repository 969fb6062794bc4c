"""Request quotas of the service, and accounting of their use. Performs no I/O; times are arguments, in seconds.

Callers must check and count every request here before sending it, so that a bot never exceeds a quota by itself.
The windows slide: it is not documented whether the service's windows are sliding or fixed, and a sliding window
satisfies both.
Limits: Azure documentation, "Service limits for Azure Communication Services", chat.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import Enum
from typing import Final, Protocol

from msgspec import Struct

from chatbot.model import ThreadId, UserId


class Window(Struct, frozen=True):
    """A number of requests in a number of seconds."""

    limit: int
    seconds: float


class Operation(Enum):
    """Requests that share a quota."""

    __hash__ = object.__hash__  # that of `Enum` is Python code, and is called eighty times for a message

    LIST_THREADS = "list threads"
    POLL_THREADS = "the part of list threads that polls of the top of the list may use"
    WALK_THREADS = "the part of list threads that pages further down the list may use"
    GET_THREAD = "the part of list threads that requests for one thread may use"
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
        """Return the name used in metrics and machine-readable output, such as `list_threads`."""
        return self.name.lower()


QUOTAS: Final[dict[Operation, tuple[Window, ...]]] = {
    Operation.LIST_THREADS: (Window(50, 10),),
    # Our own limits, together all of LIST_THREADS. Polls of the list are paced: the next process does not know when
    # this one made its last requests, and can continue at the same pace only if they were never made in a burst.
    Operation.POLL_THREADS: (Window(1, 0.2546), Window(33, 10)),
    Operation.WALK_THREADS: (Window(12, 10),),
    Operation.GET_THREAD: (Window(5, 10),),
    Operation.LIST_MESSAGES: (Window(50, 10), Window(200, 60)),
    Operation.GET_MESSAGE: (Window(50, 10),),
    Operation.WRITE_MESSAGE: (Window(10, 10), Window(30, 60)),
    Operation.STREAM_MESSAGE: (Window(3, 10), Window(10, 60)),  # our own limit: a third of WRITE_MESSAGE
    Operation.SEND_RECEIPT: (Window(10, 10), Window(30, 60)),
    Operation.LIST_RECEIPTS: (Window(5, 10),),
    Operation.SEND_TYPING: (Window(5, 10), Window(15, 60)),
    Operation.LIST_PARTICIPANTS: (Window(10, 10),),
    Operation.CHANGE_PARTICIPANTS: (Window(10, 10), Window(30, 60)),
    Operation.UPDATE_THREAD: (Window(5, 10),),
}
"""Quotas per user and thread; but WRITE_MESSAGE is per thread, for all its participants, and LIST_THREADS per user."""

PARTS: Final[Mapping[Operation, Operation]] = dict.fromkeys(
    (Operation.POLL_THREADS, Operation.WALK_THREADS, Operation.GET_THREAD), Operation.LIST_THREADS
)
"""Operations whose requests also count against the quota of another one."""

SERVICE_QUOTAS: Final = {
    operation.label: windows
    for operation, windows in QUOTAS.items()
    if operation not in PARTS and operation is not Operation.STREAM_MESSAGE
}
"""The quotas of the service by label. Our own limits are omitted: reaching one is not a problem."""

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
"""Quotas shared by all participants of a thread."""

PROCESS_QUOTAS: Final[Mapping[Operation, tuple[Window, ...]]] = {
    **SHARED_QUOTAS,
    Operation.LIST_MESSAGES: tuple(Window(w.limit // 2, w.seconds) for w in SHARED_QUOTAS[Operation.LIST_MESSAGES]),
}
"""What all bots of one process may use of them. People's clients read the same thread, and need the other half."""

THREAD_QUOTAS: Final = frozenset(
    operation for operation, windows in SHARED_QUOTAS.items() if windows is QUOTAS[operation]
)
"""Operations with one quota per thread: what the service refuses to one bot there, it refuses to all."""

MAX_WINDOW_SECONDS: Final = 60.0
"""The longest window of any quota."""

JITTER: Final = 0.05
"""Seconds by which network delays may move requests together, so that the service's window counts more than ours."""


def longest_window(operation: Operation) -> float:
    """Return the seconds after which an exhausted quota of this operation is free again, if nobody uses it meanwhile.

    It is not known which of its windows is exhausted: requests of others that were refused count, and nobody sees them.
    """
    return QUOTAS[operation][-1].seconds + JITTER


class Budget:
    """The remaining quotas of one scope: one thread of a bot, or the bot itself.

    Args:
        quotas: the quotas.
        shared: the budget of quotas shared with other bots of this process; it is checked and counted too.
    """

    __slots__ = ("_assumed_until", "_closed_until", "_counted", "_quotas", "_shared", "_spent")

    def __init__(
        self, quotas: Mapping[Operation, tuple[Window, ...]] = QUOTAS, *, shared: Budget | None = None
    ) -> None:
        self._quotas = quotas
        self._shared = shared
        # Most threads are silent and have spent nothing: None instead of an empty dictionary saves 64 bytes.
        self._spent: dict[Operation, list[float]] | None = None
        self._closed_until: dict[Operation, float] | None = None
        self._counted: dict[int, float] | None = None
        self._assumed_until: float | None = None

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is remembered: no request, and no answer of the service that closed an operation."""
        return not self._spent and not self._counted and not self._closed_until

    @property
    def is_idle(self) -> bool:
        """Whether all of every quota is left, as far as is known, the shared ones included."""
        return self.is_empty and (self._shared is None or self._shared.is_empty)

    def delay(self, operation: Operation, now: float, *, spare: int = 0) -> float:
        """Return the seconds until this request may be made; 0 if it may be made now.

        Args:
            operation: the operation.
            now: the time.
            spare: the number of further requests to leave for other callers.
        """
        ready = now if self._closed_until is None else self._closed_until.get(operation, now)
        spent = None if self._spent is None else self._spent.get(operation)
        if spent:
            for window in self._quotas[operation]:
                limit = window.limit - spare
                if len(spent) >= limit:
                    ready = max(ready, spent[-limit] + window.seconds + JITTER)
        wait = max(0.0, ready - now)
        if (whole := PARTS.get(operation)) is not None:
            wait = max(wait, self.delay(whole, now, spare=spare))
        shared = self._shared
        if shared is None or operation not in SHARED_QUOTAS:
            return wait
        return max(wait, shared.delay(operation, now, spare=spare))

    def left(self, operation: Operation, now: float) -> int:
        """Return how many requests of this operation may be made now."""
        if self._closed_until is not None and self._closed_until.get(operation, now) > now:
            return 0
        spent = () if self._spent is None else self._spent.get(operation, ())
        left = min(
            max(0, window.limit - sum(at + window.seconds > now for at in spent)) for window in self._quotas[operation]
        )
        if self._shared is None or operation not in SHARED_QUOTAS:
            return left
        return min(left, self._shared.left(operation, now))

    def spend(self, operation: Operation, at: float) -> None:
        """Count a request of this bot."""
        self._count(operation, at)
        if (whole := PARTS.get(operation)) is not None:
            self._count(whole, at)
        if self._shared is not None and operation in SHARED_QUOTAS:
            self._shared.spend(operation, at)

    def divide(self, replicas: int) -> None:
        """Use only this process's share of the requests for single threads.

        The rest of the quota to list threads is left to the process that polls the thread list.

        Args:
            replicas: how many processes make requests as the same user.
        """
        if replicas == 1 and self._quotas is QUOTAS:
            return
        whole = QUOTAS[Operation.GET_THREAD][0]
        share = Window(max(1, whole.limit // replicas), whole.seconds * max(1.0, replicas / whole.limit))
        self._quotas = {**QUOTAS, Operation.GET_THREAD: (share,)}

    def assume_previous_process(self, now: float) -> None:
        """Count the requests to list threads that a process of the same bot may have made until just now.

        Its polls of the list were made at their pace. Of the other requests it is not known when they were made, so all
        of them count as made now.
        """
        pace, polls = self._quotas[Operation.POLL_THREADS]
        for number in reversed(range(polls.limit)):
            self.spend(Operation.POLL_THREADS, now - number * (pace.seconds + JITTER))
        for operation in (Operation.WALK_THREADS, Operation.GET_THREAD):
            for _ in range(self._quotas[operation][-1].limit):
                self.spend(operation, now)
        self._assumed_until = now + longest_window(Operation.LIST_THREADS)

    def assumed(self, now: float) -> float:
        """Return the seconds for which the assumed requests of a previous process still count."""
        return 0.0 if self._assumed_until is None else max(0.0, self._assumed_until - now)

    def count_other(self, operation: Operation, at: float, change: int | None) -> None:
        """Count a request of another user that uses the same quota.

        Args:
            operation: the operation.
            at: the time of the request.
            change: identifies the request, because several bots may see it; None if the bot that made it has counted
                it in the shared budget.
        """
        if change is None:
            self._count(operation, at)
        else:
            # Count it once: while a handler is being retried, every poll reads its message again.
            (self._shared or self).count_once(operation, at, change)

    def count_once(self, operation: Operation, at: float, change: int) -> None:
        """Count a request that may be reported several times; only the first report counts."""
        self._counted = self._counted or {}
        if change not in self._counted:
            self._counted[change] = at
            self._count(operation, at)

    def _count(self, operation: Operation, at: float) -> None:
        longest = self._quotas[operation][-1]
        self._spent = self._spent or {}
        spent = self._spent.setdefault(operation, [])  # no deque: one with a single entry takes seven times the memory
        # Drop expired entries: a thread that is busy for hours would otherwise keep up to `limit` of them.
        while spent and (len(spent) >= longest.limit or spent[0] + longest.seconds + JITTER < at):
            del spent[0]
        spent.append(at)

    def block(self, operation: Operation, until: float) -> None:
        """Allow no request of this operation until then, because the service has throttled it."""
        operation = PARTS.get(operation, operation)  # the service knows only the whole
        self._closed_until = self._closed_until or {}
        self._closed_until[operation] = max(until, self._closed_until.get(operation, until))
        if self._shared is not None and operation in THREAD_QUOTAS:
            self._shared.block(operation, until)  # requests of other bots of this process would extend the window

    def block_throttled(self, operation: Operation, now: float, asked: float | None) -> None:
        """Block this operation for as long as the service asks, or for its longest window if it does not say."""
        self.block(operation, now + (asked or longest_window(operation)))

    def expire(self, now: float) -> None:
        """Drop expired entries, so that an idle thread uses no memory."""
        if self._spent is not None:
            for operation in list(self._spent):
                if self._spent[operation][-1] + self._quotas[operation][-1].seconds < now:
                    del self._spent[operation]
            self._spent = self._spent or None
        if self._closed_until is not None:
            for operation in list(self._closed_until):
                if self._closed_until[operation] <= now:
                    del self._closed_until[operation]
            self._closed_until = self._closed_until or None
        if self._counted is not None:
            self._counted = {
                change: at for change, at in self._counted.items() if at + MAX_WINDOW_SECONDS >= now
            } or None
        if self._shared is not None:
            self._shared.expire(now)


class AbandonedHandler(Struct, frozen=True):
    """A handler that is still running after it was canceled.

    Args:
        name: its qualified name.
        place: where it is defined, as `file:line`.
        since: when it was abandoned, in seconds of the event loop's clock.
    """

    name: str
    place: str
    since: float


class Neighbor(Protocol):
    """What a bot offers the other bots of its process."""

    def is_in(self, thread: ThreadId) -> bool:
        """Return whether the bot is in a thread, as far as it knows."""
        ...

    def notice(self, thread: ThreadId, change: int) -> None:
        """Poll a thread in which another bot has seen a change, as a version; without effect if it is known here."""
        ...


class SharedQuotas:
    """State shared by the bots of one process: quotas of threads, abandoned handlers, and who is in which thread.

    Attributes:
        neighbors: the running bots, by user.
        users: the users of these bots; each bot counts its own requests.
        abandoned: handlers that did not end after they were canceled, by bot user and thread ("" for no thread). A bot
            that replaces another must not start a handler next to one of these.
        restored: the users of bots that have read how the previous process ended, which is reported only once.
    """

    def __init__(self) -> None:
        self.users: set[UserId] = set()
        self.neighbors: dict[UserId, Neighbor] = {}
        self.restored: set[UserId] = set()
        self.abandoned: dict[tuple[UserId, str], AbandonedHandler] = {}
        self._budgets: dict[ThreadId, Budget] = {}

    def of(self, thread: ThreadId) -> Budget:
        """Return the shared budget of a thread."""
        if thread not in self._budgets:
            self._budgets[thread] = Budget(PROCESS_QUOTAS)
        return self._budgets[thread]

    def new_budget(self, thread: ThreadId) -> Budget:
        """Return a budget for one bot in a thread."""
        return Budget(shared=self.of(thread))

    def others_in(self, thread: ThreadId) -> int:
        """Return how many of the running bots are in a thread, beside one that is."""
        if len(self.neighbors) < 2:  # most processes have one bot, and each poll asks
            return 0
        return max(0, sum(neighbor.is_in(thread) for neighbor in self.neighbors.values()) - 1)

    def share_change(self, thread: ThreadId, change: int, by: UserId) -> None:
        """Wake the other bots in a thread, because this one has seen a change there that nobody of them made."""
        for user, neighbor in self.neighbors.items():
            if user != by:
                neighbor.notice(thread, change)


class NoQuotas(SharedQuotas):
    """What the bots of one process share if the service limits nobody, as in a replay: no bot waits there."""

    def new_budget(self, thread: ThreadId) -> Budget:
        """Return a budget that is never used up."""
        return Budget(_UNLIMITED)


_UNLIMITED: Final = dict.fromkeys(Operation, (Window(sys.maxsize, 1.0),))
