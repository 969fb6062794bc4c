"""The thread list: `list_chat_threads` shows, newest activity first, in which threads there is something new.

Rules of this file
1. Timestamps are floored to seconds and may lag by one (recorded sessions). So a thread may have moved unless its
   timestamp is clearly older than its last poll. A thread without a timestamp is always polled.
2. A walk reads the list down to a horizon, before which everything was reported already. It has passed the horizon when
   the older half of a page lies below it: one thread out of order neither ends a walk nor keeps it going.
3. While little moves, a small page shows it. If that page does not pass the horizon, the list is read from its top
   again in large pages: a link keeps the page size that it was made for.
4. Threads out of order (a few were recorded until July 2021) are found by walks that read the list to its end.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import anyio

from chatbot.errors import ProtocolError
from chatbot.model import ThreadItem, milliseconds
from chatbot.service.base import ChatService, Paging, ThreadPage
from chatbot.service.budget import Budget, Operation

CERTAINTY_MS: Final = 2_000
"""How much older than the last poll a timestamp must be to mean that nothing has happened since."""

PAGE_SIZE: Final = 100
"""Threads a page: the service's own default (recorded sessions)."""

SMALL_PAGE_SIZE: Final = 20
"""Threads of a page that is requested several times a second: a fifth of the bytes and of the work to read them."""

URGENT_THREADS: Final = 1_000
URGENT_PAGES: Final = 20
"""Threads that the first walk of a bot reads before anything else, and in how many pages at most: some are short."""

COVER_MS: Final = CERTAINTY_MS + 1_000
"""How much later than a timestamp a poll begins that covers it: `Date` headers, too, are floored to seconds."""


def may_have_moved(stamp: datetime | None, polled_ms: int | None) -> bool:
    """Return whether there may be something new in a thread since its last poll.

    Args:
        stamp: its `lastMessageReceivedOn`.
        polled_ms: the service's time, epoch ms, at which the last poll began; None if there was none.
    """
    return stamp is None or not is_covered(milliseconds(stamp), polled_ms)


def is_covered(stamp_ms: int, polled_ms: int | None) -> bool:
    """Return whether a poll that began at `polled_ms` has seen everything that a timestamp can mean."""
    return polled_ms is not None and stamp_ms <= polled_ms - CERTAINTY_MS


def passes_horizon(items: Sequence[ThreadItem], horizon_ms: int) -> bool:
    """Return whether a page reaches below the horizon; an empty page, or one without timestamps, does not.

    Args:
        items: a page, newest activity first.
        horizon_ms: the service's time, epoch ms, before which everything was reported.
    """
    stamps = [milliseconds(item.last_activity) for item in items if item.last_activity is not None]
    older = stamps[len(stamps) // 2 :]
    return bool(older) and max(older) < horizon_ms - CERTAINTY_MS


class ThreadListWalk:
    """One walk down the thread list, page by page.

    Args:
        service: whose threads.
        budget: the user's quotas; every page waits for them.
        horizon_ms: where to stop: the service's time, epoch ms, before which everything was reported; None reads all.
        page_size: threads of the first page.
        is_urgent: the first pages may also use the quota of polls.

    Attributes:
        begun_ms: not later than the service's time at the first page; the next walk's horizon. None before, and
            if the service gave no time at all.
        date_ms: the service's clock at the first page; None if it sent no Date.
        pages: how many pages were read.
        is_finished: whether there is no further page, or the horizon was passed.
    """

    __slots__ = (
        "_begun_at",
        "_budget",
        "_fault",
        "_horizon_ms",
        "_is_urgent",
        "_link",
        "_page_size",
        "_paging",
        "_service",
        "_shown",
        "begun_ms",
        "date_ms",
        "is_over",
        "pages",
    )

    def __init__(
        self,
        service: ChatService,
        budget: Budget,
        *,
        horizon_ms: int | None = None,
        page_size: int = PAGE_SIZE,
        is_urgent: bool = False,
    ) -> None:
        self._service = service
        self._budget = budget
        self._horizon_ms = horizon_ms
        self._page_size = page_size
        self._is_urgent = is_urgent
        self._link: str | None = None
        self._paging = Paging("list the threads")
        self._shown: set[int] = set()
        self._fault: ProtocolError | None = None
        self._begun_at = 0.0
        self.begun_ms: int | None = None
        self.date_ms: int | None = None
        self.pages = 0
        self.is_over = False

    @property
    def listed(self) -> int:
        """How many threads the pages have shown."""
        return len(self._shown)

    @property
    def is_urgent(self) -> bool:
        """Whether the walk precedes polls of the top of the list: the first pages of a bot's first walk."""
        return self._is_urgent and self.listed < URGENT_THREADS and self.pages < URGENT_PAGES

    def service_ms(self, now: float) -> int | None:
        """Return a time that is not later than the service's time now, epoch ms; None if the service gave none."""
        return None if self.begun_ms is None else self.begun_ms + int((now - self._begun_at) * 1000)

    def delay(self, now: float) -> float:
        """Return the seconds until the quotas allow the next page."""
        return min(self._budget.delay(part, now) for part in self._parts())

    def _parts(self) -> Sequence[Operation]:
        """Return the parts of the quota that the next page may use, the preferred one first."""
        if self.is_urgent or (self._horizon_ms is not None and self.pages):
            return Operation.WALK_THREADS, Operation.POLL_THREADS
        return (Operation.WALK_THREADS,) if self._horizon_ms is None else (Operation.POLL_THREADS,)

    async def read(self) -> Sequence[ThreadItem]:
        """Return the threads of the next page; those that move meanwhile may come twice.

        Raises:
            ServiceError: as `ChatService.list_threads` does; the same page can be asked for again.
            ProtocolError: the links lead in a circle, or have no end; what was shown before remains true.
        """
        if self._fault is not None:
            raise self._fault
        await anyio.sleep(self.delay(get_running_loop().time()))
        started_at = get_running_loop().time()
        part = min(self._parts(), key=lambda part: self._budget.delay(part, started_at))
        self._budget.spend(part, started_at)
        page = await self._service.list_threads(page_size=self._page_size, link=self._link)
        if not self.pages:
            self._begun_at = started_at
            self.begun_ms = _time_of(page, taken=get_running_loop().time() - started_at)
            self.date_ms = None if page.server_time is None else milliseconds(page.server_time)
        self.pages += 1
        has_passed = self._horizon_ms is not None and passes_horizon(page.items, self._horizon_ms)
        known = len(self._shown)
        self._shown.update(hash(item.id) for item in page.items)
        self.is_over = has_passed or page.next_link is None
        if self._page_size < PAGE_SIZE:
            self._page_size = PAGE_SIZE
        elif page.next_link is not None and not self.is_over:
            self._fault = self._follow(page.next_link, is_news=len(self._shown) > known)
        return page.items

    def _follow(self, link: str, *, is_news: bool) -> ProtocolError | None:
        try:
            self._link = self._paging.follow(link, is_news=is_news)
        except ProtocolError as error:
            return error
        return None


def _time_of(page: ThreadPage, *, taken: float) -> int | None:
    """Return the service's time when it read a page, or a little earlier."""
    if page.server_time is not None:
        # The Date header was written after the read, by at most the time the whole call took.
        return int((page.server_time.timestamp() - taken) * 1000)
    return max(
        (milliseconds(item.last_activity) for item in page.items if item.last_activity is not None), default=None
    )
