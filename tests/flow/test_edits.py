from __future__ import annotations

import pytest

from chatbot import Context, MessageDeleted, MessageEdited, Plugin, SentMessage
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time

plugin = Plugin("edits")


@plugin.message()
async def received(ctx: Context) -> str:
    return f"received {ctx.text}"


@plugin.on(MessageEdited)
async def edited(ctx: Context[MessageEdited]) -> str:
    return f"edited {ctx.text}"


@plugin.on(MessageDeleted)
async def deleted(ctx: Context[MessageDeleted]) -> str:
    return "deleted"


async def test_edits_and_deletes_are_events_of_their_own() -> None:
    async with chat(plugin) as room:
        ann = room.user("Ann")
        await ann.says("helo")
        await ann.edits("hello")
        await ann.edits("hello!")
        await ann.deletes()

        assert room.replies == ["received helo", "edited hello", "edited hello!", "deleted"]


async def test_an_old_message_can_be_edited_after_newer_ones() -> None:
    async with chat(plugin) as room:
        ann = room.user("Ann")
        first = await ann.says("one")
        await ann.says("two")
        await room.advance(days=2)
        await ann.edits("uno", first)

        assert room.replies == ["received one", "received two", "edited uno"]


async def test_what_was_edited_before_the_bot_saw_it_comes_once_as_it_is() -> None:
    async with chat(plugin) as room:
        ann = room.user("Ann")
        await ann.says("first")
        await room.kill()
        await ann.says("helo")
        await ann.edits("hello")
        await room.start()

        assert room.replies == ["received first", "received hello"]


async def test_what_was_deleted_before_the_bot_saw_it_never_was() -> None:
    async with chat(plugin) as room:
        ann = room.user("Ann")
        await ann.says("first")
        await room.kill()
        await ann.says("oops")
        await ann.deletes()
        await room.start()

        assert room.replies == ["received first"]


async def test_edits_and_deletes_while_the_bot_is_down_are_caught_up() -> None:
    async with chat(plugin) as room:
        ann = room.user("Ann")
        first = await ann.says("one")
        second = await ann.says("two")
        await room.kill()
        await ann.deletes(second)
        await ann.edits("uno", first)
        await room.start()

        assert room.replies == ["received one", "received two", "deleted", "edited uno"]


async def test_a_bot_edits_and_deletes_what_it_said() -> None:
    counting = Plugin("counting")

    @counting.command("count")
    async def count(ctx: Context) -> None:
        sent: SentMessage = await ctx.reply("1")
        await sent.edit("2")

    @counting.command("vanish")
    async def vanish(ctx: Context) -> None:
        sent = await ctx.reply("here")
        await sent.delete()

    async with chat(counting) as room:
        await room.user("Ann").says("/count", "/vanish")

        assert room.replies == ["2"]
        assert "bot: 2 (edited)" in room.transcript
        assert "bot: (deleted)" in room.transcript


async def test_an_edit_after_half_an_hour_of_silence_is_noticed_by_the_slow_poll() -> None:
    async with chat(plugin) as room:
        ann = room.user("Ann")
        await ann.says("one")
        await room.advance(minutes=30)
        room.emulator.edit(room.thread, ann.user, room.emulator.transcript(room.thread)[-2].id, "uno")
        await room.advance(seconds=31)

        assert room.replies == ["received one", "edited uno"]
