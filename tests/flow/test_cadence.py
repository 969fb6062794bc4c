"""When the list of threads and the threads themselves are polled, by default settings, and within the quotas."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from datetime import timedelta
from urllib.parse import parse_qs, unquote, urlsplit

import anyio
import pytest
import structlog

from chatbot import Context, MessageEdited, Plugin, Retry, TimerFired
from chatbot.bot import BotSettings, discovery
from chatbot.bot.status import report
from chatbot.emulator import Call, Faults, Quirks, World
from chatbot.emulator.cursors import parse_thread_cursor
from chatbot.model import ThreadId
from chatbot.polling.cadence import Cadence
from chatbot.testing import Room, chat

pytestmark = pytest.mark.virtual_time

DEFAULT = BotSettings()
ON_DEMAND = BotSettings(cadence=Cadence(idle=3600, rate=0.001))
"""Practically no periodic polls: every poll is one that the list of threads called for."""

plugin = Plugin("echo")


@plugin.message()
async def echo(ctx: Context) -> str:
    return ctx.text


@plugin.on(MessageEdited)
async def edited(ctx: Context[MessageEdited]) -> str:
    return f"edited {ctx.text}"


def listener() -> Plugin:
    """A bot that says nothing: whatever moves the stamp is somebody else's."""
    silent = Plugin("listener")

    @silent.message()
    async def listen(ctx: Context) -> None:
        pass

    return silent


def calls_of(room: Room, operation: str, since: float = 0.0) -> list[Call]:
    return [call for call in room.emulator.calls if call.operation == operation and call.at >= since * 1000]


def polls_of(room: Room, thread: ThreadId, since: float = 0.0) -> list[int]:
    """Return when a thread was polled, epoch ms."""
    calls = calls_of(room, "list_messages", since)
    return [call.at for call in calls if unquote(call.target.split("/")[3]) == thread]


def page_sizes(calls: Sequence[Call]) -> list[int]:
    return [int(parse_qs(urlsplit(call.target).query)["maxPageSize"][0]) for call in calls]


def refused(room: Room) -> list[Call]:
    users = {guest.user for guest in room.bots.values()}
    return [call for call in room.emulator.calls if call.status == 429 and call.user in users]


def windows(calls: Sequence[Call], seconds: float) -> Iterator[int]:
    """Yield how many of these calls were made in each window of so many seconds that begins with one of them."""
    times = [call.at for call in calls]
    for number, at in enumerate(times):
        yield sum(at <= other < at + seconds * 1000 for other in times[number:])


def new_threads(room: Room, count: int) -> list[ThreadId]:
    ann = room.user("Ann")
    return [ThreadId(room.emulator.create_thread(ann.user, f"{n}", [room.bot.user])) for n in range(count)]


async def test_silence_costs_small_pages_of_the_list_at_its_pace_and_slow_polls_only() -> None:
    async with chat(plugin, settings=DEFAULT) as room:
        new_threads(room, 30)
        await room.user("Ann").says("hi")
        await room.advance(minutes=2)
        begun = room.stage.clock()
        await room.advance(seconds=30)

        lists, polls = calls_of(room, "list_threads", begun), calls_of(room, "list_messages", begun)
        assert 95 <= len(lists) <= 99
        assert max(windows(lists, 10)) <= 33
        assert set(page_sizes(lists)) == {20}
        assert len(polls) <= 31 + 2
        assert not refused(room)


async def test_an_explicit_interval_of_a_second_is_a_second() -> None:
    async with chat(plugin, settings=BotSettings(cadence=Cadence(interval=1))) as room:
        await room.user("Ann").says("hi")
        await room.advance(minutes=5)
        begun = room.stage.clock()
        await room.advance(minutes=1)

        assert 59 <= len(calls_of(room, "list_threads", begun)) <= 61


FRACTIONS = (0.0, 0.2, 0.5, 0.999)
"""Parts of a second at which people speak: timestamps are floored to seconds."""


async def said_and_covered(room: Room, fraction: float) -> tuple[int, int]:
    """Speak once, and return when, and when the one poll began that follows the first; both in epoch ms."""
    await room.advance(seconds=60 - room.stage.clock() % 60 + fraction)
    said = room.emulator.send(room.thread, room.user("Ann").user, f"{fraction}")
    await room.advance(seconds=30)

    first, *others = polls_of(room, room.thread, said / 1000)
    assert first - said <= 310
    assert len(others) == 1
    return said, others[0]


async def test_a_stamp_is_answered_by_one_poll_at_once_and_one_that_covers_it() -> None:
    async with chat(listener(), settings=ON_DEMAND) as room:
        await room.user("Ann").says("hi")
        await room.advance(minutes=1)
        for fraction in FRACTIONS:
            said, cover = await said_and_covered(room, fraction)

            assert cover >= said // 1000 * 1000 + 2000


async def test_the_reply_of_the_bot_calls_for_no_poll_but_the_covering_one() -> None:
    slow = Plugin("slow")

    @slow.message()
    async def answer(ctx: Context) -> str:
        await anyio.sleep(0.7)  # the reply is often of a later second than the word
        return ctx.text

    async with chat(slow, settings=ON_DEMAND) as room:
        await room.user("Ann").says("hi")
        for fraction in FRACTIONS:
            said, cover = await said_and_covered(room, fraction)

            assert cover >= (said + 700) // 1000 * 1000 + 2000
            assert room.replies[-1] == f"{fraction}"


async def test_a_word_of_the_second_of_the_reply_is_noticed_early() -> None:
    """The list shows no more than the second of the reply, which is known: the fast polls of the thread find it."""
    async with chat(plugin, settings=DEFAULT) as room:
        ann = room.user("Ann")
        await ann.says("hi")
        for begin in (0.0, 0.1, 0.4):
            await room.advance(seconds=60 - room.stage.clock() % 60 + begin)
            before = len(room.replies)
            room.emulator.send(room.thread, ann.user, "word")
            while len(room.replies) == before:
                await room.advance(seconds=0.05)
            room.emulator.send(room.thread, ann.user, "another")
            await room.advance(seconds=0.45)

            assert room.replies[before:] == ["word", "another"]


async def test_a_word_that_comes_while_the_bot_sends_what_was_said_elsewhere_is_noticed_early() -> None:
    """The stamp is of the second in which the bot's message comes as well, so the list shows nothing new after it."""
    courier, targets = Plugin("courier"), list[ThreadId]()

    @courier.message()
    async def carry(ctx: Context) -> None:
        await ctx.reply(f"heard {ctx.text}", thread=targets[0])

    async with chat(courier, settings=ON_DEMAND) as room:
        (there,) = targets[:] = new_threads(room, 1)
        ann = room.user("Ann")
        await ann.says("hi")
        await room.advance(minutes=3)
        await room.advance(seconds=60 - room.stage.clock() % 60)
        room.emulator.faults.add(f"send_message:latency=0.65,user={room.bot.user},thread={there},times=1")
        room.emulator.send(room.thread, ann.user, "news")
        await anyio.sleep(0.1)  # not `advance`, which waits until all threads are polled
        room.emulator.send(there, ann.user, "word")
        await anyio.sleep(5)

        texts = [text for user, text in room.emulator.texts(there) if user == room.bot.user]
        assert texts == ["heard hi", "heard news", "heard word"]


async def test_a_word_that_comes_while_a_timer_fails_is_noticed_early() -> None:
    clock, begun = Plugin("clock"), anyio.Event()
    retry = Retry(attempts=2, first=timedelta(minutes=2), longest=timedelta(minutes=2))

    @clock.timer(retry=retry)
    async def ring(ctx: Context[TimerFired]) -> None:
        begun.set()
        await anyio.sleep(1)
        raise ValueError

    @clock.message()
    async def wind(ctx: Context) -> str:
        if ctx.text == "wind":
            await ctx.later(timedelta(minutes=3), ring)
        return f"heard {ctx.text}"

    async with chat(clock, settings=ON_DEMAND, raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.says("wind")
        await begun.wait()
        room.emulator.send(room.thread, ann.user, "word")
        await anyio.sleep(5)

        assert room.replies == ["heard wind", "heard word"]


async def test_all_messages_of_the_same_second_are_noticed_early() -> None:
    """The list shows the second only once: the fast polls of the thread find the rest."""
    async with chat(plugin, settings=DEFAULT) as room:
        ann = room.user("Ann")
        await ann.says("hi")
        for begin in (0.0, 0.1, 0.4):
            await room.advance(seconds=60 - room.stage.clock() % 60 + begin)
            for number in range(3):
                said = room.emulator.send(room.thread, ann.user, f"{begin} {number}")
                await room.advance(seconds=0.2)
                assert room.stage.clock() // 60 == said // 60_000
            await room.advance(seconds=0.45)

            assert [text for user, text in room.emulator.texts(room.thread)[-6:] if user != ann.user] == [
                f"{begin} {number}" for number in range(3)
            ]


@pytest.mark.parametrize("reading", ["stamp-behind-seconds=1", "date-behind-seconds=1", "activity=changes"])
async def test_what_shows_late_is_found_by_the_poll_that_covers_its_stamp(reading: str) -> None:
    """The stamp is there at once, the message only a second or two later."""
    world = World(seed=0, quirks=Quirks.parse([reading]))
    async with chat(plugin, settings=ON_DEMAND, world=world) as room:
        ann = room.user("Ann")
        await ann.says("hi")
        await room.advance(minutes=1)
        room.emulator.world.messages.stale_ms = 1500
        room.emulator.send(room.thread, ann.user, "late")
        room.emulator.world.messages.stale_ms = 0
        await room.advance(seconds=6)

        assert room.emulator.texts(room.thread)[-1] == (room.bot.user, "late")


@pytest.mark.chaos  # more than a hundred threads
async def test_many_threads_that_move_at_once_are_read_in_large_pages() -> None:
    async with chat(plugin, settings=DEFAULT) as room:
        threads = new_threads(room, 130)
        await room.user("Ann").says("hi")
        await room.advance(minutes=1)
        begun = room.stage.clock()
        for thread in threads:
            room.emulator.send(thread, room.user("Ann").user, "all together now")
        await room.advance(seconds=2)

        assert all(room.emulator.texts(thread)[-1] == (room.bot.user, "all together now") for thread in threads)
        sizes = page_sizes(calls_of(room, "list_threads", begun))
        assert sizes[0] == 20
        assert sizes.count(100) >= 2
        await room.advance(seconds=8)
        assert set(page_sizes(calls_of(room, "list_threads")[-10:])) == {20}
        assert not refused(room)


@pytest.mark.chaos  # fifty threads for six minutes
async def test_people_who_talk_do_not_delay_what_is_found_in_silent_threads() -> None:
    """An edit does not move the stamp: the slow poll finds it, however fast other threads are polled."""
    async with chat(plugin, settings=BotSettings(cadence=Cadence(rate=2))) as room:
        ann = room.user("Ann")
        talking, silent = new_threads(room, 20), new_threads(room, 30)
        for thread in silent:
            room.emulator.send(thread, ann.user, "hi")
        await room.user("Ann").says("hi")
        await room.advance(minutes=5)
        for thread in silent:
            room.emulator.edit(thread, ann.user, room.emulator.transcript(thread)[-2].id, "ho")
        for _ in range(13):
            for thread in talking:
                room.emulator.send(thread, ann.user, "talk")
            await room.advance(seconds=5)

        assert [room.emulator.texts(thread)[-1][1] for thread in silent] == ["edited ho"] * len(silent)


@pytest.mark.parametrize(
    ("latency", "phantoms", "kills"),
    [
        pytest.param("", 0, 15, id="few threads"),
        pytest.param("", 150, 60, id="a list of many pages", marks=pytest.mark.chaos),
        pytest.param("*:latency=0.06..0.36", 0, 60, id="a slow service", marks=pytest.mark.chaos),
        pytest.param("*:latency=0.06..0.36", 150, 60, id="many pages of a slow service", marks=pytest.mark.chaos),
    ],
)
async def test_kills_and_immediate_starts_in_a_loop_are_never_refused(latency: str, phantoms: int, kills: int) -> None:
    """From the very first start on; while people talk in one thread, and in others for a while."""
    dice = random.Random(f"{latency}{phantoms}")
    world = World(seed=0, quirks=Quirks(phantom_threads=phantoms))
    async with chat(plugin, settings=DEFAULT, world=world) as room:
        room.emulator.faults = Faults([latency] if latency else [])
        ann, threads = room.user("Ann"), new_threads(room, 100 if phantoms else 55)
        for number in range(kills):
            for thread in threads[number % 40 : number % 40 + 2]:
                room.emulator.send(thread, ann.user, f"{number}")
            if number % 6 == 0:
                room.emulator.send(threads[50], ann.user, f"{number}")
            await room.advance(seconds=dice.choice([0.05, 0.4, 1.0, 3.0]) * dice.uniform(0.5, 1.5))
            await room.kill()
            await room.start()
        await room.advance(minutes=4 if phantoms else 0.5)

        assert not [(call.operation, call.at) for call in refused(room)]
        for thread in threads[:51]:
            texts = room.emulator.texts(thread)
            said = [text for user, text in texts if user == ann.user]
            assert sorted(text for user, text in texts if user != ann.user) == sorted(said)


@pytest.mark.chaos  # eight bots, for more than the longest window
async def test_bots_of_a_process_use_half_of_what_a_thread_allows_all_people() -> None:
    bots = {f"bot{number}": [listener() if number else plugin] for number in range(8)}
    async with chat(bots=bots, settings=DEFAULT) as room:
        ann = room.user("Ann")
        await ann.says("hi")
        latest: list[float] = []
        for number in range(16):
            said = room.emulator.send(room.thread, ann.user, f"{number}")
            await anyio.sleep(5)
            replies = [message for message in room.emulator.transcript(room.thread) if message.id > said]
            assert replies
            latest.append(replies[0].id - said)

        users = {guest.user for guest in room.bots.values()}
        polls = [call for call in calls_of(room, "list_messages") if call.user in users]
        assert max(windows(polls, 60)) <= 200
        assert sorted(latest)[len(latest) // 2] < 150
        assert not refused(room)


async def test_what_one_bot_sees_wakes_the_others_of_its_process() -> None:
    heard: list[tuple[str, float]] = []

    def noting(name: str) -> Plugin:
        noting_plugin = Plugin("noting")

        @noting_plugin.message()
        async def note(ctx: Context) -> None:
            heard.append((name, anyio.current_time()))

        return noting_plugin

    names = [f"bot{number}" for number in range(4)]
    async with chat(bots={name: [noting(name)] for name in names}, settings=DEFAULT) as room:
        ann = room.user("Ann")
        await ann.says("hi")
        for number in range(3):
            await room.advance(seconds=12 + number / 10)
            heard.clear()
            room.emulator.send(room.thread, ann.user, "who hears me first?")
            await room.advance(seconds=0.4)

            assert sorted(name for name, _ in heard) == names
            assert max(at for _, at in heard) - min(at for _, at in heard) < 0.02


@pytest.mark.chaos  # thousands of threads
async def test_the_first_start_answers_the_latest_thousand_threads_early_and_says_how_far_it_has_read() -> None:
    async with chat(plugin, settings=DEFAULT) as room:
        await room.kill()
        ann = room.user("Ann")
        old, latest = new_threads(room, 300), new_threads(room, 1000)
        for thread in (*old, *latest):
            room.emulator.send(thread, ann.user, "hello")
            await anyio.sleep(0.001)  # links to pages name the milliseconds of their threads
        with structlog.testing.capture_logs() as logged:
            await room.start()
            await anyio.sleep(10)
            (bot,) = room.process.bots

            assert all(room.emulator.texts(thread)[-1] == (room.bot.user, "hello") for thread in latest)
            assert report(bot, anyio.current_time()).listed >= 1000
            await anyio.sleep(15)

            assert all(room.emulator.texts(thread)[-1] == (room.bot.user, "hello") for thread in old)
            assert report(bot, anyio.current_time()).is_listed
        events = [line["event"] for line in logged]
        assert events.index("thread_list.partly_read") < events.index("thread_list.read")
        assert not refused(room)


async def test_a_read_of_the_whole_list_does_not_delay_what_its_top_shows() -> None:
    world = World(seed=0, quirks=Quirks(phantom_threads=95))
    async with chat(plugin, settings=ON_DEMAND, world=world) as room:
        await room.kill()
        for _ in range(60):  # with what is hidden between them, a list of about 60 pages
            new_threads(room, 1)
            await anyio.sleep(0.2)  # links to pages name the milliseconds of their threads
        room.emulator.faults = Faults(["*:latency=0.3"])
        await room.start()
        await room.advance(seconds=15)
        begun = room.stage.clock()
        await room.advance(seconds=15)

        calls = calls_of(room, "list_threads", begun)
        tops = [call.at for call in calls if call.target.startswith("/chat/threads?maxPageSize=")]
        assert len(calls) - len(tops) >= 5, "the whole list is being read"
        assert max(after - before for before, after in itertools.pairwise(tops)) < 1500
        assert not refused(room)


async def test_reads_of_the_whole_list_never_overlap_though_they_take_longer_than_their_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(discovery, "FULL_WALK_SECONDS", 2.0)
    world = World(seed=0, quirks=Quirks(phantom_threads=95))
    async with chat(plugin, settings=ON_DEMAND, world=world) as room:
        await room.kill()
        for _ in range(12):  # with what is hidden between them, a list of about 12 pages
            new_threads(room, 1)
            await anyio.sleep(0.2)  # links to pages name the milliseconds of their threads
        await room.start()
        await room.advance(seconds=5)
        begun = room.stage.clock()
        await room.advance(seconds=40)

        calls = calls_of(room, "list_threads", begun)
        states = [parse_qs(urlsplit(call.target).query).get("syncState") for call in calls]
        places = [parse_thread_cursor(state[0])[0] for state in states if state is not None]
        ends = [before for before, after in itertools.pairwise(places) if after >= before]
        assert len(ends) >= 3, "read again and again"
        assert set(ends) == {min(places)}, "a read begins when the one before has reached the end"
        assert not refused(room)
