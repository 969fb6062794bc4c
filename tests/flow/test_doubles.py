"""A reply that is said twice, because a lost answer's proof showed up too late, is one reply again in the end."""

from __future__ import annotations

import pytest

from chatbot import Context, MessageEdited, Plugin
from chatbot.actions import ActionKey
from chatbot.testing import chat
from chatbot.testing.room import Room

pytestmark = pytest.mark.virtual_time


def say_the_next_one_twice(room: Room) -> None:
    """Lose the answer to the bot's next send, and show the message only after its proof was looked for."""
    for fault in ("reset-after", "stale=8"):
        room.emulator.faults.add(f"send_message:{fault},times=1,user={room.bot.user}")


def twice(room: Room) -> bool:
    """Whether the bot has really taken back a double."""
    return any(message.deleted for message in room.messages if message.sender == room.bot.user)


def corrector() -> Plugin:
    """Answers with a draft and corrects it at once; a correction of the question corrects the answer again."""
    plugin = Plugin("corrector")
    keys: list[ActionKey] = []

    @plugin.message()
    async def answer(ctx: Context) -> None:
        draft = await ctx.reply("draft")
        keys.append(draft.key)
        await draft.edit("fixed")

    @plugin.on(MessageEdited)
    async def again(ctx: Context[MessageEdited]) -> None:
        await ctx.edit(keys[0], "fixed again")

    return plugin


async def test_the_one_that_stays_says_what_the_other_one_was_corrected_to() -> None:
    async with chat(corrector()) as room:
        say_the_next_one_twice(room)

        await room.user("Ann").says("hi")
        await room.advance(hours=2)

        assert twice(room)
        assert room.replies == ["fixed"]


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_later_correction_finds_the_one_that_stays(is_restarted: bool) -> None:
    async with chat(corrector()) as room:
        ann = room.user("Ann")
        say_the_next_one_twice(room)
        await ann.says("hi")
        await room.advance(hours=2)
        if is_restarted:
            await room.restart()

        await ann.edits("hi there")

        assert twice(room)
        assert room.replies == ["fixed again"]


async def test_a_reply_that_was_taken_back_is_taken_back_again_when_its_double_shows_up() -> None:
    plugin = Plugin("shy")

    @plugin.message()
    async def answer(ctx: Context) -> None:
        await (await ctx.reply("never mind")).delete()

    async with chat(plugin) as room:
        say_the_next_one_twice(room)
        await room.user("Ann").says("hi")
        await room.advance(hours=2)

        assert room.replies == []
        assert sum(message.deleted is not None for message in room.messages) == 2
