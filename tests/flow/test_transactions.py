"""What a handled event costs the store: one transaction; what can wait is written for all threads together."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import anyio
import anyio.lowlevel
import pytest

from chatbot import Context, Plugin
from chatbot.bot import BotSettings
from chatbot.errors import StoreError
from chatbot.model import UserId
from chatbot.stores import MemoryStore
from chatbot.stores.writes import Enqueue, MarkReceiptDue, MarkSeen, SettleReceipt, SettleRow, Write
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time

THREADS = 40

plugin = Plugin("echo")


@plugin.message()
async def echo(ctx: Context) -> str:
    return ctx.text


class Transactions(MemoryStore):
    """A store that notes its transactions, takes its time for deferred ones, and refuses some."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[Sequence[Write]] = []
        self.refusals = 0
        self.is_deferring = anyio.Event()

    async def commit(
        self, bot: UserId, writes: Sequence[Write], *, shards: Collection[int] = (), notes: Sequence[str] = ()
    ) -> None:
        if is_deferred(writes):
            if self.refusals:
                self.refusals -= 1
                msg = "not now"
                raise StoreError(msg)
            self.is_deferring.set()
            for _ in range(20):  # whatever could overtake does so now
                await anyio.lowlevel.checkpoint()
        await super().commit(bot, writes, shards=shards, notes=notes)
        self.noted.append(writes)

    def holding(self, kind: type[Write]) -> list[Sequence[Write]]:
        return [writes for writes in self.noted if any(isinstance(one, kind) for one in writes)]


def is_deferred(writes: Sequence[Write]) -> bool:
    kinds = {type(one) for one in writes}
    return SettleRow in kinds and Enqueue not in kinds


async def test_an_event_with_a_reply_costs_one_transaction_and_what_came_of_it_a_share_of_another() -> None:
    store = Transactions()
    async with chat(plugin, store=store, settings=BotSettings()) as room:
        ann = room.user("Ann")
        await ann.says("hi")
        threads = [room.emulator.create_thread(ann.user, f"{n}", [room.bot.user]) for n in range(THREADS)]
        await room.advance(seconds=30)
        store.noted.clear()

        for thread in threads:
            room.emulator.send(thread, ann.user, "hello")
        await room.advance(seconds=10)

        said = [(ann.user, "hello"), (room.bot.user, "hello")]
        assert [room.emulator.texts(thread) for thread in threads] == [said] * THREADS
        events = store.holding(Enqueue)
        assert len(events) == THREADS
        for writes in events:
            assert {Enqueue, MarkReceiptDue, MarkSeen} <= {type(one) for one in writes}
        settled = [one for writes in store.noted for one in writes if isinstance(one, SettleRow)]
        read = [one for writes in store.noted for one in writes if isinstance(one, SettleReceipt)]
        assert len(settled) == len(read) == THREADS
        assert len(store.noted) - THREADS <= 10, "at most one more in a second"


async def test_the_next_event_of_the_thread_takes_along_what_waits() -> None:
    store = Transactions()
    async with chat(plugin, store=store) as room:
        await room.user("Ann").says("one")
        store.noted.clear()
        room.emulator.send(room.thread, room.user("Ann").user, "two")
        room.emulator.send(room.thread, room.user("Ann").user, "three")
        await room.settle()

        first, second = store.holding(Enqueue)
        assert SettleRow in {type(one) for one in second}
        assert store.noted == [first, second]


async def test_a_stop_leaves_nothing_unwritten() -> None:
    store = Transactions()
    async with chat(plugin, store=store) as room:
        await room.user("Ann").says("hi")
        await room.stop()

        async with store:
            assert await store.pending(room.bot.user) == []
            (record,) = await store.threads(room.bot.user)
        assert record.receipt_sent == record.receipt_due


async def test_a_kill_before_what_waits_was_written_doubles_and_loses_nothing() -> None:
    store = Transactions()
    async with chat(plugin, store=store) as room:
        ann = room.user("Ann")
        await ann.says("one")
        assert not any(is_deferred(writes) for writes in store.noted)
        await room.restart()
        await ann.says("two")
        await room.advance(seconds=30)

        assert room.replies == ["one", "two"]


async def test_what_the_store_refuses_is_written_later() -> None:
    store = Transactions()
    async with chat(plugin, store=store) as room:
        store.refusals = 2
        await room.user("Ann").says("hi")
        await room.advance(seconds=10)

        assert store.refusals == 0
        assert await store.pending(room.bot.user) == []


async def test_an_event_waits_for_what_its_thread_is_having_written() -> None:
    store, slow = Transactions(), Plugin("slow")

    @slow.message()
    async def answer(ctx: Context) -> str:
        if ctx.text == "two":
            await store.is_deferring.wait()
        return ctx.text

    async with chat(slow, store=store) as room:
        ann = room.user("Ann")
        await ann.says("one")
        store.is_deferring, store.noted = anyio.Event(), []
        room.emulator.send(room.thread, ann.user, "two")
        await room.settle()

        assert [is_deferred(writes) for writes in store.noted][:2] == [True, False]
        assert room.replies == ["one", "two"]
