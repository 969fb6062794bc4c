"""Operators retry and drop dead letters of running bots, and erase people."""

from __future__ import annotations

import anyio
import pytest

from chatbot import Context, Plugin
from chatbot.bot import Bot
from chatbot.emulator import Fault
from chatbot.errors import UnknownName
from chatbot.runtime.admin_api import AdminApi
from chatbot.stores import MemoryStore
from chatbot.testing import Room, chat

pytestmark = pytest.mark.virtual_time


class Picky:
    """A plugin that fails on every `bad` until it is fixed, and answers slowly if asked to."""

    def __init__(self) -> None:
        self.plugin = Plugin("picky")
        self.is_fixed = False
        self.tries = 0
        self.begun = anyio.Event()

        @self.plugin.message()
        async def answer(ctx: Context) -> str:
            if ctx.text.startswith("bad"):
                self.tries += 1
                if not self.is_fixed:
                    msg = f"cannot digest {ctx.text}"
                    raise ValueError(msg)
            if ctx.text == "slow":
                self.begun.set()
                await anyio.sleep(5)
            return f"echo {ctx.text}"


def caretaker_of(room: Room, store: MemoryStore) -> AdminApi:
    return AdminApi(store, bots_of(room))


def bots_of(room: Room) -> list[Bot]:
    return list(room.process.bots)


async def dead_letter_ids(room: Room, store: MemoryStore) -> list[str]:
    return [letter.id for letter in await store.dead_letters(room.bot.user)]


async def test_a_dead_letter_is_retried_while_the_bot_runs() -> None:
    picky, store = Picky(), MemoryStore()
    async with chat(picky.plugin, store=store, raise_failures=False) as room:
        await room.user("Ann").says("bad luck", "hi")
        (letter,) = await dead_letter_ids(room, store)
        picky.is_fixed = True

        answer = await caretaker_of(room, store).answer({"ask": "dead-letters retry", "id": letter})
        await room.settle()

        assert [one["outcome"] for one in answer["letters"]] == ["now"]
        assert room.replies == ["echo hi", "echo bad luck"]
        assert await dead_letter_ids(room, store) == []


async def test_a_dead_letter_that_fails_again_stays_and_counts_the_attempt() -> None:
    picky, store = Picky(), MemoryStore()
    async with chat(picky.plugin, store=store, raise_failures=False) as room:
        await room.user("Ann").says("bad luck")
        before = picky.tries

        for _ in range(2):
            await caretaker_of(room, store).answer({"ask": "dead-letters retry", "id": "all"})
            await room.settle()

        (letter,) = await store.dead_letters(room.bot.user)
        assert picky.tries == before + 2
        assert (letter.attempts, letter.is_revived) == (before + 2, False)


async def test_a_dead_letter_requested_twice_at_once_is_retried_once() -> None:
    picky, store = Picky(), MemoryStore()
    async with chat(picky.plugin, store=store, raise_failures=False) as room:
        await room.user("Ann").says("bad luck")
        picky.is_fixed, before = True, picky.tries

        for _ in range(2):
            await caretaker_of(room, store).answer({"ask": "dead-letters retry", "id": "all"})
        await room.settle()

        assert picky.tries == before + 1
        assert room.replies == ["echo bad luck"]


async def test_a_refused_action_is_sent_when_its_dead_letter_is_retried() -> None:
    store = MemoryStore()
    async with chat(Picky().plugin, store=store, raise_failures=False) as room:
        await room.user("Ann").says("one")
        room.emulator.faults.add(Fault.parse(f"send_message:400,times=1,user={room.bot.user}"))
        await room.user("Ann").says("two")
        assert room.replies == ["echo one"]

        await caretaker_of(room, store).answer({"ask": "dead-letters retry", "id": "all"})
        await room.settle()

        assert room.replies == ["echo one", "echo two"]
        assert await dead_letter_ids(room, store) == []


async def test_a_dead_letter_of_a_thread_without_the_bot_is_not_retried_and_the_refusal_says_so() -> None:
    picky, store = Picky(), MemoryStore()
    async with chat(picky.plugin, store=store, raise_failures=False) as room:
        await room.user("Ann").says("bad luck")
        await room.user("Ann").removes(room.bot)
        before = picky.tries

        answer = await caretaker_of(room, store).answer({"ask": "dead-letters retry", "id": "all"})
        await room.settle()

        assert [one["outcome"] for one in answer["letters"]] == ["not in the thread"]
        assert picky.tries == before
        assert len(await dead_letter_ids(room, store)) == 1


async def test_a_dead_letter_marked_while_the_bots_were_down_is_retried_at_the_next_start() -> None:
    picky, store = Picky(), MemoryStore()
    async with chat(picky.plugin, store=store, raise_failures=False) as room:
        await room.user("Ann").says("bad luck")
        await room.stop()
        async with store:
            answer = await AdminApi(store).answer({"ask": "dead-letters retry", "id": "all"})
            listed = await AdminApi(store).answer({"ask": "dead-letters list"})
        assert [one["outcome"] for one in answer["letters"]] == ["at the next start"]
        assert [one["is_revived"] for one in listed["letters"]] == [True]

        picky.is_fixed = True
        await room.start()
        await room.user("Ann").says("hi")

        assert room.replies == ["echo bad luck", "echo hi"]


async def test_a_dead_letter_whose_retry_killed_the_process_is_not_retried_without_request() -> None:
    """The next start must not run what killed the last one."""
    store, begun = MemoryStore(), anyio.Event()
    plugin = Plugin("killer")
    tries = 0

    @plugin.message()
    async def answer(ctx: Context) -> str:
        nonlocal tries
        tries += 1
        if tries <= 3:
            msg = "no luck"
            raise ValueError(msg)
        begun.set()
        await anyio.sleep(3600)  # killed in here
        return "never"

    async with chat(plugin, store=store, raise_failures=False) as room:
        await room.user("Ann").says("die")
        await caretaker_of(room, store).answer({"ask": "dead-letters retry", "id": "all"})
        await begun.wait()
        await room.restart()

        assert tries == 4
        assert len(await dead_letter_ids(room, store)) == 1


async def test_a_stop_does_not_wait_for_dead_letters_whose_retry_has_not_begun() -> None:
    """They are marked in the store: the next start tries them."""
    picky, store = Picky(), MemoryStore()
    async with chat(picky.plugin, store=store, raise_failures=False) as room:
        await room.user("Ann").says("bad luck")
        picky.is_fixed = True
        room.emulator.faults.add(f"*:refuse,user={room.bot.user}")
        with room.not_waiting():
            await room.user("Ann").says("hi")
            await room.advance(seconds=10)
            (bot,) = bots_of(room)
            bot.context.is_stopping = True  # between the request and its turn
            await caretaker_of(room, store).answer({"ask": "dead-letters retry", "id": "all"})
            await room.stop()
            room.emulator.faults.clear()
        await room.start()

        assert room.replies == ["echo bad luck", "echo hi"]


async def test_a_dropped_dead_letter_is_gone_even_while_it_waits_for_its_retry() -> None:
    picky, store = Picky(), MemoryStore()
    async with chat(picky.plugin, store=store, raise_failures=False) as room:
        await room.user("Ann").says("bad luck")
        caretaker = caretaker_of(room, store)

        await caretaker.answer({"ask": "dead-letters retry", "id": "all"})
        await caretaker.answer({"ask": "dead-letters drop", "id": "all"})
        await room.settle()

        assert await dead_letter_ids(room, store) == []


# ── forgetting ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_pending_replies_to_an_erased_user_are_never_sent() -> None:
    store = MemoryStore()
    async with chat(Picky().plugin, store=store) as room:
        ann, ben = room.user("Ann"), room.user("Ben")
        await ann.says("one")
        await ben.says("two")
        room.emulator.faults.add(f"send_message:503,user={room.bot.user}")
        with room.not_waiting():
            await ann.says("my secret")
            await ben.says("three")
            await room.advance(minutes=10)
            answer = await caretaker_of(room, store).answer({"ask": "state forget", "user": ann.user})
        room.emulator.faults.clear()
        await room.settle()
        await room.restart()

        assert answer["is_complete"]
        assert answer["records"] == 2
        assert room.replies == ["echo one", "echo two", "echo three"]
        assert b"secret" not in store.snapshot()


async def test_a_user_can_be_erased_while_a_handler_works_on_their_message() -> None:
    picky, store = Picky(), MemoryStore()
    async with chat(picky.plugin, store=store) as room:
        ann = room.user("Ann")
        await ann.says("one")
        with room.not_waiting():
            await ann.says("slow")
        await picky.begun.wait()

        answer = await caretaker_of(room, store).answer({"ask": "state forget", "user": ann.user})

        assert answer["is_complete"]
        assert ann.user.encode() not in store.snapshot()
        assert b"echo slow" not in store.snapshot()


async def test_a_handler_that_works_for_too_long_is_said() -> None:
    store, begun = MemoryStore(), anyio.Event()
    plugin = Plugin("slow")

    @plugin.message()
    async def answer(ctx: Context) -> str:
        begun.set()
        await anyio.sleep(50)
        return "done"

    async with chat(plugin, store=store) as room:
        with room.not_waiting():
            await room.user("Ann").says("slow")
        await begun.wait()

        answer_ = await caretaker_of(room, store).answer({"ask": "state forget", "user": room.user("Ann").user})

        assert not answer_["is_complete"]


async def test_a_dead_letter_of_an_erased_user_is_not_retried() -> None:
    picky, store = Picky(), MemoryStore()
    async with chat(picky.plugin, store=store, raise_failures=False) as room:
        await room.user("Ann").says("bad luck")
        picky.is_fixed, caretaker = True, caretaker_of(room, store)
        await caretaker.answer({"ask": "dead-letters retry", "id": "all"})
        await caretaker.answer({"ask": "state forget", "user": room.user("Ann").user})
        await room.settle()

        assert room.replies in ([], ["echo bad luck"])  # it may have been in hand already
        assert await dead_letter_ids(room, store) == []


async def test_a_bot_cannot_be_forgotten_and_a_name_is_no_id() -> None:
    store = MemoryStore()
    async with chat(Picky().plugin, store=store) as room:
        await room.user("Ann").says("one")
        caretaker = caretaker_of(room, store)

        for user in (room.bot.user, "Ann", "", " ", "8:acs:x y"):
            with pytest.raises(UnknownName):
                await caretaker.answer({"ask": "state forget", "user": user})
