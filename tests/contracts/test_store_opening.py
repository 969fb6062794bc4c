"""Every store is used while it is open, and open once at a time."""

import pytest

from chatbot.actions import ActionKey
from chatbot.errors import StateError, StoreInUse
from tests.contracts.records import ANN, BOT, begin


class TestOpening:
    async def test_a_store_is_used_only_while_it_is_open(self, reopen):
        store = reopen()
        uses = [
            lambda: store.commit(BOT, []),
            lambda: store.find_bot("a", "b"),
            lambda: store.bots(),
            lambda: store.threads(BOT),
            lambda: store.pending(BOT),
            lambda: store.row(BOT, ActionKey("a")),
            lambda: store.attempts(BOT),
            lambda: store.dead_letters(BOT),
            lambda: store.forget(ANN),
        ]

        for use in uses:
            with pytest.raises(StateError, match="the store is not open: use it inside `async with store:`"):
                await use()
        async with store:
            for use in uses:
                await use()
        for use in uses:
            with pytest.raises(StateError, match="the store is not open"):
                await use()

    async def test_a_store_is_open_once_at_a_time(self, reopen):
        async with reopen() as store:
            with pytest.raises(StoreInUse):
                await reopen().__aenter__()

            await store.commit(BOT, [begin()])
        async with reopen() as store:
            assert len(await store.threads(BOT)) == 1
