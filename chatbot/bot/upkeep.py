"""What a bot does from time to time: forget what is settled, note up to when everything is, sum up failures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import anyio

from chatbot.errors import StoreError
from chatbot.stores.base import MoveHorizon, Prune, Write

if TYPE_CHECKING:
    from chatbot.bot.bot import Bot

UPKEEP_SECONDS: Final = 60.0
"""Between two times; what was noted is at most so old after a kill."""


class Upkeep:
    """The upkeep of one bot.

    Args:
        bot: whose.
    """

    def __init__(self, bot: Bot) -> None:
        self._bot = bot

    async def run(self) -> None:
        """Do it again and again, until cancelled."""
        while True:
            self._bot.failures.sum_up(anyio.current_time())
            before_ms = int((self._bot.clock() - self._bot.settings.retention.total_seconds()) * 1000)
            await self._commit([Prune(before_ms), *self._horizon()])
            await anyio.sleep(UPKEEP_SECONDS)

    async def note_horizon(self) -> None:
        """Let the next start know which threads need no look at once; losing that costs it looks, no more."""
        if horizon := self._horizon():
            await self._commit(horizon)

    def _horizon(self) -> list[Write]:
        if self._bot.settings.threads is not None:
            return []  # it holds for all threads or none, and others may be served next time
        settled_ms = self._bot.listening.settled_ms()
        return [] if settled_ms is None else [MoveHorizon(settled_ms)]

    async def _commit(self, writes: Sequence[Write]) -> None:
        try:
            await self._bot.commit(writes)
        except StoreError as error:
            self._bot.trouble.met("store", error)
