"""What an author writes in tests, as type checkers see it. Checked by mypy --strict and pyright, never run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true, reportUnusedFunction=false

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from chatbot import (
    Action,
    ActionKey,
    Context,
    Event,
    MessageId,
    MessageReceived,
    Participant,
    ParticipantsAdded,
    Plugin,
    ScheduleFired,
    SendMessage,
    State,
    ThreadId,
    TimerFired,
    UserId,
)
from chatbot.testing import (
    Author,
    DeadLetter,
    EventStream,
    Failure,
    Handled,
    MemoryStore,
    Person,
    Rate,
    Room,
    SqliteStore,
    Stuck,
    VirtualClock,
    chat,
    context,
)
from chatbot.testing.crash_points import crash_points
from tests.typing.conversations import Cart, beat, follow_up
from tests.typing.handlers import Shop, basket, buy, combined, echo, roll, welcome

one, two = Plugin("one"), Plugin("two")


async def test_a_bot() -> None:
    async with chat(one, two, name="dice", store=MemoryStore(), patience=timedelta(minutes=1)) as room:
        assert_type(room, Room)
        ann = room.user("Ann")
        assert_type(ann, Person)
        assert_type(await ann.says("hi", "/roll 2 6"), MessageId)
        await ann.edits("hello")
        await ann.adds(room.bot, room.user("Bob"))
        await room.advance(days=1, hours=0.5)
        await room.advance(timedelta(days=1))
        assert_type(room.replies, list[str])
        assert_type(room.said, list[tuple[str, str]])
        assert_type(room.read, dict[str, str])
        assert_type(room.transcript, str)
        assert_type(room.failures, list[Failure])
        assert_type(room.dead_letters, list[DeadLetter])
        assert_type(room.thread, ThreadId)
        assert_type(room.bot.user, UserId)
        with room.not_waiting():
            await room.another("tea").user("Ann").joins()


async def test_fakes() -> None:
    rate = Rate(messages=20, per=timedelta(minutes=1))
    async with chat(one, provide={Shop: Shop()}, rate=rate, store=SqliteStore("bots.db")) as room:
        await room.user("Ann").joins()
    assert_type(await EventStream().into(one, provide={Shop: Shop()}), Handled)


async def test_bots(virtual_time: VirtualClock) -> None:
    async with chat(bots={"one": [one], "two": [two]}, raise_failures=False) as room:
        assert_type(virtual_time(), float)
        await room.user("Ann").removes(room.bots["one"])


async def test_handlers_alone() -> None:
    stream = EventStream()
    ann = stream.user("Ann")
    assert_type(ann, Author)
    stream += [ann.said("hi"), ann.edited("hello"), ann.left()]
    stream += ann.deleted()
    stream.advance(days=1)
    stream.advance(timedelta(days=1))
    stream += [stream.timer_fired(follow_up, item="tea"), stream.schedule_fired(beat)]
    handled = await stream.into(one, two, should_raise=False)
    assert_type(handled, Handled)
    assert_type(handled.actions, list[Action])
    assert_type(handled.replies, list[str])
    assert_type(handled.handlers, list[str | None])
    assert handled.actions == [SendMessage("hi")]


async def test_plain_calls() -> None:
    assert_type(context("hi"), Context[MessageReceived])
    assert_type(context(EventStream().user("Ann").joined()), Context[ParticipantsAdded])
    assert_type(await roll(context("/roll 2 6"), 2, 6), str)
    assert_type(await echo(context("hi")), str)
    assert_type(await welcome(context(EventStream().user("Ann").joined())), str)
    assert_type(await buy(context("/buy tea"), Shop(), "tea"), str)
    assert_type(await basket(context(), Shop()), list[Shop])
    await combined(context("hi", one, people=[Participant(UserId("8:acs:x"))]), number=2)
    rung: Context[TimerFired] = context(EventStream().timer_fired(follow_up, item="tea"))
    assert_type(await follow_up(rung, "tea", State(Cart())), str)
    fired: Context[ScheduleFired] = context(EventStream().schedule_fired(beat))
    assert_type(fired.event, ScheduleFired)


async def test_kills() -> None:
    async def script(room: Room) -> None:
        await room.user("Ann").says("hi")

    report = await crash_points(script, one, lambda: two, faults=["", "send_message:503"])
    assert_type(report.is_clean, bool)
    assert_type((await crash_points(script, one, every=10)).runs, int)


def named(failure: Failure) -> tuple[str, Event | None, Exception]:
    return failure.bot, failure.event, failure.error


def is_hung(error: Exception) -> bool:
    return isinstance(error, Stuck)


async def test_mistakes() -> None:
    words, stream = EventStream(), EventStream()
    words += "hi"  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    stream.advance(60)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stream.user(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await stream.into("plugins.echo")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stream.timer_fired("follow_up")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stream.itself().read(ActionKey("k"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with chat("plugins.echo") as room:  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await room.user("Ann").says(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await room.advance(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        room.replies = []  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
