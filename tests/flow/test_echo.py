from __future__ import annotations

import pytest

from chatbot import Context, Plugin
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time

plugin = Plugin("dice")


@plugin.message()
async def echo(ctx: Context) -> str:
    return ctx.text


@plugin.command("roll")
async def roll(ctx: Context, count: int, sides: int = 6) -> str:
    """Roll COUNT dice of SIDES sides."""
    return f"{count}d{sides}"


async def test_bot() -> None:
    async with chat(plugin) as room:
        ann = room.user("Ann")
        await ann.says("hi", "/roll 2 6")
        await room.restart()
        await ann.says("still there?")
        assert room.replies == ["hi", "2d6", "still there?"]
        await room.advance(days=1)
        print(room.transcript)
