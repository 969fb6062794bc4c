"""Reads one thread: a look walks `list_messages` from the newest change down to where everything is settled.

A look is not a snapshot: the service pages by version, so a message that is edited while we walk jumps to the top
behind our back. So a walk of more than one page is followed by another, down to the top of the one before, until
one page covers what changed meanwhile; only then nothing can have slipped through.

It decides nothing: what is new says the cursor, what happens then says the lane.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import anyio

from chatbot.errors import ProtocolError, Throttled
from chatbot.model import ChatMessage, MessageId, ThreadId
from chatbot.polling.cursor import Cursor
from chatbot.polling.sightings import time_of
from chatbot.service.base import ChatService, MessagePage
from chatbot.service.budget import Budget, Operation

PAGE_SIZE: Final = 50
"""Messages a page; pages under 50 could miss messages in November 2021 (communication-ui-library PR 1183)."""

CATCH_UP_PAGE_SIZE: Final = 200
"""Messages a page when a gap is expected: the most the service gives (service limits)."""

HELD_PAGES: Final = 10
"""Pages of a walk kept in memory; of deeper ones only the link is kept, and they are read again, oldest first."""

MAX_WALKS: Final = 8
"""Walks of one look; in a thread so busy that these do not suffice, the base just does not rise this time."""

THROTTLED_PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds to wait, or half as much again, when the service throttles a page in the middle of a look and does not say
how long; then the look gives up. One that has read nothing yet gives up at once."""

RECENT_MS: Final = 2_000
"""How far before the last look a brief one begins; covers the precision of `startTime` and of the service's clock."""


class Interrupted(Exception):
    """The look was told to end while it was reading; what it yielded before remains true."""


@dataclass(frozen=True, slots=True)
class _Page:
    link: str | None
    messages: tuple[ChatMessage, ...]


class Look:
    """One look at a thread, read through `batches`.

    Args:
        bound: the version down to which to read.
        start_time: passed to the service as a mere optimisation; None for a whole look.
        budget: the thread's quotas. A look waits for them, and in its middle for the end of a throttling: a deep walk
            cannot be continued later, only begun again.

    Attributes:
        top: the highest version shown; None while nothing was, or when the thread was too busy to be sure.
        server_time_ms: not later than the service's time at the first read; None if it did not say.
        keys: reply keys of own messages, read so far, each with the eldest message that carries it. A walk goes from
            new to old before anything is yielded, so whoever handles a message knows whether it was answered already.
    """

    __slots__ = (
        "_bound", "_budget", "_has_read", "_is_interrupted", "_page_size", "_reading", "_service", "_start_time",
        "_thread", "keys", "server_time_ms", "top",
    )  # fmt: skip

    def __init__(
        self,
        service: ChatService,
        thread: ThreadId,
        *,
        bound: int,
        budget: Budget,
        start_time: datetime | None = None,
        page_size: int = PAGE_SIZE,
    ) -> None:
        self._service = service
        self._thread = thread
        self._bound = bound
        self._budget = budget
        self._has_read = False
        self._is_interrupted = False
        self._reading = anyio.CancelScope()
        self._start_time = start_time
        self._page_size = page_size
        self.keys: dict[str, MessageId] = {}
        self.top: int | None = None
        self.server_time_ms: int | None = None

    async def batches(self) -> AsyncGenerator[list[ChatMessage]]:
        """Read everything above the bound, older batches first; a message comes again if it changed meanwhile.

        Raises:
            ServiceError: as `ChatService.list_messages` does; what was yielded before remains true.
        """
        bound = self._bound
        recent: dict[int, ChatMessage] = {}
        for _ in range(MAX_WALKS):
            pages = await self._walk(bound)
            top = max((message.version for page in pages for message in page.messages), default=bound)
            if len(pages) > HELD_PAGES and recent:
                yield list(recent.values())
                recent = {}
            for page in reversed(pages[HELD_PAGES:]):
                yield await self._read_again(page, bound, top)
            for page in pages[:HELD_PAGES]:
                _keep_newest(recent, page.messages, bound)
            if len(pages) == 1:
                self.top = max(top, self.top or 0) or None
                break
            bound = self.top = top
        else:
            self.top = None
        yield list(recent.values())

    async def _walk(self, bound: int) -> list[_Page]:
        """Follow the links down to the bound, forgetting the contents of deep pages."""
        pages: list[_Page] = []
        link: str | None = None
        while True:
            page = await self._fetch(link)
            pages.append(_Page(link, page.messages if len(pages) < HELD_PAGES else page.messages[:1]))
            if page.next_link is None or any(message.version <= bound for message in page.messages):
                return pages
            if page.next_link == link:
                text = "list_messages answered a page whose nextLink leads to itself"
                raise ProtocolError(text)
            link = page.next_link

    async def _read_again(self, page: _Page, bound: int, top: int) -> list[ChatMessage]:
        again = await self._fetch(page.link)
        kept: dict[int, ChatMessage] = {}
        _keep_newest(kept, again.messages, bound)
        # What is newer than the walk is out of turn here; the next walk shows it in its place.
        return [message for message in kept.values() if message.version <= top]

    def interrupt(self) -> None:
        """End the look at its next read, or in the read that is under way."""
        self._is_interrupted = True
        self._reading.cancel()

    async def _fetch(self, link: str | None) -> MessagePage:
        """Read one page, when the quota allows it."""
        throttled: Throttled | None = None
        for pause in THROTTLED_PAUSES:
            self._reading = anyio.CancelScope()
            if self._is_interrupted:
                raise Interrupted
            with self._reading:
                delay = self._budget.delay(Operation.LIST_MESSAGES, anyio.current_time())
                if delay:
                    await anyio.sleep(delay)
                try:
                    return self._take(await self._ask(link))
                except Throttled as error:
                    if not self._has_read:
                        raise  # nothing is lost yet: others need not wait behind this thread
                    throttled = error
                    wait = (error.retry_after or pause) * random.uniform(1.0, 1.5)  # noqa: S311 - not a secret
                    self._budget.close(Operation.LIST_MESSAGES, anyio.current_time() + wait)
        raise Interrupted if self._is_interrupted or throttled is None else throttled

    async def _ask(self, link: str | None) -> MessagePage:
        begun = anyio.current_time()
        self._budget.spend(Operation.LIST_MESSAGES, begun)
        page = await self._service.list_messages(
            self._thread, start_time=self._start_time, page_size=self._page_size, link=link
        )
        if self.server_time_ms is None and page.server_time is not None:
            # The Date header was written after the read, by at most the time the whole call took.
            taken = anyio.current_time() - begun
            self.server_time_ms = int((page.server_time.timestamp() - taken) * 1000)
        self._has_read = True
        return page

    def _take(self, page: MessagePage) -> MessagePage:
        for message in page.messages:
            if message.sender == self._service.user and message.reply_key is not None:
                elder = self.keys.setdefault(message.reply_key, message.id)
                self.keys[message.reply_key] = min(elder, message.id, key=int)
        return page


def _keep_newest(kept: dict[int, ChatMessage], messages: tuple[ChatMessage, ...], bound: int) -> None:
    for message in messages:
        known = kept.get(message.number)
        if message.version > bound and (known is None or message.version > known.version):
            kept[message.number] = message


def whole_look(
    service: ChatService, thread: ThreadId, cursor: Cursor, budget: Budget, *, catch_up: bool = False
) -> Look:
    """A look at everything that is not settled, independent of how the service reads `startTime`."""
    page_size = CATCH_UP_PAGE_SIZE if catch_up else PAGE_SIZE
    return Look(service, thread, bound=cursor.low, budget=budget, page_size=page_size)


def brief_look(
    service: ChatService, thread: ThreadId, cursor: Cursor, budget: Budget, *, looked_ms: int | None = None
) -> Look:
    """A look for the newest only, whose page is empty when nothing happened. It never moves the base.

    Args:
        service: whose view.
        thread: where.
        cursor: what was seen.
        budget: the thread's quotas.
        looked_ms: the service's time, epoch ms, at which the last look began: what was there then was seen then.
    """
    since = cursor.top if looked_ms is None else looked_ms
    bound = max(since - RECENT_MS, cursor.low)
    start_time = time_of(max(bound, 0) // 1000 * 1000)
    return Look(service, thread, bound=bound, budget=budget, start_time=start_time)
