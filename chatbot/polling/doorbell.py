"""One `list_chat_threads` tells, newest activity first, which of a bot's threads have moved.

Stamps are floored to seconds and may lag by one (recorded sessions), so a thread rings while its stamp is not
clearly older than the last look at it; a missing stamp rings always.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Final

import anyio

from chatbot.model import ThreadItem
from chatbot.service.base import ChatService
from chatbot.service.budget import Budget, Operation

CERTAINTY_MS: Final = 2_000
"""How much older than the last look a stamp must be to mean: nothing since."""

PAGE_SIZE: Final = 100
"""Threads a page: the service's own default (recorded sessions)."""


def rings(stamp: datetime | None, looked_ms: int | None) -> bool:
    """Whether a thread may have moved since it was last looked at.

    Args:
        stamp: its `lastMessageReceivedOn`.
        looked_ms: the service's time, epoch ms, at which the last look began; None if it never did.
    """
    if stamp is None or looked_ms is None:
        return True
    return stamp.timestamp() * 1000 > looked_ms - CERTAINTY_MS


async def listen(
    service: ChatService, is_news: Callable[[ThreadItem], bool], budget: Budget, *, to_the_end: bool = False
) -> AsyncIterator[ThreadItem]:
    """Yield the threads that are news, reading on only while pages hold any.

    Args:
        service: whose threads.
        is_news: asked once for every listed thread; a thread that moves meanwhile may be listed twice.
        budget: the user's quotas; every page waits for its turn.
        to_the_end: read all pages, for the few threads that the service lists out of order.

    Raises:
        ServiceError: as `ChatService.list_threads` does.
    """
    link: str | None = None
    while True:
        await anyio.sleep(budget.delay(Operation.LIST_THREADS, anyio.current_time()))
        budget.spend(Operation.LIST_THREADS, anyio.current_time())
        page = await service.list_threads(page_size=PAGE_SIZE, link=link)
        news = [item for item in page.items if is_news(item)]
        for item in news:
            yield item
        is_exhausted = bool(page.items) and not news and not to_the_end
        if page.next_link is None or page.next_link == link or is_exhausted:
            return
        link = page.next_link
