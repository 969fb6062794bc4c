"""A bot that is killed at every point of a conversation, and nobody can tell.

`pytest -s -m chaos tests/flow/test_crash_points.py` prints how many points there were.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

import pytest

from chatbot import (
    Context,
    MessageDeleted,
    MessageEdited,
    ParticipantsAdded,
    ParticipantsRemoved,
    Plugin,
    Retry,
    State,
    ThreadJoined,
)
from chatbot.bot import BotSettings
from chatbot.errors import StateError
from chatbot.model import UserId
from chatbot.stores import MemoryStore
from chatbot.stores.writes import Enqueue, Write
from chatbot.testing import Room
from chatbot.testing.crash_injection import CrashKind
from chatbot.testing.crash_points import CADENCE, crash_points
from tests.support.kills import sample_and_all

virtual = pytest.mark.virtual_time
pytestmark = pytest.mark.timeout(300)

FAULTS = [
    "*:refuse,probability=0.3",
    "*:reset-after,probability=0.3",
    "send_message:503,after=true,times=3",
    "send_message:stale=20,every=2",
]


@dataclass
class Tally:
    count: int = 0


def waiter() -> Plugin:
    """Does a bit of everything that leaves a trace."""
    plugin = Plugin("waiter")

    @plugin.on(ThreadJoined)
    async def greet(ctx: Context[ThreadJoined]) -> str:
        return "what can I get you?"

    @plugin.message()
    async def take_order(ctx: Context, orders: State[Tally]) -> str:
        orders.value.count += 1
        return f"order {orders.value.count}: {ctx.text}"

    @plugin.command("bill")
    async def bill(ctx: Context) -> None:
        sent = await ctx.reply("adding up")
        await sent.edit("5.50")

    @plugin.command("gossip")
    async def gossip(ctx: Context) -> None:
        sent = await ctx.reply("have you heard")
        await sent.delete()
        await ctx.reply("forget it")

    @plugin.command("drop", retry=Retry(attempts=2))
    async def drop(ctx: Context) -> None:
        msg = "broken"
        raise ValueError(msg)

    @plugin.on(MessageEdited)
    async def change(ctx: Context[MessageEdited]) -> str:
        return f"{ctx.text} instead"

    @plugin.on(MessageDeleted)
    async def cancel(ctx: Context[MessageDeleted]) -> str:
        return "cancelled"

    @plugin.on(ParticipantsAdded)
    async def welcome(ctx: Context[ParticipantsAdded]) -> str:
        return "welcome"

    @plugin.on(ParticipantsRemoved)
    async def see_off(ctx: Context[ParticipantsRemoved]) -> str:
        return "goodbye"

    return plugin


def forgetful() -> Plugin:
    """Counts in the memory of its process instead of in a `State`."""
    plugin = Plugin("forgetful")
    orders: list[str] = []

    @plugin.message()
    async def take_order(ctx: Context) -> str:
        orders.append(ctx.text)
        return f"order {len(orders)}: {ctx.text}"

    return plugin


def counter() -> Plugin:
    """Do one thing only, so that a conversation with it has few points."""
    plugin = Plugin("counter")

    @plugin.message()
    async def take_order(ctx: Context, orders: State[Tally]) -> str:
        orders.value.count += 1
        return f"order {orders.value.count}: {ctx.text}"

    return plugin


class Careless(MemoryStore):
    """Acknowledge every action and forget it at once."""

    async def commit(
        self, bot: UserId, writes: Sequence[Write], *, shards: Collection[int] = (), notes: Sequence[str] = ()
    ) -> None:
        await super().commit(
            bot, [write for write in writes if not isinstance(write, Enqueue)], shards=shards, notes=notes
        )


async def evening(room: Room) -> None:
    """Everything that people and operators do."""
    ann, ben = room.user("Ann"), room.user("Ben")
    await ann.says("tea", "/gossip")
    await ann.edits("coffee")
    await ben.says("/drop")
    await ben.deletes()
    await room.stop()
    await ann.says("cake", "/bill")
    await room.start()
    await ben.leaves()


async def order(room: Room) -> None:
    await room.user("Ann").says("tea")


async def two_orders(room: Room) -> None:
    await room.user("Ann").says("tea", "cake")


async def healing(room: Room) -> None:
    """A reply is sent twice and healed; the store forgets what it may, and later answers are lost."""
    ann, ben = room.user("Ann"), room.user("Ben")
    await ann.joins()
    await ben.joins()
    for fault in ("reset-after", "stale=8"):
        room.emulator.faults.add(f"send_message:{fault},times=1,user={room.bot.user}")
    with room.not_waiting():
        await ann.says("tea")
        await ben.says("/gossip")
    await room.advance(minutes=3)
    room.emulator.faults.add(f"send_message:reset,times=1,user={room.bot.user}")
    await ann.says("cake")
    await room.advance(minutes=2)
    room.emulator.faults.add(f"delete_message:reset-after,times=1,user={room.bot.user}")
    await ben.says("/gossip")


async def moving(room: Room) -> None:
    """The bot comes and goes, and rooms end."""
    ann = room.user("Ann")
    await ann.joins()
    await ann.removes(room.bot)
    await ann.says("nobody hears this")
    await ann.adds(room.bot)
    await ann.says("cake")
    elsewhere = room.another("elsewhere")
    await elsewhere.user("Ben").joins()
    await elsewhere.user("Ben").closes()


@virtual
@sample_and_all
async def test_a_kill_at_any_point_of_a_conversation_leaves_no_trace(every: int) -> None:
    report = await crash_points(evening, waiter, every=every)

    print(f"\n{report}")
    assert report.is_clean, report
    assert report.points[""].keys() >= {CrashKind.COMMIT, CrashKind.SEND, CrashKind.CHANGE, CrashKind.READ}
    assert not report.unreached


@virtual
@sample_and_all
async def test_a_kill_at_any_point_leaves_no_trace_where_the_bot_comes_and_goes(every: int) -> None:
    report = await crash_points(moving, waiter, every=every)

    print(f"\n{report}")
    assert report.is_clean, report
    assert not report.unreached


@virtual
@sample_and_all
async def test_a_kill_at_any_point_of_the_repair_of_a_duplicate_leaves_no_trace(every: int) -> None:
    settings = BotSettings(cadence=CADENCE, retention=timedelta(minutes=1))

    report = await crash_points(healing, waiter, settings=settings, every=every)

    print(f"\n{report}")
    assert report.is_clean, report
    assert not report.unreached


@virtual
@sample_and_all
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_kill_at_any_point_leaves_no_trace_while_the_service_fails_at_times(fault: str, every: int) -> None:
    report = await crash_points(order, waiter, faults=[fault], every=every)

    print(f"\n{report}")
    assert report.is_clean, report
    assert not report.unreached


@virtual
@sample_and_all
async def test_a_plugin_that_remembers_in_its_process_only_is_found_out(every: int) -> None:
    report = await crash_points(two_orders, forgetful, every=every)

    wrong = {sentence for violation in report.violations for sentence in violation.wrong}
    assert wrong == {"missing: bot: 'order 2: cake'", "unexpected: bot: 'order 1: cake'"}


@virtual
async def test_a_store_that_acknowledges_and_forgets_is_found_out_where_it_matters_with_what_was_said() -> None:
    report = await crash_points(order, counter, store=Careless, faults=["send_message:429,times=1"])

    lost = [violation for violation in report.violations if "missing: bot: 'order 1: tea'" in violation.wrong]
    first, last = lost[0].point, lost[-1].point
    assert first is not None
    assert last is not None
    assert (first.kind, first.is_after) == (CrashKind.COMMIT, True)
    assert (last.kind, last.is_after) == (CrashKind.SEND, False)
    text = str(report)
    assert ", before a send (send_message), under send_message:429,times=1:" in text
    assert re.search(r"00:00:0\d Ann: tea", text)
    assert f"{report.count} crash points in {report.runs} runs" in text


@virtual
async def test_the_run_without_a_kill_must_succeed() -> None:
    async def script(room: Room) -> None:
        await room.user("Ann").says("tea")
        assert room.replies == ["wine"]

    with pytest.raises(AssertionError):
        await crash_points(script, waiter)


@virtual
async def test_a_sample_kills_at_every_nth_point_and_counts_them_all() -> None:
    tenth, thirtieth = [await crash_points(order, waiter, every=every) for every in (10, 30)]

    assert tenth.points == thirtieth.points
    assert tenth.count > 30
    assert [tenth.runs, thirtieth.runs] == [1 + -(-tenth.count // every) for every in (10, 30)]
    with pytest.raises(ValueError, match="every point"):
        await crash_points(order, waiter, every=0)


async def test_crash_points_need_virtual_time() -> None:
    with pytest.raises(StateError, match="virtual_time"):
        await crash_points(order, waiter)
