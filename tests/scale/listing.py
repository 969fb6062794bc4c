"""The thread list of one bot, read by the process that owns the bot, in virtual time.

A walk, its horizon and the quotas are the bot's own (`ThreadListWalk`, `Budget`); the service is simulated. How walks
follow each other is repeated here from `chatbot.bot.discovery`, which needs a whole bot.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

from chatbot.bot.discovery import COMPLETE_POLL_SECONDS, FEW_MOVED
from chatbot.model import ThreadId, ThreadItem, milliseconds
from chatbot.polling.cadence import Cadence
from chatbot.polling.thread_list import COVER_MS, PAGE_SIZE, SMALL_PAGE_SIZE, ThreadListWalk, may_have_moved
from chatbot.service.base import ThreadPage
from chatbot.service.budget import QUOTAS, Budget, Operation, Window
from chatbot.testing.virtual_time import VirtualTimeLoop
from tests.scale.assumptions import REQUEST_SECONDS

START: Final = 1_800_000_000
"""The service's time when a simulation begins."""

LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)

LEAST_RATE: Final = 3.0
"""Messages a second that are simulated at least, so that there are enough of them. So few do not delay each other."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What reading the thread list came to.

    Args:
        requests: requests a second.
        used: the largest part of the quota that was used in its window, 0 to 1.
        waits: seconds from each message to the answer that showed its thread, sorted.
        keeps_up: whether messages do not wait longer and longer.
    """

    requests: float
    used: float
    waits: Sequence[float]
    keeps_up: bool


def simulate(threads: int, rate: float, *, seconds: float = 60.0) -> Listing:
    """Let people write in random threads of a bot, and let it read its thread list with the default settings.

    Args:
        threads: the bot's threads.
        rate: messages a second in all of them.
        seconds: virtual time that is measured; as much goes by before.
    """
    loop = VirtualTimeLoop()
    try:
        return loop.run_until_complete(_simulate(max(threads, PAGE_SIZE), max(rate, LEAST_RATE), seconds))
    finally:
        loop.close()


async def _simulate(threads: int, rate: float, seconds: float) -> Listing:
    service = SimulatedList(threads, rate)
    discovery = Discovery(service)
    await discovery.run_until(seconds)
    before, service.waits, begun = sorted(service.waits), [], len(service.requests)
    began = service.requests[-1]
    await discovery.run_until(2 * seconds)
    waits = sorted(service.waits)
    return Listing(
        requests=(len(service.requests) - begun) / (service.requests[-1] - began),
        used=busiest(service.requests, QUOTAS[Operation.LIST_THREADS]),
        waits=waits,
        # What is not found waits below everything that is, so those that were found must be nearly all.
        keeps_up=len(service.waiting) < rate * max(10.0, 4 * quantile(waits, 0.5))
        and quantile(waits, 0.5) < 1.5 * quantile(before, 0.5) + 0.2,
    )


class SimulatedList:
    """The service's list of one user's threads, the latest activity first. Stands in for a `ChatService`.

    Attributes:
        requests: when the list was requested.
        waiting: the threads with a message that was not shown yet, and since when.
        waits: how long the others waited, seconds.
        polled_ms: when the bot last polled a thread, epoch ms of the service.
    """

    def __init__(self, threads: int, rate: float) -> None:
        self.requests: list[float] = []
        self.waiting: dict[int, float] = {}
        self.waits: list[float] = []
        self.polled_ms: dict[int, int] = {}
        self._threads = threads
        self._rate = rate
        self._random = Random(0)
        self._next = 0.0
        self._replies: list[tuple[float, int]] = []
        self._log: list[tuple[float, int]] = []
        self._place: dict[int, int] = {}

    async def list_threads(self, *, page_size: int, link: str | None = None) -> ThreadPage:
        """Answer as the service does, half a request's time after the question."""
        clock = asyncio.get_running_loop().time
        self.requests.append(clock())
        await asyncio.sleep(REQUEST_SECONDS / 2)
        self._go_on(clock())
        page = self._page(page_size, None if link is None else int(link))
        now = clock() + REQUEST_SECONDS / 2
        for item in page.items:
            self._show(item, now)
        await asyncio.sleep(REQUEST_SECONDS / 2)
        return page

    def has_news(self, item: ThreadItem, now: float) -> bool:
        """Return whether the bot polls a listed thread, which it has done since the message, or does now."""
        if item.last_activity is None or item.last_activity == LONG_AGO:
            return False
        polled_ms, now_ms = self.polled_ms[int(item.id)], int((START + now) * 1000)
        if now_ms >= milliseconds(item.last_activity) + COVER_MS:
            polled_ms = now_ms  # by the poll that covers the whole second
        return may_have_moved(item.last_activity, polled_ms)

    def _go_on(self, now: float) -> None:
        """Let people write, and the bot reply, until now."""
        while self._next <= now:
            thread = self._random.randrange(self._threads)
            self._let_replies(self._next)
            self._touch(thread, self._next)
            self.waiting.setdefault(thread, self._next)
            self._next += self._random.expovariate(self._rate)
        self._let_replies(now)

    def _let_replies(self, now: float) -> None:
        while self._replies and self._replies[0][0] <= now:
            at, thread = heapq.heappop(self._replies)
            self._touch(thread, at)

    def _touch(self, thread: int, at: float) -> None:
        self._place[thread] = len(self._log)
        self._log.append((at, thread))

    def _show(self, item: ThreadItem, now: float) -> None:
        if item.last_activity == LONG_AGO:
            return
        since = self.waiting.pop(thread := int(item.id), None)
        if since is not None:
            self.waits.append(now - since)
            self.polled_ms[thread] = int((START + now) * 1000)
            # A poll, then the reply.
            heapq.heappush(self._replies, (now + 2 * REQUEST_SECONDS, thread))

    def _page(self, size: int, place: int | None) -> ThreadPage:
        """Return a page from a place in the log down; below it are the threads that were silent all the time."""
        items: list[ThreadItem] = []
        place = len(self._log) - 1 if place is None else place
        while place >= 0 and len(items) < size:
            at, thread = self._log[place]
            if self._place[thread] == place:
                items.append(ThreadItem(ThreadId(str(thread)), last_activity=_second(at)))
            place -= 1
        silent = self._threads - len(self._place)
        first = -1 - place
        quiet = range(first, min(first + size - len(items), silent)) if place < 0 else range(0)
        items += [ThreadItem(ThreadId(f"silent {number}"), last_activity=LONG_AGO) for number in quiet]
        place -= len(quiet)
        is_last = -1 - place >= silent
        time = _second(asyncio.get_running_loop().time())
        return ThreadPage(tuple(items), next_link=None if is_last else str(place), server_time=time)


class Discovery:
    """Reads the list as `ThreadWatcher` does: the top every `poll.interval`, down to the horizon every second, and all.

    Args:
        service: the list.
    """

    def __init__(self, service: SimulatedList) -> None:
        self._service = service
        self._budget = Budget()
        self._cadence = Cadence()
        self._clock = asyncio.get_running_loop().time
        self._horizon_ms = START * 1000
        self._completed_at = 0.0
        self._page_size = SMALL_PAGE_SIZE
        self._full: ThreadListWalk | None = self._walk(None, PAGE_SIZE)

    async def run_until(self, end: float) -> None:
        """Poll until then. One read of the whole list begins at once, as it does every ten minutes."""
        while self._clock() < end:
            begun = self._clock()
            await self._read_top()
            spent = self._clock() - begun
            until, is_top_due = self._clock() + max(spent, self._cadence.interval - spent), False
            while self._full is not None and not is_top_due and not self._full.delay(self._clock()):
                await self._full.read()
                self._full = None if self._full.is_over else self._full
                is_top_due = self._clock() >= until
            await asyncio.sleep(max(0.0, begun + self._cadence.interval - self._clock()))

    async def _read_top(self) -> None:
        now = self._clock()
        walk = self._walk(self._horizon_ms, self._page_size)
        news = await self._read(walk)
        self._page_size = SMALL_PAGE_SIZE if sum(news) <= FEW_MOVED else PAGE_SIZE
        if now < self._completed_at + COMPLETE_POLL_SECONDS and not any(news[len(news) // 2 :]) and not walk.is_over:
            return
        while not walk.is_over:
            await self._read(walk)
        self._horizon_ms, self._completed_at = walk.begun_ms or self._horizon_ms, now

    async def _read(self, walk: ThreadListWalk) -> list[bool]:
        items = await walk.read()
        return [self._service.has_news(item, self._clock()) for item in items]

    def _walk(self, horizon_ms: int | None, page_size: int) -> ThreadListWalk:
        service: Any = self._service  # of a ChatService, a walk needs only the list
        return ThreadListWalk(service, self._budget, horizon_ms=horizon_ms, page_size=page_size)


def _second(at: float) -> datetime:
    return datetime.fromtimestamp(int(START + at), UTC)


def busiest(times: Sequence[float], windows: Sequence[Window]) -> float:
    """Return the largest part of a quota that was used in any of its windows, 0 to 1, given sorted times."""
    most = 0.0
    for window in windows:
        first = 0
        for last, at in enumerate(times):
            while times[first] <= at - window.seconds:
                first += 1
            most = max(most, (last - first + 1) / window.limit)
    return most


def quantile(values: Sequence[float], part: float) -> float:
    """Return a quantile of sorted values; 0 of none."""
    return values[min(len(values) - 1, int(part * len(values)))] if values else 0.0
