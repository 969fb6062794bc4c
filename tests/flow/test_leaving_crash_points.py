"""A kill at any point of a removal and a return is not noticed: nothing is lost, nothing runs twice."""

from __future__ import annotations

from datetime import timedelta

import pytest

from chatbot.bot import BotSettings
from chatbot.testing.crash_points import CADENCE, crash_points
from chatbot.testing.room import Room
from tests.flow.test_leaving import Guest
from tests.support.kills import sample_and_all

pytestmark = pytest.mark.virtual_time


@sample_and_all
async def test_no_kill_around_a_removal_and_a_return_is_noticed(every: int) -> None:
    async def script(room: Room) -> None:
        ann = room.user("Ann")
        await ann.says("/count")
        await ann.removes(room.bot)
        await ann.adds(room.bot)
        await ann.says("/count")
        assert room.replies == ["count 1", "count 2"]

    report = await crash_points(script, Guest(), every=every)
    assert report.is_clean, report


@sample_and_all
async def test_no_kill_is_noticed_while_replies_wait_for_a_bot_that_does_not_return(every: int) -> None:
    async def script(room: Room) -> None:
        ann = room.user("Ann")
        await ann.says("/later", "/ask")
        room.emulator.faults.add(f"send_message:refuse,user={room.bot.user}")
        with room.not_waiting():
            await ann.says("/two")
            await room.advance(seconds=5)
            await ann.removes(room.bot)
        await room.advance(minutes=4)
        room.emulator.faults.clear()
        await ann.adds(room.bot)
        await ann.says("/count")

    settings = BotSettings(cadence=CADENCE, rejoin=timedelta(minutes=2))
    guest = Guest(answers_failure=True)
    report = await crash_points(script, guest, settings=settings, every=every)
    assert {"failed one", "failed two"} <= {*guest.heard}
    assert report.is_clean, report
    assert not report.unreached
