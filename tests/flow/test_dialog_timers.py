"""What a dialog asks for besides answers: timers, replies elsewhere, who is there. Done once, whatever happens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import anyio
import pytest
import structlog

from chatbot import Context, Dialog, Event, Plugin, Retry, State, TimerFired, TimerId, UserState
from chatbot.errors import StateError
from chatbot.testing import EventStream, Room, chat
from chatbot.testing.crash_points import crash_points
from tests.flow.dialogs import plugin_of
from tests.support.kills import sample_and_all

virtual = pytest.mark.virtual_time


@dataclass
class Booking:
    timer: TimerId | None = None


def booking() -> Plugin:
    """A bot that books a table, and reminds of it."""
    plugin = Plugin("booking")

    @plugin.timer
    async def remind(ctx: Context[TimerFired], name: str) -> str:
        return f"Soon, {name}!"

    @plugin.command("book")
    async def book(talk: Dialog, booked: UserState[Booking]) -> str:
        name = await talk.ask("For whom?")
        number = await talk.run(len, name)
        booked.value = Booking(await talk.later(timedelta(minutes=5), remind, name=name))
        await talk.say(f"Table {number} is kept.")
        if await talk.confirm("Shall I remind you?"):
            return f"Booked for {len(await talk.participants())}."
        if booked.value.timer:
            await talk.cancel(booked.value.timer)
        return "As you like."

    @plugin.command("cancel-booking")
    async def cancel(ctx: Context, booked: UserState[Booking]) -> str:
        if booked.value.timer:
            await ctx.cancel(booked.value.timer)
        return "Cancelled your booking."

    return plugin


@virtual
@pytest.mark.timeout(300)
@sample_and_all
async def test_no_kill_loses_or_doubles_the_reminder_that_a_dialog_has_set(every: int) -> None:
    async def evening(room: Room) -> None:
        ann, ben = room.user("Ann"), room.user("Ben")
        await ann.says("/book", "Ann")
        await ben.says("/book", "Ben")
        await ann.says("yes")
        await ben.says("no")
        await room.advance(minutes=6)

    report = await crash_points(evening, booking, every=every)

    assert report.is_clean, report


@virtual
async def test_a_timer_of_a_dialog_survives_failed_attempts_and_fires_when_the_first_one_asked() -> None:
    failures = ["before the run", "after the run"]

    async def ring(ctx: Context[TimerFired], name: str) -> str:
        return f"ring {name}"

    async def book(talk: Dialog) -> str:
        name = await talk.ask("Name?")
        await talk.later(timedelta(minutes=1), ring, name=name)
        if len(failures) == 2:
            raise RuntimeError(failures.pop())
        await talk.run(len, name)
        if failures:
            raise RuntimeError(failures.pop())
        await talk.ask("Sure?")
        return "done"

    plugin = Plugin("booking")
    plugin.timer(ring)
    plugin.command("book", retry=Retry(5))(book)
    async with chat(plugin, raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.says("/book", "Ann")
        await room.restart()
        await room.advance(minutes=1)
        await ann.says("yes")
        await room.advance(days=1)

        assert room.replies == ["Name?", "Sure?", "ring Ann", "done"]


@virtual
async def test_a_dialog_cancels_a_timer_that_an_earlier_step_has_set() -> None:
    async with chat(booking()) as room:
        await room.user("Ann").says("/book", "Ann", "no")
        await room.advance(hours=1)

        assert room.replies[-1] == "As you like."


@virtual
async def test_another_handler_cancels_the_timer_of_a_dialog() -> None:
    async with chat(booking()) as room:
        await room.user("Ann").says("/book", "Ann", "yes", "/cancel-booking")
        await room.advance(hours=1)

        assert room.replies[-1] == "Cancelled your booking."


@virtual
async def test_a_dialog_replies_in_another_thread_once() -> None:
    keys: list[str] = []
    plugin = Plugin("desk")
    rooms: dict[str, Any] = {}

    @plugin.command("ask")
    async def ask(talk: Dialog) -> str:
        question = await talk.ask("What is it about?")
        keys.append(await talk.reply(f"Ann asks: {question}", thread=rooms["desk"].thread))
        await talk.ask("And who are you?")
        return "They know."

    async with chat(plugin) as room:
        rooms["desk"] = room.another("desk")
        await rooms["desk"].user("Dora").says("hello")
        ann = room.user("Ann")
        await ann.says("/ask", "tea")
        await room.restart()
        await ann.says("Ann")

        assert room.replies == ["What is it about?", "And who are you?", "They know."]
        assert rooms["desk"].replies == ["Ann asks: tea"]
        assert len(set(keys)) == 1


@virtual
async def test_a_dialog_knows_who_was_in_the_thread_when_it_asked() -> None:
    async def count(talk: Dialog) -> str:
        names = [one.display_name or "" for one in await talk.participants()]
        await talk.ask("Ready?")
        return ", ".join(sorted(names))

    async with chat(plugin_of(count)) as room:
        ann = room.user("Ann")
        await ann.says("/talk")
        await room.user("Ben").joins()
        await room.restart()
        await ann.says("yes")

        assert room.replies[-1] == "Ann, bot"


@virtual
async def test_a_dialog_shows_typing_and_writes_each_line_of_the_log_once() -> None:
    async def slow(talk: Dialog) -> str:
        log = talk.log.bind(step=1)
        log.info("first.step")
        async with talk.typing():
            await talk.run(len, "abc")
        await talk.ask("Go on?")
        log.info("second.step")
        async with talk.typing():
            await talk.run(len, "abc")
        return "done"

    async with chat(plugin_of(slow)) as room:
        with structlog.testing.capture_logs() as lines:
            ann = room.user("Ann")
            await ann.says("/talk")
            await ann.says("yes")

    told = [line for line in lines if line["event"].endswith(".step")]
    assert [line["event"] for line in told] == ["first.step", "second.step"]
    assert all(line["step"] == 1 and line["handler"].endswith("slow") and line["thread"] for line in told)


@virtual
async def test_typing_may_surround_a_question() -> None:
    async def ask(talk: Dialog) -> str:
        async with talk.typing():
            name = await talk.ask("Name?")
            await talk.say(f"Hi {name}.")
            return await talk.ask("Age?")

    async with chat(plugin_of(ask)) as room:
        await room.user("Ann").says("/talk", "Ann", "7")

        assert room.replies == ["Name?", "Hi Ann.", "Age?", "7"]


@virtual
async def test_a_dialog_informs_a_user_who_asks_for_a_time_that_is_too_far() -> None:
    async def remind(talk: Dialog) -> None:
        await talk.later(timedelta(days=int(await talk.ask("In how many days?"))), ring)

    plugin = plugin_of(remind)
    plugin.timer(ring)
    async with chat(plugin) as room:
        await room.user("Ann").says("/talk", "99999", "hi")

        assert len(room.replies) == 3
        assert room.replies[2] == "echo hi"


async def test_an_event_stream_fires_the_timers_of_dialogs() -> None:
    stream = EventStream()
    ann = stream.user("Ann")
    plugin = booking()
    stream += [ann.said("/book"), ann.said("Ann"), ann.said("yes")]
    await stream.into(plugin)
    stream.advance(days=1)

    assert (await stream.into(plugin)).replies == ["Soon, Ann!"]


# ── what waits for the commit, inside of what is called once ─────────────────────────────────────────────────────


@dataclass
class Count:
    value: int = 0


async def reply(ctx: Context[Any], talk: Dialog | None) -> None:
    await ctx.reply("hi")


async def set_timer(ctx: Context[Any], talk: Dialog | None) -> None:
    await ctx.later(timedelta(1), ring)


async def cancel_timer(ctx: Context[Any], talk: Dialog | None) -> None:
    await ctx.cancel(TimerId("x"))


async def acknowledge(ctx: Context[Any], talk: Dialog | None) -> None:
    await ctx.acknowledge()


async def leave(ctx: Context[Any], talk: Dialog | None) -> None:
    await ctx.leave()


async def ring(ctx: Context[TimerFired]) -> None: ...


@virtual
@pytest.mark.parametrize(
    ("act", "name"),
    [(reply, "reply"), (set_timer, "later"), (cancel_timer, "cancel"), (acknowledge, "ack"), (leave, "remove_")],
)
@pytest.mark.parametrize("way", ["once", "run"])
async def test_what_waits_for_the_commit_is_refused_inside_of_what_is_called_once(
    act: Callable[[Context[Any], Dialog | None], Awaitable[None]], name: str, way: str
) -> None:
    plugin = Plugin("lossy")
    plugin.timer(ring)

    @plugin.provide
    async def context(ctx: Context[Event]) -> Holder:
        return Holder(ctx)

    @plugin.command("once", retry=Retry(1))
    async def once(ctx: Context) -> None:
        await ctx.once("key", act, ctx, None)

    @plugin.command("run", retry=Retry(1))
    async def run(talk: Dialog, holder: Holder) -> None:
        await talk.run(act, holder.ctx, talk)

    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").says(f"/{way}")

        (failure,) = room.failures
        caller = {"once": "ctx.once", "run": "talk.run"}[way]
        assert isinstance(failure.error, StateError)
        assert f"inside {caller}(…)" in str(failure.error)
        assert f"ctx.{name}" in str(failure.error)
        assert f"talk.{name}" in str(failure.error)


@dataclass
class Holder:
    ctx: Context[Any]


@virtual
@pytest.mark.parametrize("step", ["say", "ask", "now", "later"])
async def test_steps_of_a_dialog_are_refused_inside_of_its_run(step: str) -> None:
    async def nested(talk: Dialog) -> None:
        arguments: dict[str, tuple[object, ...]] = {"now": (), "later": (timedelta(1), ring)}
        await talk.run(getattr(talk, step), *arguments.get(step, ("hi",)))

    plugin = plugin_of(nested)
    plugin.timer(ring)
    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").says("/talk")

        assert room.failures
        assert all("inside talk.run(…)" in str(failure.error) for failure in room.failures)


@virtual
async def test_state_is_not_set_inside_of_what_is_called_once() -> None:
    plugin = Plugin("lossy")

    @plugin.message(retry=Retry(1))
    async def count(ctx: Context, count: State[Count]) -> None:
        await ctx.once("key", setattr, count, "value", Count(1))

    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").says("hi")

        assert "State's value happened inside ctx.once(…)" in str(room.failures[0].error)


@virtual
async def test_another_task_may_reply_while_something_is_done_once() -> None:
    plugin = Plugin("parallel")

    @plugin.message()
    async def both(ctx: Context) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(ctx.once, "sleep", anyio.sleep, 1)
            await anyio.sleep(0.5)
            await ctx.reply("meanwhile")

    async with chat(plugin) as room:
        await room.user("Ann").says("hi")

        assert room.replies == ["meanwhile"]
