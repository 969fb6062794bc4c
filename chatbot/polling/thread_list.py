"""One `list_chat_threads` tells, newest activity first, which of a bot's threads have moved.

Rules of this file
1. Stamps are floored to seconds and may lag by one (recorded sessions), so a thread rings while its stamp is not
   clearly older than the last look at it; a missing stamp rings always.
2. A walk reads down to a horizon, before which everything was told already, and no further. It has passed it when the
   older half of a page lies below: a single thread out of order neither ends a walk nor keeps it going.
3. Threads out of order (a few, recorded until July 2021) are found by walks that read on to the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import anyio

from chatbot.errors import ProtocolError
from chatbot.model import ThreadItem, milliseconds
from chatbot.service.base import ChatService, Paging, ThreadPage
from chatbot.service.budget import Budget, Operation

CERTAINTY_MS: Final = 2_000
"""How much older than the last look a stamp must be to mean: nothing since."""

PAGE_SIZE: Final = 100
"""Threads a page: the service's own default (recorded sessions)."""


def may_have_moved(stamp: datetime | None, looked_ms: int | None) -> bool:
    """Whether a thread may have moved since it was last looked at.

    Args:
        stamp: its `lastMessageReceivedOn`.
        looked_ms: the service's time, epoch ms, at which the last look began; None if it never did.
    """
    return stamp is None or not is_covered(milliseconds(stamp), looked_ms)


def is_covered(stamp_ms: int, looked_ms: int | None) -> bool:
    """Whether a look that began at `looked_ms` has seen everything that a stamp can mean."""
    return looked_ms is not None and stamp_ms <= looked_ms - CERTAINTY_MS


def passes_horizon(items: Sequence[ThreadItem], horizon_ms: int) -> bool:
    """Whether a page reaches below the horizon; one that says nothing (empty, or without stamps) does not.

    Args:
        items: a page, newest activity first.
        horizon_ms: the service's time, epoch ms, before which everything was told.
    """
    stamps = [milliseconds(item.last_activity) for item in items if item.last_activity is not None]
    older = stamps[len(stamps) // 2 :]
    return bool(older) and max(older) < horizon_ms - CERTAINTY_MS


class ThreadListWalk:
    """One walk down the list of threads, read page by page.

    Args:
        service: whose threads.
        budget: the user's quotas; every page waits for its turn.
        horizon_ms: where to stop: the service's time, epoch ms, before which everything was told; None reads all.

    Attributes:
        begun_ms: not later than the service's time at the first page; the next walk's horizon. None before, and
            where the service told no time at all.
        date_ms: the service's clock at the first page; None where it sent no Date.
        pages: how many were read.
        is_over: there is no further page, or the horizon was passed.
    """

    __slots__ = (
        "_budget",
        "_fault",
        "_horizon_ms",
        "_link",
        "_paging",
        "_service",
        "_shown",
        "begun_ms",
        "date_ms",
        "is_over",
        "pages",
    )

    def __init__(self, service: ChatService, budget: Budget, *, horizon_ms: int | None = None) -> None:
        self._service = service
        self._budget = budget
        self._horizon_ms = horizon_ms
        self._link: str | None = None
        self._paging = Paging("list the threads")
        self._shown: set[int] = set()
        self._fault: ProtocolError | None = None
        self.begun_ms: int | None = None
        self.date_ms: int | None = None
        self.pages = 0
        self.is_over = False

    async def read(self) -> Sequence[ThreadItem]:
        """The threads of the next page; those that move meanwhile may come twice.

        Raises:
            ErrorResponse: as `ChatService.list_threads` does; the same page can be asked for again.
            ProtocolError: the links lead in a circle, or have no end; what was shown before remains true.
        """
        if self._fault is not None:
            raise self._fault
        await anyio.sleep(self._budget.delay(Operation.LIST_THREADS, anyio.current_time()))
        begun = anyio.current_time()
        self._budget.spend(Operation.LIST_THREADS, begun)
        page = await self._service.list_threads(page_size=PAGE_SIZE, link=self._link)
        if not self.pages:
            self.begun_ms = _time_of(page, taken=anyio.current_time() - begun)
            self.date_ms = None if page.server_time is None else milliseconds(page.server_time)
        self.pages += 1
        has_passed = self._horizon_ms is not None and passes_horizon(page.items, self._horizon_ms)
        known = len(self._shown)
        self._shown.update(hash(item.id) for item in page.items)
        self.is_over = has_passed or page.next_link is None
        if page.next_link is not None and not self.is_over:
            self._fault = self._follow(page.next_link, is_news=len(self._shown) > known)
        return page.items

    def _follow(self, link: str, *, is_news: bool) -> ProtocolError | None:
        try:
            self._link = self._paging.follow(link, is_news=is_news)
        except ProtocolError as error:
            return error
        return None


def _time_of(page: ThreadPage, *, taken: float) -> int | None:
    """The service's time when it read a page, or a little earlier."""
    if page.server_time is not None:
        # The Date header was written after the read, by at most the time the whole call took.
        return int((page.server_time.timestamp() - taken) * 1000)
    return max(
        (milliseconds(item.last_activity) for item in page.items if item.last_activity is not None), default=None
    )
