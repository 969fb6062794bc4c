"""What people have read: told to handlers that want to know, once, and asked for nobody else."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from chatbot import Context, Plugin, ReadReceiptReceived, UserState
from chatbot.dispatch import Retry
from chatbot.stores import MemoryStore
from chatbot.testing import Room, chat
from chatbot.testing.crash_points import crash_points
from tests.support.kills import sample_and_all

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True)
class Seen:
    count: int = 0


def watcher() -> Plugin:
    plugin = Plugin("watcher")

    @plugin.message()
    async def echo(ctx: Context) -> str:
        return ctx.text

    @plugin.on(ReadReceiptReceived)
    async def read(ctx: Context[ReadReceiptReceived]) -> str:
        return f"read up to {ctx.event.receipt.message[-5:]}"

    return plugin


def asked(room: Room) -> int:
    """How often the bot has asked what was read."""
    return sum(call.operation == "list_read_receipts" for call in room.emulator.calls)


def reads(room: Room) -> list[str]:
    return [reply for reply in room.replies if reply.startswith("read")]


async def test_a_read_receipt_is_handled_once_also_over_a_restart() -> None:
    async with chat(watcher()) as room:
        ann, ben = room.user("Ann"), room.user("Ben")
        first = await ann.says("one")
        await ben.reads(first)
        await ann.says("two")
        await room.restart()
        await ann.says("three")
        assert reads(room) == [f"read up to {first[-5:]}"]

        second = await ann.says("four")
        await ben.reads(second)
        await ann.reads(second)
        await room.advance(minutes=30)
        assert reads(room)[1:] == [f"read up to {second[-5:]}"] * 2


async def test_read_receipts_during_downtime_are_handled_after_the_restart() -> None:
    async with chat(watcher()) as room:
        ann = room.user("Ann")
        said = await ann.says("one")
        await room.kill()
        await ann.reads(said)
        await room.start()

        assert reads(room) == [f"read up to {said[-5:]}"]


async def test_the_bots_own_receipts_and_those_of_older_messages_are_not_reported() -> None:
    async with chat(watcher()) as room:
        ann = room.user("Ann")
        await ann.joins()
        await ann.removes(room.bot)
        before = await ann.says("among us")
        await ann.reads(before)
        await ann.adds(room.bot)
        await ann.says("hello")
        await room.advance(minutes=30)

        assert room.read["bot"] == "hello"
        assert reads(room) == []


async def test_nobody_is_asked_where_no_handler_wants_to_know() -> None:
    plugin = Plugin("echo")

    @plugin.message()
    async def echo(ctx: Context) -> str:
        return ctx.text

    async with chat(plugin) as room:
        ann = room.user("Ann")
        await ann.reads(await ann.says("one"))
        await room.advance(minutes=30)

        assert asked(room) == 0


async def test_receipts_of_silent_threads_are_not_read_until_somebody_writes() -> None:
    async with chat(watcher()) as room:
        ann = room.user("Ann")
        said = await ann.says("one")
        await room.advance(hours=2)
        before = asked(room)
        await ann.reads(said)
        await room.advance(hours=10)
        assert (asked(room), reads(room)) == (before, [])

        await ann.says("two")
        await room.advance(minutes=30)
        assert reads(room) == [f"read up to {said[-5:]}"]


async def test_threads_too_large_for_receipts_are_not_asked_about() -> None:
    async with chat(watcher()) as room:
        for number in range(20):
            await room.user(f"Ann {number}").joins()
        await room.user("Ann 1").says("hi")
        before = asked(room)
        await room.user("Ann 1").says("hi")
        await room.advance(minutes=30)

        assert asked(room) == before


async def test_a_service_that_gives_no_receipts_is_left_alone_and_everything_else_goes_on() -> None:
    async with chat(watcher()) as room:
        ann = room.user("Ann")
        room.emulator.faults.add("list_read_receipts:403")
        await ann.says(*"abc")
        with room.not_waiting():
            await ann.reads()
            await room.advance(minutes=5)

        assert room.replies == ["a", "b", "c"]
        assert room.people == ["Ann", "bot"]
        assert asked(room) < 10


async def test_a_failing_handler_is_retried_and_then_becomes_a_dead_letter() -> None:
    plugin, store, tries = Plugin("unlucky"), MemoryStore(), list[str]()

    @plugin.on(ReadReceiptReceived, retry=Retry(2))
    async def unlucky(ctx: Context[ReadReceiptReceived]) -> None:
        tries.append(ctx.event.key)
        msg = "no luck"
        raise ValueError(msg)

    async with chat(plugin, store=store, raise_failures=False) as room:
        ann, ben = room.user("Ann"), room.user("Ben")
        said = await ann.says("one")
        await ben.reads(said)
        await room.advance(minutes=10)

        (letter,) = await store.dead_letters(room.bot.user)
        assert letter.error == "ValueError: no luck"
        assert len(tries) == 2


async def test_it_is_the_readers_state_that_its_handler_gets() -> None:
    async with chat(counter()) as room:
        ann, ben = room.user("Ann"), room.user("Ben")
        for _ in range(2):
            await ben.reads(await ann.says("hi"))
        await ann.reads()

        assert sorted(reads(room)) == ["read 1", "read 1", "read 2"]


def counter() -> Plugin:
    plugin = Plugin("counter")

    @plugin.on(ReadReceiptReceived)
    async def count(ctx: Context[ReadReceiptReceived], seen: UserState[Seen]) -> str:
        seen.value = Seen(seen.value.count + 1)
        return f"read {seen.value.count}"

    return plugin


@sample_and_all
async def test_no_kill_makes_a_receipt_be_handled_twice_or_never(every: int) -> None:
    async def script(room: Room) -> None:
        ann, ben = room.user("Ann"), room.user("Ben")
        await ben.reads(await ann.says("one"))
        await ann.reads(await ben.says("two"))

    report = await crash_points(script, counter, faults=["", "list_read_receipts:503,times=2"], every=every)
    print(report)

    assert report.is_clean, report
