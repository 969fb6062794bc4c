"""Tell other processes which of their threads the thread list shows: one process polls the list for all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime
from typing import Final

import anyio

from chatbot.bot.environment import BotContext
from chatbot.cluster.notes import ListedThread, ThreadsListed
from chatbot.model import ThreadId, ThreadItem, milliseconds
from chatbot.polling.message_events import time_of
from chatbot.polling.thread_list import CERTAINTY_MS, may_have_moved

AGAIN_SECONDS: Final = CERTAINTY_MS / 1000
"""Seconds after which a thread is reported once more: a note may be lost, and a thread may just move to a process."""

NO_STAMP_SECONDS: Final = 1.0
"""Seconds between two reports of a thread that is listed without a timestamp."""

MANY: Final = 1024
"""Reported timestamps beyond which those are forgotten that the list does not show any more."""


class Forwarding:
    """Reports each new timestamp of a thread of another process at once, and once more after `AGAIN_SECONDS`.

    Args:
        context: The bot's environment.
    """

    def __init__(self, context: BotContext) -> None:
        self._context = context
        self._told: dict[ListedThread, float] = {}
        self._again: deque[tuple[float, ListedThread]] = deque()

    def clear(self) -> None:
        """Report everything that is listed from now on, although it was reported before."""
        self._told.clear()

    def forward(
        self, items: Iterable[ThreadItem], listed_ms: int | None, *, horizon_ms: int | None, is_full: bool
    ) -> dict[ThreadId, bool]:
        """Report threads to their owners; return for each whether it has news.

        Args:
            items: Threads of a page of the list.
            listed_ms: Not later than the service's time now, epoch ms; None if unknown.
            horizon_ms: The service's time, epoch ms, before which everything was reported; None if nothing was.
            is_full: The page belongs to a walk that reports everything.
        """
        now = anyio.current_time()
        threads: dict[ListedThread, None] = {}
        while self._again and self._again[0][0] <= now:
            threads[self._again.popleft()[1]] = None
        news: dict[ThreadId, bool] = {}
        for item in items:
            listed = listed_thread(item)
            has_changed = listed.deleted_ms is not None or may_have_moved(item.last_activity, horizon_ms)
            is_new = has_changed and not self._is_told(listed, now)
            if is_new or is_full:
                threads[listed] = None
            if is_new:
                self._told[listed] = now
                self._again.append((now + AGAIN_SECONDS, listed))
            news[item.id] = is_new
        if threads:
            self._context.ownership.tell(ThreadsListed(self._context.user, listed_ms, tuple(threads)))
        self._expire(horizon_ms)
        return news

    def _is_told(self, listed: ListedThread, now: float) -> bool:
        told_at = self._told.get(listed)
        return told_at is not None and (listed.stamp_ms is not None or now < told_at + NO_STAMP_SECONDS)

    def _expire(self, horizon_ms: int | None) -> None:
        """Forget timestamps that the list cannot show as news any more, if there are many."""
        if len(self._told) > MANY and horizon_ms is not None:
            oldest_ms = horizon_ms - 2 * CERTAINTY_MS
            self._told = {
                listed: at
                for listed, at in self._told.items()
                if listed.deleted_ms is not None or (listed.stamp_ms or 0) >= oldest_ms
            }


def listed_thread(item: ThreadItem) -> ListedThread:
    """Return what is told of a thread in the list."""
    stamp_ms = None if item.last_activity is None else milliseconds(item.last_activity)
    deleted_ms = None if item.deleted_on is None else milliseconds(item.deleted_on)
    return ListedThread(item.id, stamp_ms, deleted_ms)


def item_of(listed: ListedThread) -> ThreadItem:
    """Return a thread in the list as another process has told of it."""
    return ThreadItem(listed.thread, last_activity=_time(listed.stamp_ms), deleted_on=_time(listed.deleted_ms))


def _time(ms: int | None) -> datetime | None:
    return None if ms is None else time_of(ms)
