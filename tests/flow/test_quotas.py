from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from chatbot import Context, Plugin
from chatbot.bot import BotSettings
from chatbot.emulator import Quirks, World
from chatbot.polling.cadence import Cadence
from chatbot.testing import chat
from tests.support.assembled import assembled
from tests.support.plugins import ECHO

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
    """Ten messages in ten seconds are for all people in a thread together.

    Refused requests are free here: those of people count, but nobody else can know of them.
    """
    async with chat(chatterbox(1), world=World(quirks=Quirks(refused_requests="free"))) as room:
        await room.user("Ann").says(*["hi"] * 60)

        assert room.replies == ["0"] * 60
        assert not [call for call in refusals(room.emulator.calls) if call.user == room.bot.user]  # type: ignore[attr-defined]


async def test_a_busy_thread_does_not_slow_down_others() -> None:
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


@pytest.mark.chaos  # ten bots, for more than the longest window
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
        for _ in range(33):  # more than a minute: the longest window
            room.emulator.send(room.thread, ann.user, "chatter")
            await anyio.sleep(2)

        assert len(room.replies) == 20
        users = {guest.user for guest in room.bots.values()}
        assert not [call for call in refusals(room.emulator.calls) if call.user in users]  # type: ignore[attr-defined]


async def test_a_flood_of_event_grid_deliveries_uses_up_no_quota_of_the_thread(tmp_path: Path) -> None:
    async with assembled(tmp_path, ECHO) as running:
        await running.say("hello")
        bot, emulator, thread = running.bot, running.emulator, running.thread
        begun = emulator.now()

        async def flood() -> None:
            while True:
                bot.watcher.handle_notification(thread)
                await anyio.sleep(1 / 200)

        waits: list[float] = []
        async with anyio.create_task_group() as group:
            group.start_soon(flood)
            for number in range(12):
                await anyio.sleep(7.5)
                asked = anyio.current_time()
                await running.say(f"{number}")
                waits.append(anyio.current_time() - asked)
            group.cancel_scope.cancel()

        polls = [call for call in emulator.calls if call.operation == "list_messages" and call.at >= begun]
        assert len(polls) < 2 * 90 + 12
        assert max(waits) < 3
        assert 429 not in {call.status for call in emulator.calls}


async def test_threads_that_event_grid_names_are_polled_at_once(tmp_path: Path) -> None:
    async with assembled(tmp_path, ECHO, bot_more="poll: {interval: 30s, idle: 5m}") as running:
        await running.say("hello")
        await anyio.sleep(600)

        waits: list[float] = []
        for _ in range(4):
            asked = anyio.current_time()
            message = await running.ann.send_message(running.thread, "hi")
            running.bot.watcher.handle_notification(running.thread)
            await running.bot.wait_until_settled(running.thread, int(message))
            waits.append(anyio.current_time() - asked)
            await anyio.sleep(0.3)

        assert max(waits) < 0.5


async def test_people_who_say_more_than_the_quota_allows_get_through_although_refused_calls_count() -> None:
    async with chat(chatterbox(1)) as room:
        await room.user("Ann").joins()
        await room.stop()
        await room.user("Ann").says(*["hi"] * 45)
        await room.start()

        assert room.replies == ["0"] * 45


@pytest.mark.parametrize("requests", [10, 40], ids=["in ten seconds", "in a minute"])
async def test_a_quota_that_others_exhausted_costs_only_one_refused_request(requests: int) -> None:
    """Nobody sees the refused requests of others, and the service does not say how long to wait."""
    quirks = Quirks(retry_after="none", refused_requests="counted")
    plugin = Plugin("late")

    @plugin.message()
    async def answer(ctx: Context) -> None:
        emulator = room.emulator
        for number in range(requests):
            emulator.quotas.admit("send_message", f"somebody {number}", ctx.thread, emulator.now(), quirks)
        await ctx.reply("one")
        await ctx.reply("two")

    async with chat(plugin, world=World(quirks=quirks)) as room:
        await room.user("Ann").says("go")

        assert room.replies == ["one", "two"]
        assert len(refusals(room.emulator.calls)) == 1


async def test_polls_of_a_thread_whose_quota_others_exhausted_are_refused_only_once() -> None:
    quirks = Quirks(retry_after="none", refused_requests="counted")
    async with chat(chatterbox(1), world=World(quirks=quirks)) as room:
        ann = room.user("Ann")
        await ann.says("hi")
        emulator = room.emulator
        for number in range(450):
            emulator.quotas.admit("list_messages", f"somebody {number}", room.thread, emulator.now(), quirks)
        await ann.says("hi again")
        await room.advance(minutes=5)

        assert room.replies == ["0", "0"]
        assert len(refusals(room.emulator.calls)) == 1


async def test_participants_that_may_not_be_listed_now_are_not_asked_for_again_too_soon() -> None:
    """A bot that is removed looks for itself among the participants, and probes while it is out."""
    quirks = Quirks(retry_after="none", refused_requests="counted")
    async with chat(chatterbox(1), world=World(quirks=quirks), settings=BotSettings(cadence=Cadence())) as room:
        ann = room.user("Ann")
        await ann.says("hi")
        emulator = room.emulator
        for number in range(300):
            emulator.quotas.admit("list_participants", f"somebody {number}", room.thread, emulator.now(), quirks)
        emulator.remove(room.thread, ann.user, room.bot.user)
        await room.advance(minutes=2)
        emulator.add(room.thread, ann.user, room.bot.user)
        await ann.says("hi again")

        assert room.replies == ["0", "0"]
        assert len(refusals(emulator.calls)) == 1


async def test_typing_and_streams_that_are_refused_wait_for_the_longest_window_too() -> None:
    quirks = Quirks(retry_after="none", refused_requests="counted")
    plugin = Plugin("slow")

    async def words() -> AsyncIterator[str]:
        yield "one "
        await anyio.sleep(10)
        for number in range(40):
            for operation in ("send_message", "send_typing_notification"):
                emulator = room.emulator
                emulator.quotas.admit(operation, f"somebody {number}", room.thread, emulator.now(), quirks)
        for word in ("two ", "three ", "four"):
            yield word
            await anyio.sleep(10)

    @plugin.message()
    async def answer(ctx: Context) -> None:
        async with ctx.typing():
            await ctx.stream(words())
            await anyio.sleep(30)

    async with chat(plugin, world=World(quirks=quirks)) as room:
        await room.user("Ann").says("go")

        assert room.replies == ["one two three four"]
        refused = [call.operation for call in refusals(room.emulator.calls)]  # type: ignore[attr-defined]
        assert sorted(refused) == ["send_typing_notification", "update_message"]


async def test_a_list_of_threads_that_is_refused_is_asked_for_again_only_when_the_quota_is_free() -> None:
    """Another process of the same user has used it up."""
    quirks = Quirks(retry_after="none", refused_requests="counted")
    async with chat(chatterbox(1), world=World(quirks=quirks), settings=BotSettings(cadence=Cadence())) as room:
        ann = room.user("Ann")
        await ann.says("hi")
        emulator = room.emulator
        for _ in range(60):
            emulator.quotas.admit("list_threads", room.bot.user, "", emulator.now(), quirks)
        await ann.says("hi again")
        await room.another().user("Bob").says("hi")
        await room.advance(minutes=1)

        assert room.replies == ["0", "0"]
        assert len(refusals(emulator.calls)) == 1
