"""A bot that is removed from a thread, or seems to be: nothing is lost, nothing runs twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import anyio
import pytest

from chatbot import ActionFailed, Context, Dialog, Plugin, State, ThreadJoined, ThreadLeft, TimerFired
from chatbot.bot import BotSettings
from chatbot.bot.membership import PROOF_SECONDS
from chatbot.emulator import Quirks, World
from chatbot.model import Participant, ThreadId
from chatbot.polling.cadence import Cadence
from chatbot.service.back_off import FIRST_PAUSE
from chatbot.stores import MemoryStore
from chatbot.stores.records import DeadLetter, OutboxRow
from chatbot.testing import chat
from chatbot.testing.room import Room

pytestmark = pytest.mark.virtual_time

RARE: Final = Cadence(interval=3600, idle=6 * 3600)
"""For weeks of silence: what a bot does about a thread that it is not in has times of its own."""


@dataclass
class Count:
    n: int = 0


@dataclass
class Guest:
    """A bot that counts, and says what befalls it."""

    heard: list[str] = field(default_factory=list)
    answers_failure: bool = False

    def __call__(self) -> Plugin:
        plugin = Plugin("guest")

        @plugin.command("count")
        async def count(ctx: Context, count: State[Count]) -> str:
            count.value = Count(count.value.n + 1)
            return f"count {count.value.n}"

        @plugin.command("many")
        async def many(ctx: Context) -> None:
            for number in range(8):
                await ctx.reply(f"reply {number}")

        @plugin.command("two")
        async def two(ctx: Context) -> None:
            await ctx.reply("one")
            await ctx.reply("two")

        @plugin.command("later")
        async def later(ctx: Context) -> None:
            await ctx.later(timedelta(minutes=1), ring)

        @plugin.timer
        async def ring(ctx: Context[TimerFired]) -> str:
            return "ring"

        @plugin.command("ask")
        async def ask(talk: Dialog) -> str:
            return f"hello {await talk.ask('name?')}"

        @plugin.command("tell")
        async def tell(ctx: Context, where: str) -> None:
            await ctx.reply("psst", thread=ThreadId(where))

        @plugin.on(ThreadJoined)
        async def joined(ctx: Context[ThreadJoined]) -> None:
            self.heard.append("joined")

        @plugin.on(ThreadLeft)
        async def left(ctx: Context[ThreadLeft]) -> None:
            self.heard.append("left")

        @plugin.on(ActionFailed)
        async def failed(ctx: Context[ActionFailed]) -> str | None:
            self.heard.append(f"failed {getattr(ctx.event.action, 'content', '')}")
            return "sorry" if self.answers_failure else None

        @plugin.message()
        async def echo(ctx: Context) -> str:
            return ctx.text

        return plugin


def world(**quirks: Any) -> World:
    return World(seed=0, quirks=Quirks(**quirks))


async def pending(store: MemoryStore, room: Room) -> list[OutboxRow]:
    return list(await store.pending(room.bot.user))


async def dead_letters(store: MemoryStore, room: Room) -> list[DeadLetter]:
    return list(await store.dead_letters(room.bot.user))


ONE_REFUSAL = [
    "list_messages:403,times=1",
    "list_messages:404,times=3",
    "list_messages:proxy=403,times=5",
    "list_messages:proxy=404,times=5",
    "send_message:proxy=403,times=3",
    "send_message:proxy=404,times=3",
    "send_message:404,times=1,thread=elsewhere",
    "list_messages:403,times=1;list_participants:proxy=403,times=4",
    "list_messages:403,times=1;list_participants:403,times=1",
    "*:403,end=60",
    "*:proxy=403,end=600",
    "list_messages:403,end=60;list_participants:403,end=60;list_threads:403,end=60",
]


@pytest.mark.parametrize("faults", ONE_REFUSAL)
async def test_a_refusal_that_proves_nothing_loses_nothing_and_leaves_no_thread(faults: str) -> None:
    guest = Guest()
    async with chat(guest()) as room:
        ann = room.user("Ann")
        await ann.says("/count")
        for fault in faults.split(";"):
            room.emulator.faults.add(f"{fault},user={room.bot.user}")
        await ann.says("/count", "/many", "/later")
        await room.advance(minutes=15)
        room.emulator.faults.clear()
        await room.restart()
        await ann.says("/count")

        replies = [f"reply {number}" for number in range(8)]
        assert room.replies == ["count 1", "count 2", *replies, "ring", "count 3"]
        assert guest.heard == ["joined"]


async def test_refusals_of_all_threads_degrade_the_bot_and_no_thread_is_left() -> None:
    guest = Guest()
    async with chat(guest()) as room:
        rooms = [room, room.another(), room.another()]
        for each in rooms:
            await each.user("Ann").says("/count")
        for operation in ("list_messages", "list_participants", "send_message"):
            room.emulator.faults.add(f"{operation}:403,end=900,user={room.bot.user}")
        with room.not_waiting():
            for each in rooms:
                await each.user("Ann").says("/count")
        await room.advance(minutes=20)

        assert guest.heard == ["joined"] * 3
        assert [each.replies for each in rooms] == [["count 1", "count 2"]] * 3


READINGS = [
    {},
    {"removed_reads": "forbidden"},
    {"removed_reads": "not-found", "removed_participants": "not-found", "removed_writes": "not-found"},
    {"removed_reads": "server-error"},
    {"removed_participants": "listed"},
    {"removed_participants": "listed", "removed_reads": "forbidden"},
    {"removed_participants": "server-error", "removed_writes": "server-error"},
    {"removed_participants": "not-found"},
    {"removed_writes": "server-error"},
    {"removed_writes": "not-found"},
    {"leave_initiator": "absent"},
]


@pytest.mark.parametrize("quirks", READINGS, ids=str)
async def test_a_removal_is_noticed_and_a_return_goes_on_under_every_reading(quirks: dict[str, Any]) -> None:
    guest = Guest()
    async with chat(guest(), world=world(**quirks)) as room:
        ann = room.user("Ann")
        await room.another().user("Bob").says("hi")
        await ann.says("/count", "/ask", "Ann", "/ask")
        await ann.removes(room.bot)
        assert guest.heard[-1] == "left"

        await ann.says("nobody hears this")
        await ann.adds(room.bot)
        await ann.says("Eve", "/count")

        assert room.replies == ["count 1", "name?", "hello Ann", "name?", "hello Eve", "count 2"]
        assert guest.heard == ["joined", "joined", "left", "joined"]


async def seconds_until_left(room: Room, guest: Guest) -> float:
    """How long it takes after a removal by somebody who says nothing more."""
    room.emulator.remove(room.thread, room.user("Ann").user, room.bot.user)
    begun = anyio.current_time()
    while guest.heard[-1] != "left":
        await anyio.sleep(0.25)
        assert anyio.current_time() - begun < 600
    return anyio.current_time() - begun


REAL: Final = Cadence()
"""As bots poll by default."""


@pytest.mark.parametrize("quirks", [*READINGS, {"removal_activity": "moved"}], ids=str)
async def test_a_removal_from_a_silent_thread_is_noticed_by_the_next_poll_although_the_list_says_nothing(
    quirks: dict[str, Any],
) -> None:
    guest = Guest()
    async with chat(guest(), world=world(**quirks), settings=BotSettings(cadence=REAL)) as room:
        await room.another().user("Bob").says("hi")
        await room.user("Ann").says("/count")
        await room.advance(minutes=3)
        room.emulator.calls.clear()

        seconds = await seconds_until_left(room, guest)

        # The poll, and a second sighting to be certain; a 500 is believed only when it comes again.
        certain = PROOF_SECONDS + 2 * FIRST_PAUSE
        assert seconds < (2 * REAL.interval if "removal_activity" in quirks else REAL.idle) + certain
        asked = [call for call in room.emulator.calls if call.operation == "list_participants"]
        assert len(asked) <= 4  # twice here, and as often elsewhere: is it this thread alone that refuses?


async def test_a_removal_from_an_active_thread_is_noticed_within_seconds() -> None:
    guest = Guest()
    async with chat(guest(), world=world(), settings=BotSettings(cadence=REAL)) as room:
        await room.user("Ann").says("/count")

        assert await seconds_until_left(room, guest) < 2 * REAL.interval + PROOF_SECONDS


DELETIONS = [
    {},
    {"deleted_thread": "properties", "deleted_thread_messages": "readable"},
    {"deleted_thread_participants": "forbidden", "deleted_thread_writes": "forbidden"},
    {"deleted_thread_participants": "listed", "deleted_thread_messages": "readable"},
]


@pytest.mark.parametrize(
    ("quirks", "retention"),
    [
        *((quirks, timedelta(days=1)) for quirks in DELETIONS),
        pytest.param({}, BotSettings().retention, marks=pytest.mark.chaos),
    ],
    ids=str,
)
async def test_a_deletion_is_noticed_under_every_reading(quirks: dict[str, Any], retention: timedelta) -> None:
    settings = BotSettings(cadence=RARE, retention=retention)
    guest, store = Guest(), MemoryStore()
    async with chat(guest(), world=world(**quirks), store=store, settings=settings) as room:
        ann = room.user("Ann")
        await ann.says("/count", "/later", "/ask")
        await ann.closes()
        await room.restart()
        await room.advance(settings.retention + timedelta(days=1))

        assert guest.heard == ["joined", "left"]
        assert sorted(letter.handler.rpartition(".")[2] for letter in await dead_letters(store, room)) == [
            "ask",
            "ring",
        ]
        probes = [call for call in room.emulator.calls if call.operation == "list_participants"]
        await room.advance(days=2)
        assert [call for call in room.emulator.calls if call.operation == "list_participants"] == probes


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize("reads", ["history", "forbidden"])
async def test_what_is_parked_is_said_when_the_bot_is_back_soon(is_killed: bool, reads: str) -> None:
    guest, store = Guest(), MemoryStore()
    async with chat(guest(), store=store, world=world(removed_reads=reads)) as room:
        ann = room.user("Ann")
        await ann.says("/later")
        with room.not_waiting():
            await ann.says("/many", "/count")
            await room.advance(seconds=2)
            await ann.removes(room.bot)
            await ann.says("nobody hears this")
        await room.advance(minutes=3)
        assert guest.heard == ["joined", "left"]
        if is_killed:
            await room.kill()
            await room.start()
        await room.advance(minutes=3)
        assert guest.heard == ["joined", "left"]
        await ann.adds(room.bot)
        await room.advance(minutes=1)
        await ann.says("/count")

        replies = [f"reply {number}" for number in range(8)]
        assert sorted(room.replies) == sorted([*replies, "ring", "count 1", "count 2"])
        assert [reply for reply in room.replies if reply.startswith("reply")] == replies
        assert guest.heard == ["joined", "left", "joined"]
        assert not await dead_letters(store, room)


async def test_what_is_parked_for_too_long_fails_once_and_timers_and_dialogs_wait_on() -> None:
    guest, store = Guest(answers_failure=True), MemoryStore()
    async with chat(guest(), store=store) as room:
        ann = room.user("Ann")
        await room.another().user("Bob").says("hi")
        await ann.says("/later", "/ask")
        with room.not_waiting():
            await ann.says("/many")
            await room.advance(seconds=0.5)
            await ann.removes(room.bot)
        await room.advance(minutes=9)
        assert not [one for one in guest.heard if one.startswith("failed")]
        parked = len(await pending(store, room))
        assert parked
        await room.advance(minutes=4)

        failed = [one for one in guest.heard if one.startswith("failed")]
        assert len(failed) == len(set(failed)) == parked
        assert not await pending(store, room)
        assert (
            len(await dead_letters(store, room)) == 2 * parked
        )  # what the handler said about it failed, too, and no more

        await room.kill()
        await room.start()
        await room.advance(hours=1)
        await ann.adds(room.bot)
        await ann.says("Ann")
        assert room.replies[-2:] == ["ring", "hello Ann"]
        assert len(await dead_letters(store, room)) == 2 * parked


async def test_timers_and_dialogs_become_dead_letters_when_the_bot_is_not_added_again() -> None:
    guest, store = Guest(), MemoryStore()
    settings = BotSettings(cadence=RARE, retention=timedelta(days=2))
    async with chat(guest(), store=store, settings=settings) as room:
        ann = room.user("Ann")
        await ann.says("/later", "/ask")
        await ann.removes(room.bot)
        await room.advance(days=1)
        assert len(await store.timers(room.bot.user)) == len(await store.dialogs(room.bot.user)) == 1
        await room.restart()
        await room.advance(days=2)

        assert not await store.timers(room.bot.user)
        assert not await store.dialogs(room.bot.user)
        assert sorted(letter.handler.rpartition(".")[2] for letter in await dead_letters(store, room)) == [
            "ask",
            "ring",
        ]


async def test_a_reply_to_a_thread_that_the_bot_is_not_in_fails_and_is_kept() -> None:
    guest, store = Guest(), MemoryStore()
    async with chat(guest(), store=store) as room:
        other = room.another()
        bob = other.user("Bob")
        await bob.says("hi")
        await bob.removes(room.bot)
        await room.advance(hours=1)
        await room.user("Ann").says(f"/tell {other.thread}", "/tell 19:nowhere@thread.v2", "/count")
        await room.advance(minutes=1)

        assert guest.heard.count("failed psst") == 2
        assert len(await dead_letters(store, room)) == 2
        assert room.replies == ["count 1"]
        await room.restart()
        await room.advance(hours=1)
        assert guest.heard.count("failed psst") == 2


async def test_erasing_a_user_reaches_everything_that_waits_for_the_bots_return() -> None:
    guest, store = Guest(), MemoryStore()
    async with chat(guest(), store=store) as room:
        ann = room.user("Ann")
        await ann.says("/later", "/ask")
        with room.not_waiting():
            await ann.says("/many")
            await room.advance(seconds=0.5)
            await ann.removes(room.bot)
        await room.advance(minutes=1)
        assert await pending(store, room)
        await room.stop()
        async with store:
            await store.forget(ann.user)
            assert not await store.pending(room.bot.user)
            assert not await store.timers(room.bot.user)
            assert not await store.dialogs(room.bot.user)
        await room.start()
        await ann.adds(room.bot)
        await room.advance(hours=1)

        assert "ring" not in room.replies


async def test_a_return_that_is_listed_while_a_probe_fails_is_noticed() -> None:
    async with chat(Guest()(), settings=BotSettings()) as room:
        ann, faults = room.user("Ann"), room.emulator.faults
        await ann.says("/count")
        await ann.removes(room.bot)
        await room.advance(minutes=1)
        for fault in ("latency=3", "503"):
            faults.add(f"list_participants:{fault},times=1,user={room.bot.user}")
        begun = anyio.Event()
        faults.end_listeners.append(begun.set)
        await begun.wait()
        await anyio.sleep(1)
        await ann.service.add_participants(room.thread, [Participant(room.bot.user)])
        await ann.service.send_message(room.thread, "/count")
        await anyio.sleep(30)

        assert room.replies == ["count 1", "count 2"]


async def test_probes_become_rarer_and_end_with_the_retention() -> None:
    guest = Guest()
    settings = BotSettings(cadence=RARE, retention=timedelta(days=1))
    async with chat(guest(), settings=settings) as room:
        ann = room.user("Ann")
        await ann.says("hi")
        await ann.removes(room.bot)

        def probes() -> int:
            return sum(call.operation == "list_participants" for call in room.emulator.calls)

        counts = []
        for span in (timedelta(minutes=1), timedelta(minutes=59), timedelta(hours=23), timedelta(days=3)):
            before = probes()
            await room.advance(span)
            counts.append(probes() - before)
        assert 2 <= counts[0] <= 8
        assert 2 <= counts[1] <= 12
        assert 12 <= counts[2] <= 30
        assert counts[3] <= 1


async def test_removed_from_all_threads_at_once_without_history_it_leaves_them_when_one_answers_again() -> None:
    guest = Guest()
    async with chat(guest(), world=world(removed_reads="forbidden")) as room:
        rooms = [room, room.another(), room.another()]
        for each in rooms:
            await each.user("Ann").says("/count")
        for each in rooms:
            room.emulator.remove(each.thread, each.user("Ann").user, room.bot.user)
        await anyio.sleep(1800)
        assert guest.heard == ["joined"] * 3  # the same would be seen of a token that is refused

        with room.not_waiting():
            await room.another().user("Bob").says("/count")
        await anyio.sleep(600)

        assert guest.heard == ["joined"] * 4 + ["left"] * 3
