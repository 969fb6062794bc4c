"""A text that grows: one message, shown while it is made, within the thread's quota, and whole in the end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from chatbot import Context, Event, Plugin
from chatbot.testing import chat
from chatbot.testing.room import Room

pytestmark = pytest.mark.virtual_time


async def words(count: int, pause: float) -> AsyncIterator[str]:
    for number in range(count):
        yield f"{number} "
        await anyio.sleep(pause)
    yield "end"


def whole(count: int) -> str:
    return "".join(f"{number} " for number in range(count)) + "end"


def counting(count: int, pause: float) -> Plugin:
    plugin = Plugin("counting")

    @plugin.message()
    async def count_up(ctx: Context) -> None:
        await ctx.stream(words(count, pause))

    return plugin


def writes(room: Room) -> list[str]:
    """What the bot asked of the service about messages, in order."""
    names = ("send_message", "update_message", "delete_message")
    return [call.operation for call in room.emulator.calls if call.user == room.bot.user and call.operation in names]


async def test_a_streamed_text_is_shown_while_it_grows_and_ends_complete_in_one_message() -> None:
    async with chat(counting(60, 0.5)) as room:
        ann = room.user("Ann")
        await ann.joins()
        async with anyio.create_task_group() as group:
            group.start_soon(ann.says, "go")
            await anyio.sleep(20)
            shown = room.replies[0]

        assert shown.startswith("0 1 2")
        assert shown.endswith(" …")
        assert room.replies == [whole(60)]
        assert writes(room)[0] == "send_message"
        assert set(writes(room)[1:]) == {"update_message"}


async def test_a_text_that_is_complete_at_once_is_a_message_like_any_other() -> None:
    async with chat(counting(3, 0)) as room:
        await room.user("Ann").says("go")

        assert room.replies == [whole(3)]
        assert writes(room) == ["send_message"]


async def test_a_stream_takes_a_third_of_what_a_thread_may_send() -> None:
    async with chat(counting(1200, 0.1)) as room:
        await room.user("Ann").says("go")

        shown = [
            call.at
            for call in room.emulator.calls
            if call.user == room.bot.user and call.operation in ("send_message", "update_message")
        ][:-1]
        assert room.replies == [whole(1200)]
        assert all(len([one for one in shown if begin <= one < begin + 10_000]) <= 3 for begin in shown)
        assert all(len([one for one in shown if begin <= one < begin + 60_000]) <= 10 for begin in shown)
        assert len(shown) > 15


async def test_streams_in_a_thread_full_of_people_stay_within_its_quota() -> None:
    async with chat(counting(100, 0.3)) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.joins()
        await bob.joins()
        async with anyio.create_task_group() as group:
            group.start_soon(ann.says, *["go"] * 4)
            group.start_soon(bob.says, *["and"] * 20)

        assert room.replies == [whole(100)] * 24
        assert not [call for call in room.emulator.calls if call.status == 429 and call.user == room.bot.user]


async def test_a_text_too_long_for_one_message_goes_on_in_another() -> None:
    async def long_lines() -> AsyncIterator[str]:
        for _ in range(60):
            yield "x" * 999 + "\n"
            await anyio.sleep(1)

    plugin = Plugin("long")

    @plugin.message()
    async def talk(ctx: Context) -> None:
        await ctx.stream(long_lines())

    async with chat(plugin) as room:
        await room.user("Ann").says("go")

        assert len(room.replies) == 3
        assert "\n".join(room.replies).split() == ["x" * 999] * 60


FAULTS = [
    "update_message:503,probability=0.5",
    "update_message:503,after=true,times=2",
    "update_message:429,probability=0.5",
    "update_message:hang,times=2",
    "update_message:refuse,probability=0.5",
    "update_message:reset-after,times=3",
    "update_message:latency=1..20",
    "send_message:503,after=true,times=2",
    "send_message:reset-after,times=1",
    "send_message:hang,times=1",
    "send_message:429,times=2,retry-after=7",
    "*:503,probability=0.2",
]


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_final_text_is_whole_whatever_fails_on_the_way(fault: str) -> None:
    async with chat(counting(60, 0.5)) as room:
        ann = room.user("Ann")
        await ann.joins()
        room.emulator.faults.add(f"{fault},user={room.bot.user}")
        await ann.says("go", "again")
        await room.advance(minutes=5)

        assert room.replies == [whole(60)] * 2


@pytest.mark.parametrize("seconds", [0.2, 0.8, 3, 10, 29, 30.5])
async def test_a_killed_process_goes_on_in_the_message_it_had_begun(seconds: float) -> None:
    async with chat(counting(60, 0.5)) as room:
        ann = room.user("Ann")
        await ann.joins()
        async with anyio.create_task_group() as group:
            group.start_soon(ann.says, "go")
            await anyio.sleep(seconds)
            await room.kill()
        await room.start()

        assert room.replies == [whole(60)]
        assert writes(room).count("send_message") == 1


async def test_a_handler_that_fails_in_the_middle_edits_the_same_message_in_its_next_attempt() -> None:
    plugin, attempts = Plugin("fragile"), []

    async def fragile() -> AsyncIterator[str]:
        attempts.append("one")
        async for piece in words(20, 0.5):
            if piece.startswith("10") and len(attempts) < 3:
                msg = "the model went away"
                raise ConnectionError(msg)
            yield piece

    @plugin.message()
    async def talk(ctx: Context) -> str:
        await ctx.stream(fragile())
        return "done"

    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").says("go")

        assert [type(failure.error) for failure in room.failures] == [ConnectionError] * 2
        assert room.replies == [whole(20), "done"]


async def test_errors_of_the_source_reach_error_handlers_as_they_are() -> None:
    plugin = Plugin("broken")

    async def broken() -> AsyncIterator[str]:
        yield "well"
        await anyio.sleep(5)
        raise ZeroDivisionError

    @plugin.message()
    async def talk(ctx: Context) -> None:
        async with ctx.typing():
            await ctx.stream(broken())

    @plugin.error(ZeroDivisionError)
    async def sorry(ctx: Context[Event], error: ZeroDivisionError) -> str:
        return "sorry"

    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").says("go")

        assert room.replies == ["well …", "sorry"]


async def test_two_streams_at_once_in_one_handler_are_two_whole_messages() -> None:
    plugin = Plugin("twice")

    @plugin.message()
    async def talk(ctx: Context) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(ctx.stream, words(10, 1))
            group.start_soon(ctx.stream, words(5, 1))

    async with chat(plugin) as room:
        await room.user("Ann").says("go")

        assert room.replies == [whole(10), whole(5)]


async def test_a_stream_without_text_says_nothing() -> None:
    plugin = Plugin("mute")

    async def nothing() -> AsyncIterator[str]:
        yield " "

    @plugin.message()
    async def talk(ctx: Context) -> None:
        sent = await ctx.stream(nothing())
        assert sent.is_empty

    async with chat(plugin) as room:
        await room.user("Ann").says("go")

        assert room.replies == []


async def test_typing_is_shown_while_the_block_lasts() -> None:
    plugin = Plugin("thinker")

    @plugin.message()
    async def think(ctx: Context) -> str:
        async with ctx.typing():
            await anyio.sleep(29)
        await anyio.sleep(100)
        return "so"

    async with chat(plugin) as room:
        await room.user("Ann").says("go")

        assert room.replies == ["so"]
        assert len(room.emulator.typing(room.thread)) == 6


async def test_typing_that_the_service_refuses_disturbs_nobody() -> None:
    plugin = Plugin("thinker")

    @plugin.message()
    async def think(ctx: Context) -> str:
        async with ctx.typing():
            await anyio.sleep(10)
        return "so"

    async with chat(plugin) as room:
        room.emulator.faults.add("send_typing_notification:503")
        await room.user("Ann").says("go")

        assert room.replies == ["so"]
