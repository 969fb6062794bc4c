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


async def test_a_conversation_goes_on_over_a_restart_and_a_day() -> None:
    async with chat(plugin) as room:
        ann = room.user("Ann")
        await ann.says("hi", "/roll 2 6")
        await room.restart()
        await ann.says("still there?")
        await room.advance(days=1)
        await ann.says("good morning")

        assert room.replies == ["hi", "2d6", "still there?", "good morning"]


async def test_each_reply_follows_its_message() -> None:
    async with chat(plugin) as room:
        await room.user("Ann").says("one", "two")

        assert room.said == [("Ann", "one"), ("bot", "one"), ("Ann", "two"), ("bot", "two")]


async def test_html_is_answered_as_plain_text() -> None:
    async with chat(plugin) as room:
        await room.user("Ann").says("<p>fish &amp; <b>chips</b></p>", html=True)

        assert room.replies == ["fish & chips"]


async def test_what_was_read_is_confirmed() -> None:
    async with chat(plugin) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.says("hi")
        await bob.says("hello")

        assert room.read == {"bot": "hello"}


async def test_a_silent_day_costs_few_requests() -> None:
    async with chat(plugin) as room:
        await room.user("Ann").says("hi")
        before = len(room.emulator.calls)
        await room.advance(days=1)

        assert len(room.emulator.calls) - before < 500
