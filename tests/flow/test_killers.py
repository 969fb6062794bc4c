"""After a kill, only a handler that was running is suspected of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anyio
import pytest

from chatbot import Context, Plugin, Retry
from chatbot.bot import BotSettings
from chatbot.errors import StoreError
from chatbot.model import UserId
from chatbot.stores import MemoryStore
from chatbot.stores.base import SaveDeadLetter, Write
from chatbot.testing import chat
from chatbot.testing.room import Room

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


async def test_a_handler_that_waits_for_its_next_try_is_not_blamed_when_the_process_is_killed() -> None:
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


async def test_what_happens_to_run_at_three_kills_in_a_row_is_buried_and_answered_when_it_is_revived() -> None:
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
        for _ in range(3):
            begun.append(anyio.Event())
            async with anyio.create_task_group() as group:
                group.start_soon(room.start)
                await begun[-1].wait()
                await room.kill()
        await ann.says("two")
        begun.append(anyio.Event())
        await room.start()

        (letter,) = await store.dead_letters(room.bot.user)
        assert (letter.attempts, letter.error) == (3, "RuntimeError: the process died 3 times while this was handled")
        assert room.replies == ["two at last"]

        await store.commit(room.bot.user, [SaveDeadLetter(replace(letter, is_revived=True))])
        await room.restart()

        assert room.replies == ["two at last", "one at last"]
        assert await store.dead_letters(room.bot.user) == []


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

    async def commit(self, bot: UserId, writes: Sequence[Write]) -> None:
        if self.refusals:
            self.refusals -= 1
            msg = "the disk is full"
            raise StoreError(msg)
        await super().commit(bot, writes)


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


class Waiting:
    """A handler that does not end, in a process that is ended again and again."""

    def __init__(self) -> None:
        self.plugin, self.store, self.begun = Plugin("slow"), MemoryStore(), anyio.Event()
        self.lasts = True

        @self.plugin.message(timeout=None)
        async def think(ctx: Context) -> str:
            self.begun.set()
            if self.lasts:
                await anyio.sleep_forever()
            return f"{ctx.text} at last"

    async def end_process(self, room: Room, *, after: float, is_stop: bool) -> None:
        """Start the bots, and end them some seconds after the handler has begun."""
        self.begun = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(room.start)
            await self.begun.wait()
            await anyio.sleep(after)
            if is_stop:
                self.store.stop_began()
            await room.kill()


@pytest.mark.parametrize(
    ("after", "is_stop", "ends", "error"),
    [
        (1, False, 3, "RuntimeError: the process died 3 times while this was handled"),
        (90, False, 3, "RuntimeError: the process died 3 times while this was handled"),
        (90, True, 5, "RuntimeError: 5 stops cut this off"),
        (1, True, 8, None),
    ],
    ids=["killed at once", "killed while it runs for long", "stopped while it runs for long", "stopped at once"],
)
async def test_kills_and_stops_that_cut_a_handler_off_are_counted_apart(
    after: float, is_stop: bool, ends: int, error: str | None
) -> None:
    waiting = Waiting()
    async with chat(waiting.plugin, store=waiting.store, raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.joins()
        await room.kill()
        await ann.says("one")
        for _ in range(ends):  # it begins each time, so it was not given up before
            await waiting.end_process(room, after=after, is_stop=is_stop)
        waiting.lasts = False
        await room.start()

        errors = [letter.error for letter in await waiting.store.dead_letters(room.bot.user)]
        assert (errors[0].startswith(error) if error else errors == []) is True
        assert room.replies == ([] if error else ["one at last"])


async def test_a_handler_that_waits_for_its_turn_is_not_blamed_when_the_process_is_killed() -> None:
    plugin, store = Plugin("slow"), MemoryStore()
    first = anyio.Event()

    @plugin.message(timeout=None)
    async def think(ctx: Context) -> str:
        first.set()
        await anyio.sleep(60)
        return f"{ctx.text} at last"

    settings = BotSettings(max_handlers=1)
    async with chat(plugin, store=store, settings=settings, raise_failures=False) as room:
        ann = room.user("Ann")
        other = room.another()
        bob = other.user("Bob")
        await ann.joins()
        await bob.joins()
        await room.kill()
        await ann.says("one")
        await bob.says("two")
        for _ in range(5):
            first = anyio.Event()
            async with anyio.create_task_group() as group:
                group.start_soon(room.start)
                await first.wait()
                await anyio.sleep(1)
                await room.kill()
        await room.start()

        letters = await store.dead_letters(room.bot.user)
        assert [letter.error for letter in letters] == ["RuntimeError: the process died 3 times while this was handled"]
        assert [*room.replies, *other.replies] in (["one at last"], ["two at last"])
