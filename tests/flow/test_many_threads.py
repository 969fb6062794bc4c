"""A bot in many threads: polls keep to the quotas, and silent threads cost only polls of the thread list."""

from __future__ import annotations

import collections

import anyio
import pytest

from chatbot import Context, Plugin
from chatbot.bot import BotSettings
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time

THREADS = 120

plugin = Plugin("echo")


@plugin.message()
async def echo(ctx: Context) -> str:
    return ctx.text


async def test_hundreds_of_threads_are_found_and_answered_without_ever_being_throttled() -> None:
    async with chat(plugin, settings=BotSettings()) as room:
        ann = room.user("Ann")
        threads = [room.emulator.create_thread(ann.user, f"{n}", [room.bot.user]) for n in range(THREADS)]
        for thread in threads:
            room.emulator.send(thread, ann.user, "hi")
        await ann.says("hi")
        await room.advance(seconds=5)

        assert all(room.emulator.texts(thread)[-1][1] == "hi" for thread in threads)
        assert {len(room.emulator.texts(thread)) for thread in threads} == {2}
        assert 429 not in {call.status for call in room.emulator.calls}


async def test_silent_threads_are_polled_at_their_slow_interval_only() -> None:
    async with chat(plugin, settings=BotSettings()) as room:
        ann = room.user("Ann")
        for number in range(5):
            room.emulator.create_thread(ann.user, f"{number}", [room.bot.user])
        await ann.says("hi")
        await room.advance(minutes=10)

        begun = room.stage.clock() * 1000
        await room.advance(minutes=2)

        calls = collections.Counter(call.operation for call in room.emulator.calls if call.at >= begun)
        assert calls["list_messages"] <= 6 * 5  # one in thirty seconds each
        assert calls["list_threads"] <= 2 * 60 * 33 / 10 + 1


async def test_slow_handlers_in_many_threads_keep_no_other_thread_from_being_answered() -> None:
    slow = Plugin("slow")

    @slow.message()
    async def think(ctx: Context) -> str:
        if ctx.text == "think":
            await anyio.sleep(50)
        return ctx.text

    async with chat(slow, settings=BotSettings(max_turns=4, max_handlers=8)) as room:
        ann = room.user("Ann")
        await ann.joins()
        for number in range(6):
            thread = room.emulator.create_thread(ann.user, f"{number}", [room.bot.user])
            room.emulator.send(thread, ann.user, "think")
        with room.not_waiting():
            await room.advance(seconds=5)
            begun = room.stage.clock()
        await ann.says("quick")

        assert room.replies == ["quick"]
        assert room.stage.clock() - begun < 5
