"""A kill at any point of a removal and a return is not noticed: nothing is lost, nothing runs twice."""

from __future__ import annotations

import pytest

from chatbot.testing.crash.crash_points import crash_points
from chatbot.testing.room import Room
from tests.flow.test_leaving import Guest

pytestmark = pytest.mark.virtual_time


async def test_no_kill_around_a_removal_and_a_return_is_noticed() -> None:
    async def script(room: Room) -> None:
        ann = room.user("Ann")
        await ann.says("/count")
        await ann.removes(room.bot)
        await ann.adds(room.bot)
        await ann.says("/count")
        assert room.replies == ["count 1", "count 2"]

    report = await crash_points(script, Guest())
    assert report.is_clean, report
