import pytest

from chatbot.testing import chat
from plugins.poll import plugin

pytestmark = pytest.mark.virtual_time

OPEN = "Vote with /vote and the number."


async def test_votes_are_counted_in_the_question_itself_and_can_be_changed() -> None:
    async with chat(plugin) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.says('/poll "Lunch?" Pizza "Pasta al forno"')
        await ann.says("/vote 1")
        await bob.says("/vote 1")
        assert room.replies == [f"Lunch?\n1. Pizza ██ 2\n2. Pasta al forno  0\n{OPEN}"]

        await bob.says("/vote 2", "/close", "/vote 1")

        assert room.replies == [
            "Lunch?\n1. Pizza █ 1\n2. Pasta al forno █ 1\nThis poll is closed.",
            "There is no poll to vote in.",
        ]


async def test_a_poll_and_its_votes_outlive_the_process() -> None:
    async with chat(plugin) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.says("/poll Lunch? Pizza Pasta", "/vote 1")
        await room.restart()
        await bob.says("/vote 1")

        assert room.replies == [f"Lunch?\n1. Pizza ██ 2\n2. Pasta  0\n{OPEN}"]


async def test_every_thread_has_its_own_poll_and_one_at_a_time() -> None:
    async with chat(plugin) as room:
        other, ann = room.another(), room.user("Ann")
        await ann.says("/poll Lunch? Pizza Pasta", "/poll Dinner? Soup Salad")
        await other.user("Bob").says("/vote 1", "/close")

        assert room.replies[1] == "There is a poll already: Lunch? Type /close to end it."
        assert other.replies == ["There is no poll to vote in.", "There is no poll to close."]


async def test_what_cannot_be_asked_or_chosen_is_said() -> None:
    async with chat(plugin) as room:
        await room.user("Ann").says("/poll Lunch? Pizza", "/poll Lunch? Pizza Pasta", "/vote 3", "/vote pizza")

        assert room.replies[0] == 'A poll needs two options or more, as in /poll "Lunch?" Pizza Pasta'
        assert room.replies[2:] == [
            "There is no option 3; choose 1 to 2.",
            'NUMBER: "pizza" is not a whole number.\nUsage: /vote NUMBER',
        ]
