"""What lanes have to write that can wait: in one transaction for all of them, about once a second.

It is what came of a send, that a receipt was sent, that a message needs no handler: whatever a crash before it was
written is healed of by reading. The next event of the same thread takes it along, if that comes first. So an event
with a reply costs one transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from chatbot.errors import StoreError
from chatbot.stores.base import Write

if TYPE_CHECKING:
    from chatbot.bot.bot import Bot
    from chatbot.bot.handling import Handling

DEFER_SECONDS: Final = 1.0
"""How long it waits for others; a crash in this time makes the next start read the thread again."""


class Deferred:
    """The deferred writes of one bot.

    Args:
        bot: whose.
    """

    def __init__(self, bot: Bot) -> None:
        self._bot = bot
        self._owing: dict[Handling, None] = {}
        self._in_hand: frozenset[Handling] = frozenset()
        self._turn = anyio.Lock()
        self._called = anyio.Event()

    def note(self, handling: Handling) -> None:
        """A thread has something to write."""
        self._owing[handling] = None
        self._called.set()

    async def run(self) -> None:
        """Write again and again, until cancelled."""
        while True:
            await self._called.wait()
            await anyio.sleep(DEFER_SECONDS)
            await self.write()

    async def write(self) -> None:
        """Write what there is; if the store cannot, it waits on."""
        async with self._turn:
            self._called = anyio.Event()
            owing, self._owing = frozenset(self._owing), {}
            taken = {handling: handling.take_deferred() for handling in owing}
            writes: list[Write] = []
            for handling, one in taken.items():
                writes += [*one.writes, *handling.marked(one.marks)]
            if not writes:
                return
            self._in_hand = owing
            try:
                await self._bot.commit(writes)
            except StoreError as error:
                self._bot.trouble.met("store", error)
                for handling, one in taken.items():
                    handling.put_back(one)
                    self.note(handling)
            finally:
                self._in_hand = frozenset()

    async def written(self, handling: Handling) -> None:
        """Wait while something of this thread is being written: what comes later is not to be written before it."""
        if handling in self._in_hand:
            async with self._turn:
                pass
