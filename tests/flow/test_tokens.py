from __future__ import annotations

import pytest

from chatbot import Context, Plugin
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time

plugin = Plugin("echo")


@plugin.message()
async def echo(ctx: Context) -> str:
    return ctx.text


async def test_a_bot_outlives_its_tokens() -> None:
    async with chat(plugin) as room:
        await room.user("Ann").says("one")
        await room.advance(days=3)
        await room.user("Ann").says("two")

        assert room.replies == ["one", "two"]
        assert not [call for call in room.emulator.calls if call.status == 401]


async def test_a_bot_gets_over_a_revoked_token() -> None:
    async with chat(plugin) as room:
        await room.user("Ann").says("one")
        room.emulator.revoke_tokens(room.bot.user)
        await room.user("Ann").says("two")

        assert room.replies == ["one", "two"]
