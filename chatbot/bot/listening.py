"""Hears the doorbell for a bot: which of its threads have moved, which are new, and which are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from chatbot.bot.membership import Presence
from chatbot.errors import ServiceError, Throttled
from chatbot.model import ThreadItem
from chatbot.polling.doorbell import listen, rings
from chatbot.service.budget import Operation

if TYPE_CHECKING:
    from chatbot.bot.bot import Bot

FULL_WALK_SECONDS: Final = 600.0
"""How often the list of threads is read to its end: a few threads are listed out of order (recorded sessions)."""

MAX_PAUSE: Final = 30.0


class Listening:
    """What a bot hears.

    Args:
        bot: whose threads.

    Attributes:
        has_walked: the list of threads was read to its end since the start.
    """

    def __init__(self, bot: Bot) -> None:
        self._bot = bot
        self._summoned = anyio.Event()
        self.has_walked = False

    def summon(self) -> None:
        """Have the doorbell asked as soon as possible, rather than at its next beat."""
        self._summoned.set()

    async def run(self) -> None:
        """Ask again and again which threads have moved."""
        full_walk_at = anyio.current_time()
        failures = 0
        self._bot.watch.doorbell()
        while not self._bot.is_stopping:
            now = anyio.current_time()
            pause = self._bot.settings.cadence.interval
            try:
                await self._ring(to_the_end=now >= full_walk_at)
                self._bot.trouble.over("list threads")
                self.has_walked = True
                full_walk_at = now + FULL_WALK_SECONDS if now >= full_walk_at else full_walk_at
                failures = 0
            except ServiceError as error:
                failures += 1
                pause = self._pause_after(error, failures)
            self._bot.watch.doorbell(pause)
            with anyio.move_on_after(pause):
                await self._summoned.wait()
            self._summoned = anyio.Event()

    def _pause_after(self, error: ServiceError, failures: int) -> float:
        self._bot.trouble.met("list threads", error)
        asked_for: float | None = getattr(error, "retry_after", None)
        pause = asked_for or self._bot.jitter(min(MAX_PAUSE, 2.0 ** min(failures, 5)))
        if isinstance(error, Throttled):
            self._bot.budget.close(Operation.LIST_THREADS, anyio.current_time() + pause)
        return pause

    async def _ring(self, *, to_the_end: bool) -> None:
        async for item in listen(self._bot.service, self._is_news, self._bot.budget, to_the_end=to_the_end):
            lane = self._bot.lanes.get(item.id)
            if lane is None:
                self._bot.begin(item.id, item.last_activity)
            elif item.deleted_on is not None:
                lane.end()
            elif lane.membership.presence is Presence.OUT:
                lane.membership.probe(item.last_activity)
            self._bot.turns.ring(item.id)

    def _is_news(self, item: ThreadItem) -> bool:
        """Whether a listed thread needs a look."""
        self._bot.watch.doorbell()
        lane = self._bot.lanes.get(item.id)
        if lane is None:
            return item.deleted_on is None and self._bot.serves(item.id)
        if lane.membership.presence is Presence.OUT:
            if item.deleted_on is not None:
                return False
            return lane.membership.is_worth_a_probe(item.last_activity, lane.looking.looked_ms, anyio.current_time())
        return item.deleted_on is not None or rings(item.last_activity, lane.looking.looked_ms)
