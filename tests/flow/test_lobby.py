from __future__ import annotations

import pytest

from chatbot import Context, ParticipantsAdded, Plugin
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time


def parrot(name: str, *, from_bots: bool = False) -> Plugin:
    plugin = Plugin(name)

    @plugin.message(from_bots=from_bots)
    async def repeat(ctx: Context) -> str:
        return f"{name}: {ctx.text}"

    @plugin.command(f"{name}only")
    async def only(ctx: Context) -> str:
        return f"only {name}"

    return plugin


async def test_bots_do_not_answer_each_other() -> None:
    async with chat(bots={"one": [parrot("one")], "two": [parrot("two")]}) as room:
        await room.user("Ann").says("hi")
        await room.advance(hours=1)

        assert sorted(room.replies) == ["one: hi", "two: hi"]


async def test_a_command_reaches_the_bot_that_has_it() -> None:
    async with chat(bots={"one": [parrot("one")], "two": [parrot("two")]}) as room:
        await room.user("Ann").says("/oneonly")

        assert "only one" in room.replies
        assert "only two" not in room.replies


async def test_bots_are_not_welcomed() -> None:
    host = Plugin("host")

    @host.on(ParticipantsAdded)
    async def welcome(ctx: Context[ParticipantsAdded]) -> str:
        return f"welcome {', '.join(str(one.display_name) for one in ctx.event.participants)}"

    async with chat(bots={"host": [host], "parrot": [parrot("parrot")]}) as room:
        ann = room.user("Ann")
        await ann.joins()
        await ann.removes(room.bots["parrot"])
        await ann.adds(room.bots["parrot"])

        assert room.replies == ["welcome Ann"]


async def test_two_bots_keep_apart_over_a_restart() -> None:
    async with chat(bots={"one": [parrot("one")], "two": [parrot("two")]}) as room:
        await room.user("Ann").says("hi")
        await room.restart()
        await room.user("Ann").says("again")

        assert sorted(room.replies) == ["one: again", "one: hi", "two: again", "two: hi"]
