from __future__ import annotations

import anyio
import pytest

from chatbot import Context, Plugin
from chatbot.bot import BotSettings
from chatbot.polling.cadence import Cadence
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time


def chatterbox(lines: int) -> Plugin:
    plugin = Plugin("chatterbox")

    @plugin.message()
    async def talk(ctx: Context) -> None:
        for number in range(lines):
            await ctx.reply(str(number))

    return plugin


def refusals(calls: object) -> list[object]:
    return [call for call in calls if call.status == 429]  # type: ignore[attr-defined]


async def test_a_burst_of_replies_goes_out_in_order_within_the_quota() -> None:
    async with chat(chatterbox(100)) as room:
        await room.user("Ann").says("go")

        assert room.replies == [str(number) for number in range(100)]
        assert not refusals(room.emulator.calls)


async def test_what_people_say_counts_too() -> None:
    """Ten messages in ten seconds are for all people in a thread together."""
    async with chat(chatterbox(1)) as room:
        await room.user("Ann").says(*["hi"] * 60)

        assert room.replies == ["0"] * 60
        assert not [call for call in refusals(room.emulator.calls) if call.user == room.bot.user]  # type: ignore[attr-defined]


async def test_one_crowded_thread_slows_no_other() -> None:
    async with chat(chatterbox(40)) as room:
        other = room.another()
        await room.user("Ann").joins()
        await other.user("Bob").joins()
        await room.user("Ann").says("go")
        await other.user("Bob").says("go")

        assert len(room.replies) == len(other.replies) == 40


async def test_a_backlog_of_replies_survives_a_restart() -> None:
    async with chat(chatterbox(50)) as room:
        ann = room.user("Ann")
        await ann.joins()
        async with anyio.create_task_group() as group:
            group.start_soon(ann.says, "go")
            await anyio.sleep(30)
            await room.kill()
        assert 0 < len(room.replies) < 50
        await room.start()

        assert room.replies == [str(number) for number in range(50)]


async def test_many_bots_in_one_thread_are_together_within_the_quotas_of_the_thread() -> None:
    """All of them may look 400 times a minute there, and send ten messages in ten seconds."""

    def parrot() -> Plugin:
        plugin = Plugin("parrot")

        @plugin.command("speak")
        async def speak(ctx: Context) -> None:
            await ctx.reply("one")
            await ctx.reply("two")

        return plugin

    bots = {f"bot{number}": [parrot()] for number in range(10)}
    async with chat(bots=bots, settings=BotSettings(cadence=Cadence(interval=0.3))) as room:
        ann = room.user("Ann")
        await ann.says("/speak")
        for _ in range(45):
            room.emulator.send(room.thread, ann.user, "chatter")
            await anyio.sleep(2)
        await room.advance(minutes=1)

        assert len(room.replies) == 20
        users = {guest.user for guest in room.bots.values()}
        assert not [call for call in refusals(room.emulator.calls) if call.user in users]  # type: ignore[attr-defined]
