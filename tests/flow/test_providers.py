from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from chatbot import BotStarted, Context, Plugin
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time


class Shop:
    """What a bot keeps open as long as it runs."""


async def test_provided_objects_exist_from_before_the_start_of_a_bot_until_its_end() -> None:
    plugin, log = Plugin("shop"), list[str]()

    @plugin.provide
    async def shop() -> AsyncIterator[Shop]:
        log.append("opened")
        yield Shop()
        log.append("closed")

    @plugin.on(BotStarted)
    async def started(ctx: Context[BotStarted], shop: Shop) -> None:
        log.append("started")

    @plugin.command("buy")
    async def buy(ctx: Context, shop: Shop, item: str) -> str:
        log.append("sold")
        return item

    async with chat(plugin) as room:
        await room.user("Ann").says("/buy tea")
        assert room.replies == ["tea"]
        assert log == ["opened", "started", "sold"]

    assert log[-1] == "closed"
