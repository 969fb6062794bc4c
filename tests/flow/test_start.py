"""A start looks at what has moved while the bot was away, and at the rest in its own time; nothing is missed."""

from __future__ import annotations

import collections
from urllib.parse import unquote

import anyio
import pytest

from chatbot import Context, MessageEdited, Plugin
from chatbot.bot import BotSettings
from chatbot.emulator import Quirks, World
from chatbot.model import ThreadId
from chatbot.polling.cadence import Cadence
from chatbot.stores import MemoryStore
from chatbot.testing import Room, chat

pytestmark = pytest.mark.virtual_time

THREADS = 40
BEATS = BotSettings(cadence=Cadence(interval=1, idle=30, rate=1))
"""A rate so low that a beat of all threads takes longer than they ask for."""

plugin = Plugin("echo")


@plugin.message()
async def echo(ctx: Context) -> str:
    return ctx.text


@plugin.on(MessageEdited)
async def edited(ctx: Context[MessageEdited]) -> str:
    return f"edited {ctx.text}"


async def settled_threads(room: Room) -> list[ThreadId]:
    """Many threads, each of which has been answered once, and which have been silent for five minutes."""
    ann = room.user("Ann")
    threads = [ThreadId(room.emulator.create_thread(ann.user, f"{n}", [room.bot.user])) for n in range(THREADS)]
    for thread in threads:
        room.emulator.send(thread, ann.user, "hi")
        await anyio.sleep(0.001)
    await ann.says("hi")
    await room.advance(minutes=5)
    assert all(len(room.emulator.texts(thread)) == 2 for thread in threads)
    return threads


def looks_since(room: Room, begun: float) -> collections.Counter[str]:
    calls = [call for call in room.emulator.calls if call.at >= begun * 1000 and call.operation == "list_messages"]
    return collections.Counter(unquote(call.target.split("/")[3]) for call in calls)


@pytest.fixture(params=["stopped", "killed"])
def ending(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def end(room: Room, ending: str) -> None:
    await (room.stop() if ending == "stopped" else room.kill())


async def test_only_threads_that_have_moved_are_looked_at_at_once(ending: str) -> None:
    async with chat(plugin, settings=BEATS) as room:
        threads = await settled_threads(room)
        await end(room, ending)
        await room.advance(minutes=10)
        for thread in threads[:3]:
            room.emulator.send(thread, room.user("Ann").user, "are you there?")
        begun = room.stage.clock()
        await room.start()
        await room.advance(seconds=2)

        assert all(room.emulator.texts(thread)[-1][1] == "are you there?" for thread in threads[:3])
        assert all(len(room.emulator.texts(thread)) == 4 for thread in threads[:3])
        looks = looks_since(room, begun)
        assert sum(looks[thread] for thread in threads[3:]) <= 2 * 1 + 3
        assert 429 not in {call.status for call in room.emulator.calls}


async def test_when_most_have_moved_the_others_are_not_kept_waiting_for_the_list(ending: str) -> None:
    """The second page of the list has to wait, as the last process may just have used up the quota."""
    async with chat(plugin, settings=BEATS) as room:
        threads = await settled_threads(room)
        await end(room, ending)
        await room.advance(minutes=10)
        for thread in threads:
            room.emulator.send(thread, room.user("Ann").user, "are you there?")
        begun = room.stage.clock()
        await room.start()
        await room.advance(seconds=0.5)  # the first request for the list keeps its distance from those before the start

        assert all(len(room.emulator.texts(thread)) == 4 for thread in threads)
        assert sum(call.operation == "list_threads" and call.at >= begun * 1000 for call in room.emulator.calls) == 1
        await room.advance(minutes=1)
        assert all(len(room.emulator.texts(thread)) == 4 for thread in threads), "nobody is answered twice"
        assert 429 not in {call.status for call in room.emulator.calls}


async def test_threads_polled_before_they_are_listed_are_no_more_than_a_few_when_they_have_no_news() -> None:
    async with chat(plugin, settings=BEATS) as room:
        threads = await settled_threads(room)
        await room.stop()
        await room.advance(minutes=10)
        for thread in threads[-20:]:
            room.emulator.send(thread, room.user("Ann").user, "are you there?")
        begun = room.stage.clock()
        await room.start()
        await room.advance(seconds=2)

        looks = looks_since(room, begun)
        assert all(looks[thread] <= 1 for thread in threads[:-20])


async def test_the_other_threads_are_polled_at_the_usual_rate_so_that_edits_are_found(ending: str) -> None:
    async with chat(plugin, settings=BEATS) as room:
        threads = await settled_threads(room)
        await end(room, ending)
        ann = room.user("Ann")
        first = room.emulator.transcript(threads[7])[-2]
        assert first.text == "hi"
        room.emulator.edit(threads[7], ann.user, first.id, "ho")
        begun = room.stage.clock()
        await room.start()
        await room.advance(minutes=2)

        assert room.emulator.texts(threads[7])[-1][1] == "edited ho"
        assert set(threads) <= set(looks_since(room, begun))
        assert looks_since(room, begun).total() <= 120 * 1 + 2 + 60


@pytest.mark.parametrize(
    "reading",
    [
        "stamp-behind-seconds=1",
        "stampless-seconds=5",
        pytest.param("date-behind-seconds=1", marks=pytest.mark.chaos),
        pytest.param("activity=changes", marks=pytest.mark.chaos),
        pytest.param("activity=everything", marks=pytest.mark.chaos),
        pytest.param("phantom-threads=3", marks=pytest.mark.chaos),
        pytest.param("start-time-field=created start-time=exclusive", marks=pytest.mark.chaos),
    ],
)
async def test_nothing_that_was_said_around_the_end_is_missed_under_any_reading(reading: str) -> None:
    """Ended within the second in which people talk, again and again; each time at another moment of it."""
    bell_only = BotSettings(cadence=Cadence(interval=1, idle=30, rate=0.05))
    async with chat(plugin, world=World(seed=0, quirks=Quirks.parse(reading.split())), settings=bell_only) as room:
        ann = room.user("Ann")
        threads = await settled_threads(room)
        for kill in range(4):
            for number, thread in enumerate(threads[:10]):
                room.emulator.send(thread, ann.user, f"{kill}.{number}")
                await room.advance(seconds=0.07 + kill / 100)
            await end(room, "stopped" if kill % 2 else "killed")
            for number, thread in enumerate(threads[5:15]):
                room.emulator.send(thread, ann.user, f"{kill}.{number} again")
            await room.advance(seconds=0.3 * kill)
            await room.start()
        await room.advance(seconds=30)

        for thread in threads[:15]:
            texts = room.emulator.texts(thread)
            said = [text for user, text in texts if user == ann.user]
            assert sorted(text for user, text in texts if user != ann.user) == sorted(said)


async def test_what_shows_late_after_a_restart_is_answered() -> None:
    async with chat(plugin, settings=BEATS) as room:
        threads = await settled_threads(room)
        room.emulator.world.messages.stale_ms = 20_000
        room.emulator.send(threads[3], room.user("Ann").user, "late")
        room.emulator.world.messages.stale_ms = 0
        await room.advance(seconds=8)
        await room.stop()
        await room.start()
        await room.advance(minutes=1)

        assert room.emulator.texts(threads[3])[-1] == (room.bot.user, "late")


async def test_a_bot_limited_to_some_threads_stores_no_common_horizon() -> None:
    for threads in (None, frozenset({ThreadId("19:elsewhere@thread.v2")})):
        store = MemoryStore()
        async with chat(plugin, store=store, settings=BotSettings(threads=threads)) as room:
            await room.advance(minutes=5)
            horizon = await store.horizon(room.bot.user)

        assert (horizon is None) is (threads is not None)


@pytest.mark.chaos  # sixty pages, many times
async def test_starts_in_a_row_are_together_within_the_quota_of_the_list_of_threads() -> None:
    """The list has sixty pages, of which each start reads a dozen at once; and it begins to read them to the end."""
    world = World(seed=0, quirks=Quirks(phantom_threads=150))
    async with chat(plugin, settings=BEATS, world=world) as room:
        threads = await settled_threads(room)
        room.emulator.calls.clear()
        for number in range(4):
            await room.restart()
            room.emulator.send(threads[number], room.user("Ann").user, "hello again")
            await room.advance(seconds=6)
        await room.advance(minutes=1)

        assert all(room.emulator.texts(thread)[-1] == (room.bot.user, "hello again") for thread in threads[:4])
        assert sum(call.operation == "list_threads" for call in room.emulator.calls) > 60
        assert 429 not in {call.status for call in room.emulator.calls}
