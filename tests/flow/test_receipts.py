"""Receipts are a courtesy: a refused one is forgotten, any other one arrives in the end, and none holds anything up."""

from __future__ import annotations

import pytest

from chatbot import Context, Plugin
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time


def listener() -> Plugin:
    plugin = Plugin("listener")

    @plugin.message()
    async def listen(ctx: Context) -> None:
        pass

    return plugin


@pytest.mark.parametrize("fault", ["500", "reset", "reset-after", "429"])
async def test_a_receipt_that_got_lost_is_sent_again(fault: str) -> None:
    async with chat(listener()) as room:
        room.emulator.faults.add(f"send_read_receipt:{fault},times=3,user={room.bot.user}")

        await room.user("Ann").says("hi")
        await room.advance(minutes=1)

        assert room.read["bot"] == "hi"
        calls = [call for call in room.emulator.calls if call.operation == "send_read_receipt"]
        assert len(calls) == 4


async def test_a_receipt_that_is_refused_is_not_sent_again() -> None:
    async with chat(listener()) as room:
        room.emulator.faults.add(f"send_read_receipt:403,user={room.bot.user}")

        await room.user("Ann").says("hi")
        await room.advance(minutes=10)

        assert len([call for call in room.emulator.calls if call.operation == "send_read_receipt"]) == 1


async def test_a_stop_does_not_wait_for_a_receipt_that_gets_lost_and_the_next_start_sends_it() -> None:
    async with chat(listener()) as room:
        room.emulator.faults.add(f"send_read_receipt:500,user={room.bot.user}")
        await room.user("Ann").says("hi")
        before = room.stage.clock()

        await room.stop()

        assert room.stage.clock() - before < 1
        room.emulator.faults.clear()
        await room.start()
        assert room.read["bot"] == "hi"
