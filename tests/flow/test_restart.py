from __future__ import annotations

import anyio
import pytest

from chatbot import Context, Plugin
from chatbot.bot import ALL_HISTORY, BotSettings
from chatbot.stores import MemoryStore
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time


def echo(handled: list[str] | None = None, *, seconds: float = 0) -> Plugin:
    plugin = Plugin("echo")

    @plugin.message()
    async def repeat(ctx: Context) -> str:
        if handled is not None:
            handled.append(ctx.text)
        await anyio.sleep(seconds)
        return ctx.text

    return plugin


async def test_a_restart_repeats_and_forgets_nothing() -> None:
    handled: list[str] = []
    async with chat(echo(handled)) as room:
        ann = room.user("Ann")
        await ann.says("one", "two")
        await room.restart()
        await room.restart()
        await ann.says("three")

        assert handled == room.replies == ["one", "two", "three"]


async def test_what_was_said_while_the_bot_was_down_is_answered_once_and_in_order() -> None:
    async with chat(echo()) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.says("one")
        await bob.says("two")
        await room.kill()
        await ann.says("three")
        await bob.says("four", "five")
        await room.start()

        assert room.replies == ["one", "two", "three", "four", "five"]


async def test_a_kill_during_a_handler_makes_it_run_again_but_reply_once() -> None:
    handled: list[str] = []
    async with chat(echo(handled, seconds=60)) as room:
        ann = room.user("Ann")
        await ann.joins()
        async with anyio.create_task_group() as group:
            group.start_soon(ann.says, "hi")
            await anyio.sleep(30)
            await room.kill()
        assert room.replies == []
        await room.start()

        assert handled == ["hi", "hi"]
        assert room.replies == ["hi"]


async def test_a_store_distinguishes_a_kill_from_a_stop() -> None:
    store = MemoryStore()
    async with chat(echo(), store=store) as room:
        await room.restart()
        assert store.was_killed
        await room.stop()
        await room.start()
        assert not store.was_killed


async def test_a_stop_lets_the_running_handler_finish_and_sends_its_reply() -> None:
    handled: list[str] = []
    async with chat(echo(handled, seconds=60)) as room:
        ann = room.user("Ann")
        await ann.joins()
        async with anyio.create_task_group() as group:
            group.start_soon(ann.says, "hi")
            await anyio.sleep(30)
            await room.stop()
        assert room.replies == ["hi"]
        await room.start()

        assert handled == room.replies == ["hi"]


async def test_a_kill_while_a_reply_is_on_its_way_doubles_nothing() -> None:
    """The service has the reply, the bot never hears so."""
    async with chat(echo()) as room:
        ann = room.user("Ann")
        await ann.joins()
        async with anyio.create_task_group() as group:
            group.start_soon(ann.says, "hi")
            await anyio.sleep(1)
            while not room.replies:
                await anyio.lowlevel.checkpoint()
            await room.kill()
        await room.start()
        await ann.says("again")

        assert room.replies == ["hi", "again"]


async def test_a_bot_goes_on_with_the_store_of_an_earlier_chat() -> None:
    store = MemoryStore()
    async with chat(echo(), store=store) as room:
        await room.user("Ann").says("one")
        world, bot, thread = room.emulator.world, room.bot, room.thread
    async with chat(echo(), store=store, world=world) as later:
        assert later.bot == bot
        people = later.emulator
        people.send(thread, people.participants(thread)[0].user, "two")
        await later.advance(minutes=10)

        assert [text for _, text in people.texts(thread)] == ["one", "one", "two", "two"]


async def test_a_new_bot_reads_as_much_history_as_configured() -> None:
    async with chat(echo()) as room:
        await room.user("Ann").says("one", "two")
        await room.user("Ann").removes(room.bot)
        world, thread = room.emulator.world, room.thread
        ann = room.user("Ann").user
    async with chat(echo(), name="reader", world=world, settings=BotSettings(history=ALL_HISTORY)) as later:
        later.emulator.add(thread, ann, later.bot.user)
        await later.advance(minutes=10)

        said = [text for sender, text in later.emulator.texts(thread) if sender == later.bot.user]
        assert said == ["one", "two"]


async def test_thousands_of_waiting_messages_are_handled_in_order() -> None:
    handled: list[str] = []
    plugin = Plugin("count")

    @plugin.message()
    async def count(ctx: Context) -> str | None:
        handled.append(ctx.text)
        return "done" if ctx.text == "2999" else None

    async with chat(plugin) as room:
        ann = room.user("Ann")
        await ann.says("first")
        await room.kill()
        for number in range(3000):
            await room.advance(seconds=2)
            room.emulator.send(room.thread, ann.user, str(number))
        await room.start()

        assert handled == ["first", *(str(number) for number in range(3000))]
        assert room.replies == ["done"]


async def test_thousands_of_waiting_messages_are_handled_in_order_while_users_write_and_edit() -> None:
    plugin = Plugin("slow counter")
    heard: list[int] = []
    is_caught_up = anyio.Event()

    @plugin.message()
    async def note(ctx: Context) -> None:
        heard.append(int(ctx.text.split()[0]))
        await anyio.sleep(0.1)
        if len(heard) >= 2_000:
            is_caught_up.set()

    async with chat(plugin, quotas=False) as room:
        ann = room.user("Ann")
        await ann.joins()
        await room.stop()
        ids = [room.emulator.send(room.thread, ann.user, f"{number}") for number in range(2_000)]
        for number in range(0, 2_000, 100):
            room.emulator.edit(room.thread, ann.user, ids[number], f"{number} edited while the bot was away")

        async def talk_on() -> None:
            while not is_caught_up.is_set():
                ids.append(room.emulator.send(room.thread, ann.user, f"{len(ids)}"))
                edited = len(ids) * 7 % 2_000
                if not len(ids) % 5:
                    room.emulator.edit(room.thread, ann.user, ids[edited], f"{edited} edited")
                await anyio.sleep(0.15)

        with room.not_waiting():
            async with anyio.create_task_group() as group:
                group.start_soon(talk_on)
                await room.start()
                await is_caught_up.wait()
        await room.settle()
        assert len(ids) > 3_000
        assert heard == list(range(len(ids)))
