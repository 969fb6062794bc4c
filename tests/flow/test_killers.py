"""After a kill, only a handler that was running is suspected of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta

import anyio
import pytest

from chatbot import Ack, ActionFailed, Context, Event, Plugin, Retry, ScheduleFired, TimerFired
from chatbot.actions import APOLOGY
from chatbot.errors import StoreError
from chatbot.model import MessageId, UserId
from chatbot.stores import MemoryStore
from chatbot.stores.writes import SaveDeadLetter, Write
from chatbot.testing import Room, chat

pytestmark = pytest.mark.virtual_time


async def test_a_handler_that_fails_after_a_kill_has_all_its_attempts_and_its_own_error_on_the_dead_letter() -> None:
    plugin, store, tries = Plugin("poison"), MemoryStore(), list[str]()

    @plugin.message(retry=Retry(attempts=5))
    async def fail(ctx: Context) -> None:
        tries.append(ctx.text)
        msg = "no luck"
        raise ValueError(msg)

    async with chat(plugin, store=store, raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.joins()
        await room.restart()

        await ann.says("hi")

        (letter,) = await store.dead_letters(room.bot.user)
        assert letter.error == "ValueError: no luck"
        assert tries == ["hi"] * letter.attempts == ["hi"] * 5


async def test_a_kill_does_not_count_against_a_handler_that_waits_for_its_next_attempt() -> None:
    plugin, store, failed = Plugin("shaky"), MemoryStore(), list[anyio.Event]()

    @plugin.message()
    async def shake(ctx: Context) -> str:
        if not failed[-1].is_set():
            failed[-1].set()
            msg = "the first attempt of a process fails"
            raise ValueError(msg)
        return "steady"

    async with chat(plugin, store=store, raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.joins()
        await room.kill()
        await ann.says("hi")
        for _ in range(5):
            failed.append(anyio.Event())
            async with anyio.create_task_group() as group:
                group.start_soon(room.start)
                await failed[-1].wait()
                await anyio.sleep(0.1)  # of virtual time: the next try is due in about a second
                await room.kill()
        failed.append(anyio.Event())
        await room.start()

        assert room.replies == ["steady"]
        assert await store.dead_letters(room.bot.user) == []


async def kill_three_times(room: Room, begun: list[anyio.Event]) -> None:
    """Start the process and kill it while its handler runs, which sets the last event, three times."""
    for _ in range(3):
        begun.append(anyio.Event())
        async with anyio.create_task_group() as group:
            group.start_soon(room.start)
            await begun[-1].wait()
            await room.kill()


async def test_who_sent_what_kills_the_process_gets_the_apology_and_no_error_handler_runs() -> None:
    plugin, store, begun = Plugin("deadly"), MemoryStore(), list[anyio.Event]()

    @plugin.message()
    async def deadly(ctx: Context) -> None:
        begun[-1].set()
        await anyio.sleep(60)

    @plugin.error()
    async def deadly_too(ctx: Context[Event], error: Exception) -> str:
        return "never"

    async with chat(plugin, store=store, apology=APOLOGY, raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.joins()
        await room.kill()
        await ann.says("one")
        await kill_three_times(room, begun)
        await room.start()

        assert room.replies == [APOLOGY]
        (letter,) = await store.dead_letters(room.bot.user)
        assert letter.handler.endswith("deadly")


async def test_an_event_that_ran_at_three_kills_in_a_row_is_dead_lettered_and_answered_when_retried() -> None:
    plugin, store, begun = Plugin("slow"), MemoryStore(), list[anyio.Event]()

    @plugin.message()
    async def think(ctx: Context) -> str:
        begun[-1].set()
        await anyio.sleep(60)
        return f"{ctx.text} at last"

    async with chat(plugin, store=store) as room:
        ann = room.user("Ann")
        await ann.joins()
        await room.kill()
        await ann.says("one")
        await kill_three_times(room, begun)
        await ann.says("two")
        begun.append(anyio.Event())
        await room.start()

        (letter,) = await store.dead_letters(room.bot.user)
        assert (letter.attempts, letter.error) == (
            3,
            "RuntimeError: the process died 3 times while this event was being handled",
        )
        assert letter.handler.endswith("think")
        assert room.replies == ["two at last"]

        await store.commit(room.bot.user, [SaveDeadLetter(replace(letter, is_revived=True))])
        await room.restart()

        assert room.replies == ["two at last", "one at last"]
        assert await store.dead_letters(room.bot.user) == []


@pytest.mark.parametrize("ack", list(Ack))
async def test_a_timer_that_kills_the_process_is_given_up_although_people_talk_in_its_thread(ack: Ack) -> None:
    plugin, store, begun = Plugin("alarm"), MemoryStore(), list[anyio.Event]()

    @plugin.timer
    async def ring(ctx: Context[TimerFired]) -> None:
        begun[-1].set()
        await anyio.sleep(60)

    @plugin.message(ack=ack)
    async def answer(ctx: Context) -> str:
        if ctx.text == "wind it":
            await ctx.later(timedelta(minutes=1), ring)
        return f"{ctx.text}?"

    async with chat(plugin, store=store) as room:
        ann = room.user("Ann")
        await ann.says("wind it")
        await room.kill()
        await anyio.sleep(100)
        for number in range(3):
            room.emulator.send(room.thread, ann.user, f"{number}")
            begun.append(anyio.Event())
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(room.start)
                await begun[-1].wait()
                await room.kill()
        room.emulator.send(room.thread, ann.user, "last")
        await room.start()

        (letter,) = await store.dead_letters(room.bot.user)
        assert letter.attempts == 3
        assert letter.handler.endswith("ring")
        assert room.replies == ["wind it?", "0?", "1?", "2?", "last?"]


async def test_after_a_kill_threads_do_not_wait_for_the_slow_handlers_of_others() -> None:
    plugin = Plugin("slow")

    @plugin.message()
    async def think(ctx: Context) -> str:
        await anyio.sleep(60)
        return "at last"

    async with chat(plugin) as room:
        rooms = [room.another(str(number)) for number in range(10)]
        for one in rooms:
            await one.user("Ann").joins()
        await room.kill()
        for one in rooms:
            await one.user("Ann").says("hi")
        begun = room.stage.clock()

        await room.start()

        assert [one.replies for one in rooms] == [["at last"]] * 10
        assert room.stage.clock() - begun < 120


class FullDisk(MemoryStore):
    """A store that can be told to refuse a number of commits."""

    refusals = 0

    async def commit(
        self, bot: UserId, writes: Sequence[Write], *, shards: Collection[int] = (), notes: Sequence[str] = ()
    ) -> None:
        if self.refusals:
            self.refusals -= 1
            msg = "the disk is full"
            raise StoreError(msg)
        await super().commit(bot, writes, shards=shards, notes=notes)


async def test_a_store_that_refuses_after_a_kill_is_no_killer() -> None:
    plugin, store = Plugin("echo"), FullDisk()

    @plugin.message()
    async def echo(ctx: Context) -> str:
        return ctx.text

    async with chat(plugin, store=store) as room:
        ann = room.user("Ann")
        await ann.joins()
        await room.kill()
        await ann.says("hi")

        store.refusals = 8
        await room.start()

        assert store.refusals == 0
        assert room.replies == ["hi"]
        assert await store.dead_letters(room.bot.user) == []


async def kill_while(room: Room, begun: list[anyio.Event], times: int) -> None:
    """Start the bots and kill them as soon as a handler has begun, so many times."""
    for _ in range(times):
        begun.append(anyio.Event())
        async with anyio.create_task_group() as group:
            group.start_soon(room.start)
            await begun[-1].wait()
            await room.kill()
    begun.append(anyio.Event())


async def test_an_error_handler_that_kills_the_process_is_named_and_not_asked_again() -> None:
    plugin, store, begun = Plugin("poison"), MemoryStore(), list[anyio.Event]()

    @plugin.error(ValueError)
    async def sorry(ctx: Context[Event], error: ValueError) -> str:
        begun[-1].set()
        await anyio.sleep(60)
        return "sorry"

    @plugin.message(retry=Retry(attempts=1))
    async def fail(ctx: Context) -> None:
        if ctx.text == "one":
            raise ValueError

    async with chat(plugin, store=store, raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.joins()
        await room.kill()
        await ann.says("one")
        await kill_while(room, begun, 3)
        await room.start()

        (letter,) = await store.dead_letters(room.bot.user)
        assert letter.handler.endswith("sorry")
        assert letter.error == "RuntimeError: the process died 3 times while this event was being handled"


async def test_a_handler_of_a_failed_action_that_kills_the_process_is_not_asked_again() -> None:
    plugin, store, begun = Plugin("poison"), MemoryStore(), list[anyio.Event]()

    @plugin.on(ActionFailed)
    async def failed(ctx: Context[ActionFailed]) -> None:
        begun[-1].set()
        await anyio.sleep(60)

    @plugin.message()
    async def edit(ctx: Context) -> None:
        await ctx.edit(MessageId("1"), "there is no such message")

    async with chat(plugin, store=store, raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.joins()
        await room.kill()
        await ann.says("one")
        await kill_while(room, begun, 3)
        await room.start()

        (letter,) = await store.dead_letters(room.bot.user)
        assert letter.handler == "EditMessage"


async def test_a_dead_letter_of_a_schedule_that_kills_the_process_is_tried_once_per_request() -> None:
    plugin, store, begun = Plugin("poison"), MemoryStore(), list[anyio.Event]()

    @plugin.every(timedelta(hours=1), retry=Retry(attempts=1))
    async def tick(ctx: Context[ScheduleFired]) -> None:
        if not begun:
            raise ValueError
        begun[-1].set()
        await anyio.sleep(60)

    async with chat(plugin, store=store, raise_failures=False) as room:
        await room.user("Ann").joins()
        await room.advance(hours=1)
        (letter,) = await store.dead_letters(room.bot.user)
        await store.commit(room.bot.user, [SaveDeadLetter(replace(letter, is_revived=True))])
        await room.kill()
        await kill_while(room, begun, 1)

        await room.start()
        (letter,) = await store.dead_letters(room.bot.user)
        assert not letter.is_revived
        assert not begun[-1].is_set()
        assert letter.handler.endswith("tick")
