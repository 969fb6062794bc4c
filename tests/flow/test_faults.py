"""A network and a service that fail: every message is answered, once, in order."""

from __future__ import annotations

import pytest

from chatbot.testing import chat
from tests.support.plugins import echo

pytestmark = pytest.mark.virtual_time


FAULTS = [
    "*:503,probability=0.3",
    "*:500,probability=0.3,after=true",
    "*:429,probability=0.3",
    "*:429,probability=0.3,retry-after=5",
    "*:latency=0.1..20",
    "*:refuse,probability=0.3",
    "*:reset,probability=0.3",
    "*:reset-after,probability=0.3",
    "*:truncate,probability=0.3",
    "*:hang,probability=0.1",
    "*:expired-token,every=4",
    "send_message:503,after=true,times=3",
    "send_message:reset-after,times=3",
    "send_message:hang,times=2",
    "send_message:stale=20,every=2",
    "list_messages:503,times=5",
    "list_threads:503,times=5",
]


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_message_is_answered_once_and_in_order_under_a_fault(fault: str) -> None:
    async with chat(echo()) as room:
        ann = room.user("Ann")
        await ann.joins()
        room.emulator.faults.add(f"{fault},user={room.bot.user}")
        await ann.says(*"abcde")
        await room.restart()
        await ann.says(*"fghij")
        await room.advance(minutes=5)

        assert room.replies == list("abcdefghij")


async def test_a_bot_starts_while_the_service_is_away_and_answers_when_it_is_back() -> None:
    async with chat(echo()) as room:
        ann = room.user("Ann")
        await ann.says("one")
        await room.kill()
        await ann.says("two")
        room.emulator.faults.add(f"*:refuse,user={room.bot.user}")
        with room.not_waiting():
            await room.start()
            await room.advance(minutes=20)
        assert room.replies == ["one"]
        room.emulator.faults.clear()
        await room.settle()

        assert room.replies == ["one", "two"]
