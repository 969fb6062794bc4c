import pytest

from chatbot.testing import chat
from plugins.reminders import plugin

pytestmark = pytest.mark.virtual_time


async def test_people_are_reminded_in_time_even_if_the_bot_was_restarted() -> None:
    async with chat(plugin) as room:
        ann = room.user("Ann")
        await ann.says("/remind 90m fetch the kids")
        await room.restart()
        await room.advance(minutes=89)
        assert room.replies == ["I will remind you of “fetch the kids”."]

        await room.advance(minutes=2)
        assert room.replies[1:] == ["You wanted to be reminded: fetch the kids"]
        await ann.says("/reminders")
        assert room.replies[2:] == ["You have no reminders."]


async def test_reminders_belong_to_each_user_and_can_be_cancelled() -> None:
    async with chat(plugin) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.says("/remind 1h tea", "/remind 2h cake")
        await bob.says("/reminders", "/forget 1")
        await ann.says("/reminders", "/forget 1", "/forget 2")
        await room.advance(days=1)

        assert room.replies[2:] == [
            "You have no reminders.",
            "There is no such reminder. /reminders lists them.",
            "1. tea (01 Jan 01:00 UTC)\n2. cake (01 Jan 02:00 UTC)",
            "I will not remind you of “tea”.",
            "There is no such reminder. /reminders lists them.",
            "You wanted to be reminded: cake",
        ]


async def test_nobody_has_more_reminders_than_fit_a_list() -> None:
    async with chat(plugin, quotas=False) as room:
        await room.user("Ann").says(*["/remind 1h tea"] * 21)

        assert room.replies[-1] == "You have 20 reminders already. /forget one first."
