"""A reply that is said twice, because a lost answer's proof showed up too late, is one reply again in the end."""

from __future__ import annotations

from datetime import timedelta

import pytest

from chatbot import Context, MessageEdited, Plugin
from chatbot.actions import ActionKey
from chatbot.bot import BotSettings
from chatbot.emulator import Quirks, World
from chatbot.model import MessageId
from chatbot.stores import MemoryStore
from chatbot.stores.writes import RequestRetry
from chatbot.testing import chat
from chatbot.testing.harness import VIRTUAL_CADENCE
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


@pytest.mark.parametrize("fault", ["delete_message:latency=0,times=1", "delete_message:reset-after,times=1"])
async def test_what_was_deleted_as_a_double_is_known_as_long_as_a_proof_may_ask(fault: str) -> None:
    store = MemoryStore()
    world = World(quirks=Quirks(delete_again="not-found"))
    async with chat(corrector(), store=store, world=world) as room:
        ann, user = room.user("Ann"), room.bot.user
        await ann.joins()
        room.emulator.faults.add(f"{fault},user={user}")
        say_the_next_one_twice(room)
        await ann.says("hi")
        await room.advance(hours=2)
        await room.kill()
        await room.start()
        await room.advance(hours=2)

        tombstones = {MessageId(str(message.id)) for message in room.messages if message.deleted}
        assert tombstones
        assert await store.made(user, tombstones) == tombstones


async def test_a_action_that_is_tried_again_after_its_row_was_pruned_is_done() -> None:
    plugin = Plugin("echo")

    @plugin.message()
    async def answer(ctx: Context) -> str:
        return ctx.text

    store = MemoryStore()
    settings = BotSettings(cadence=VIRTUAL_CADENCE, retention=timedelta(hours=1))
    async with chat(plugin, store=store, settings=settings, raise_failures=False) as room:
        ann, user = room.user("Ann"), room.bot.user
        await ann.joins()
        room.emulator.faults.add(f"send_message:400,times=1,user={user}")
        await ann.says("hi")
        await room.advance(hours=3)
        [letter] = await store.dead_letters(user)
        await store.commit(user, [RequestRetry(letter.id)])
        await room.restart()

        assert room.replies == ["hi"]
        assert await store.dead_letters(user) == []
