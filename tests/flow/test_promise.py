"""Every message is handled, every reply is visible once, and what keeps failing ends as a dead letter."""

from __future__ import annotations

import anyio
import pytest

from chatbot import Context, MessageReceived, Plugin
from chatbot.bot import ALL_HISTORY, BotSettings
from chatbot.emulator import Fault
from chatbot.model import REPLY_KEY
from chatbot.stores import MemoryStore
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time


def echo() -> Plugin:
    plugin = Plugin("echo")

    @plugin.message()
    async def echo_text(ctx: Context) -> str:
        return f"echo {ctx.text}"

    return plugin


class Listener:
    """A plugin that says nothing and remembers what it heard."""

    def __init__(self) -> None:
        self.plugin = Plugin("listener")
        self.heard: list[str] = []

        @self.plugin.message()
        async def listen(ctx: Context) -> None:
            self.heard.append(ctx.text)


class Unlucky:
    """A plugin whose handler fails a number of times for each text that asks for it (`fail 2`)."""

    def __init__(self) -> None:
        self.plugin = Plugin("unlucky")
        self.tries: dict[str, int] = {}

        @self.plugin.message()
        async def answer(ctx: Context) -> str:
            self.tries[ctx.text] = self.tries.get(ctx.text, 0) + 1
            if ctx.text.startswith("fail") and self.tries[ctx.text] <= int(ctx.text.split()[1]):
                msg = "no luck"
                raise RuntimeError(msg)
            return f"echo {ctx.text}"


async def test_a_send_whose_answer_was_lost_is_found_by_reading_and_not_said_again() -> None:
    async with chat(echo()) as room:
        ann = room.user("Ann")
        await ann.says("one")
        room.emulator.faults.add(Fault.parse(f"send_message:reset-after,times=1,user={room.bot.user}"))

        await ann.says("two", "three")

        assert room.replies == ["echo one", "echo two", "echo three"]


async def test_a_send_that_never_arrived_is_said_after_all_and_in_its_place() -> None:
    async with chat(echo()) as room:
        ann = room.user("Ann")
        await ann.says("one")
        room.emulator.faults.add(Fault.parse(f"send_message:reset,times=2,user={room.bot.user}"))

        await ann.says("two", "three")

        assert room.replies == ["echo one", "echo two", "echo three"]


async def test_a_store_restored_from_a_backup_doubles_no_reply() -> None:
    store = MemoryStore()
    async with chat(echo(), store=store) as room:
        ann = room.user("Ann")
        await ann.says("one")
        backup = store.snapshot()
        await ann.says("two", "three")

        await room.kill()
        store.restore(backup)
        await room.start()
        await ann.says("four")

        assert room.replies == ["echo one", "echo two", "echo three", "echo four"]


async def test_a_duplicate_that_becomes_visible_late_is_repaired() -> None:
    async with chat(echo()) as room:
        ann = room.user("Ann")
        await ann.says("one")
        reply = next(message for message in room.messages if message.text == "echo one")

        key = {REPLY_KEY: reply.metadata[REPLY_KEY]}
        room.emulator.send(room.thread, room.bot.user, "echo one", metadata=key)
        await ann.says("two")
        await room.advance(minutes=5)

        assert room.replies == ["echo one", "echo two"]
        assert next(message for message in room.messages if message.id == reply.id).deleted is None


async def test_thousands_of_messages_that_came_while_the_bot_was_away_are_handled_in_their_order() -> None:
    listener = Listener()
    async with chat(listener.plugin) as room:
        ann = room.user("Ann")
        await ann.says("first")
        await room.kill()
        for number in range(3_000):
            room.emulator.send(room.thread, ann.user, str(number))
        await room.start()
        await ann.says("last")

        assert listener.heard == ["first", *map(str, range(3_000)), "last"]


@pytest.mark.parametrize("fault", ["429", "429,retry-after=3", "503", "reset", "truncate"])
async def test_a_gap_is_caught_up_although_pages_fail_at_times(fault: str) -> None:
    listener = Listener()
    async with chat(listener.plugin) as room:
        ann = room.user("Ann")
        await ann.says("first")
        await room.kill()
        for number in range(600):
            room.emulator.send(room.thread, ann.user, str(number))
        kind, *settings = fault.split(",")
        rest = "".join(f",{setting}" for setting in settings)
        room.emulator.faults.add(Fault.parse(f"list_messages:{kind},every=3,times=20,user={room.bot.user}{rest}"))
        await room.start()
        await ann.says("last")

        assert listener.heard == ["first", *map(str, range(600)), "last"]


async def test_a_failing_handler_is_tried_again_and_its_thread_keeps_its_order() -> None:
    unlucky = Unlucky()
    async with chat(unlucky.plugin, raise_failures=False) as room:
        ann = room.user("Ann")

        await ann.says("fail 2", "after")

        assert room.replies == ["echo fail 2", "echo after"]
        assert unlucky.tries == {"fail 2": 3, "after": 1}


async def test_a_handler_that_keeps_failing_leaves_a_dead_letter_and_its_thread_continues() -> None:
    unlucky, store = Unlucky(), MemoryStore()
    async with chat(unlucky.plugin, store=store, raise_failures=False) as room:
        ann = room.user("Ann")

        await ann.says("fail 3", "after")

        dead_letters = await store.dead_letters(room.bot.user)
        assert room.replies == ["echo after"]
        assert [(letter.error, letter.attempts) for letter in dead_letters] == [("RuntimeError: no luck", 3)]
        event = dead_letters[0].event
        assert isinstance(event, MessageReceived)
        assert event.message.content == "fail 3"


async def test_other_threads_do_not_wait_for_a_poisoned_message() -> None:
    async with chat(Unlucky().plugin, raise_failures=False, settings=BotSettings()) as room:
        elsewhere = room.another("elsewhere")
        ann, ben = room.user("Ann"), elsewhere.user("Ben")
        await ann.says("hi")
        await ben.says("hi")
        room.emulator.send(room.thread, ann.user, "fail 9")

        await ben.says("still quick?")

        asked, answered = elsewhere.messages[-2:]
        assert answered.text == "echo still quick?"
        assert answered.id - asked.id < 1_500


async def test_an_action_that_is_refused_permanently_becomes_a_dead_letter() -> None:
    store = MemoryStore()
    async with chat(echo(), store=store, raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.says("one")
        room.emulator.faults.add(Fault.parse(f"send_message:400,times=1,user={room.bot.user}"))

        await ann.says("two", "three")

        dead_letters = await store.dead_letters(room.bot.user)
        assert room.replies == ["echo one", "echo three"]
        assert [letter.handler for letter in dead_letters] == ["SendMessage"]


async def test_a_long_reply_is_said_in_pieces_that_follow_each_other() -> None:
    plugin = Plugin("long")
    text = " ".join(f"word{number}" for number in range(8_000))

    @plugin.message()
    async def talk(ctx: Context) -> str:
        return text

    async with chat(plugin) as room:
        await room.user("Ann").says("talk")

        assert len(room.replies) > 1
        assert " ".join(room.replies) == text


async def test_with_all_history_a_thread_is_read_from_its_beginning_even_where_the_bot_was_once_removed() -> None:
    async with chat(echo(), settings=BotSettings(history=ALL_HISTORY)) as room:
        ann = room.user("Ann")
        await ann.says("hi")
        await room.kill()
        thread = room.emulator.create_thread(ann.user, "old", [room.bot.user])
        room.emulator.remove(thread, ann.user, room.bot.user)
        room.emulator.send(thread, ann.user, "before you came")
        room.emulator.add(thread, ann.user, room.bot.user)
        await room.start()
        await room.advance(minutes=10)

        assert room.emulator.texts(thread)[-1][1] == "echo before you came"


async def test_a_thread_that_the_bot_comes_back_to_is_read_from_its_return() -> None:
    async with chat(echo()) as room:
        ann = room.user("Ann")
        await ann.says("one")
        await ann.removes(room.bot)
        room.emulator.send(room.thread, ann.user, "while you were out")
        await room.advance(minutes=1)
        await ann.adds(room.bot)
        await ann.says("two")

        assert room.replies == ["echo one", "echo two"]


async def test_a_return_between_two_looks_is_a_return_all_the_same() -> None:
    async with chat(echo()) as room:
        ann = room.user("Ann")
        await ann.says("one")
        room.emulator.remove(room.thread, ann.user, room.bot.user)
        room.emulator.send(room.thread, ann.user, "while you were out")
        room.emulator.add(room.thread, ann.user, room.bot.user)
        await ann.says("two")

        assert room.replies == ["echo one", "echo two"]


def thinker() -> Plugin:
    """Shows that it thinks, answers, and takes the former back."""
    plugin = Plugin("thinker")

    @plugin.message()
    async def think(ctx: Context) -> None:
        thinking = await ctx.reply("thinking")
        await ctx.reply(f"answer to {ctx.text}")
        await thinking.delete()

    return plugin


@pytest.mark.parametrize("is_killed", [False, True])
async def test_a_message_that_the_bot_took_back_is_no_proof_of_another_one(is_killed: bool) -> None:
    async with chat(thinker()) as room:
        ann = room.user("Ann")
        await ann.joins()
        await room.kill()
        await ann.says("one", "two")
        room.emulator.faults.add(f"send_message:reset,skip=3,times=1,user={room.bot.user}")  # the second answer

        async with anyio.create_task_group() as group:
            group.start_soon(room.start)
            await anyio.sleep(2)  # of virtual time: it is lost by now, and not yet looked for
            if is_killed:
                await room.kill()
        if is_killed:
            await room.start()

        assert room.replies == ["answer to one", "answer to two"]
