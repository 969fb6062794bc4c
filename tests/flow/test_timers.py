"""Timers and schedules: due in time, once, over restarts and times without the bot."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone

import anyio
import pytest

from chatbot import (
    BotState,
    Context,
    Dialog,
    Event,
    Plugin,
    PluginError,
    Retry,
    ScheduleFired,
    State,
    ThreadId,
    ThreadJoined,
    TimerFired,
    TimerId,
    UserState,
    regex,
)
from chatbot.bot import BotSettings
from chatbot.emulator import World
from chatbot.stores import MemoryStore
from chatbot.stores.writes import RequestRetry
from chatbot.testing import chat, context


@dataclass
class Notes:
    texts: list[str] = field(default_factory=list)
    timer: TimerId = TimerId("")  # noqa: RUF009 -- it is plain text


def reminding() -> Plugin:
    plugin = Plugin("reminding")

    @plugin.timer
    async def remind(ctx: Context[TimerFired], what: str, times: int = 1, *, notes: UserState[Notes]) -> str:
        notes.value.texts.append(what)
        return f"{what} {times} {len(notes.value.texts)}"

    @plugin.command("remind")
    async def set_reminder(ctx: Context, delay: timedelta, what: str, notes: UserState[Notes]) -> None:
        notes.value.timer = await ctx.later(delay, remind, what=what)

    @plugin.command("cancel-it")
    async def cancel(ctx: Context, notes: UserState[Notes]) -> None:
        await ctx.cancel(notes.value.timer)

    return plugin


@pytest.mark.virtual_time
async def test_a_timer_calls_its_function_when_it_is_time_with_its_arguments_and_the_state_of_who_set_it() -> None:
    async with chat(reminding()) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.says("/remind 2h tea", "/remind 1h cake")
        await bob.says("/remind 90m walk")

        await room.advance(minutes=59)
        assert room.replies == []
        await room.advance(minutes=2)
        assert room.replies == ["cake 1 1"]
        await room.advance(hours=1)
        assert room.replies == ["cake 1 1", "walk 1 1", "tea 1 2"]
        await room.advance(days=1)
        assert len(room.replies) == 3


@pytest.mark.virtual_time
async def test_timers_outlive_the_process_and_what_was_missed_is_called_once_after_it() -> None:
    async with chat(reminding()) as room:
        await room.user("Ann").says("/remind 1h soon", "/remind 3d late")
        await room.kill()
        await room.advance(days=1)
        await room.start()

        assert room.replies == ["soon 1 1"]
        await room.restart()
        await room.advance(days=3)
        assert room.replies == ["soon 1 1", "late 1 2"]


@pytest.mark.virtual_time
async def test_a_timer_is_cancelled_by_what_later_returned() -> None:
    async with chat(reminding()) as room:
        await room.user("Ann").says("/remind 1h tea", "/cancel-it")
        await room.advance(days=1)

        assert room.replies == []


@pytest.mark.virtual_time
async def test_a_failing_timer_is_retried_then_dead_lettered_and_the_thread_continues() -> None:
    plugin = Plugin("failing")
    tries: list[datetime] = []

    @plugin.timer(retry=Retry(attempts=2))
    async def fail(ctx: Context[TimerFired]) -> None:
        tries.append(ctx.event.due)
        raise RuntimeError("no")

    @plugin.message()
    async def start(ctx: Context) -> str:
        await ctx.later(timedelta(minutes=1), fail)
        return "set"

    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").says("a")
        await room.advance(hours=1)
        await room.restart()
        await room.advance(hours=1)
        await room.user("Ann").says("b")

        assert room.replies == ["set", "set"]
        assert len(tries) == 2
        assert tries[0] == tries[1]


@pytest.mark.virtual_time
async def test_a_failing_timer_is_given_up_although_other_events_succeed_between_its_attempts() -> None:
    plugin, tries = Plugin("failing"), list[datetime]()
    pause = timedelta(seconds=30)

    @plugin.timer(retry=Retry(attempts=3, first=pause, longest=pause))
    async def fail(ctx: Context[TimerFired]) -> None:
        tries.append(ctx.event.due)
        raise RuntimeError("no")

    @plugin.command("set")
    async def start(ctx: Context) -> None:
        await ctx.later(timedelta(seconds=5), fail)

    @plugin.message()
    async def answer(ctx: Context) -> str:
        return ctx.text

    store = MemoryStore()
    async with chat(plugin, store=store, settings=BotSettings(), raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.says("/set")
        for number in range(24):
            room.emulator.send(room.thread, ann.user, f"{number}")
            await anyio.sleep(5)

        assert room.replies == [f"{number}" for number in range(24)]
        assert len(tries) == 3
        assert len(await store.dead_letters(room.bot.user)) == 1


@pytest.mark.virtual_time
async def test_a_handler_that_fails_after_setting_a_timer_sets_none() -> None:
    plugin = Plugin("failing")

    @plugin.timer
    async def ring(ctx: Context[TimerFired]) -> str:
        return "ring"

    @plugin.message(retry=Retry(attempts=1))
    async def start(ctx: Context) -> None:
        await ctx.later(timedelta(minutes=1), ring)
        raise RuntimeError("no")

    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").says("a")
        await room.advance(hours=1)

        assert room.replies == []


@pytest.mark.virtual_time
async def test_a_timer_whose_function_is_gone_is_dead_lettered_and_logged() -> None:
    store, world = MemoryStore(), World(seed=0)
    async with chat(reminding(), store=store, world=world) as room:
        await room.user("Ann").says("/remind 1h tea")
    async with chat(Plugin("other"), store=store, world=world, raise_failures=False) as room:
        await room.advance(days=1)
        bot = next(iter(room.bots.values()))

        (letter,) = await store.dead_letters(bot.user)
        assert "is no longer a timer or schedule of this bot: restore the function" in letter.error
        assert isinstance(letter.event, TimerFired)


@pytest.mark.virtual_time
async def test_a_moment_in_the_past_is_due_at_once_and_one_without_a_zone_is_refused() -> None:
    plugin = Plugin("moments")

    @plugin.timer
    async def ring(ctx: Context[TimerFired]) -> str:
        return f"due {ctx.event.due:%Y}"

    @plugin.message()
    async def start(ctx: Context) -> str:
        with pytest.raises(ValueError, match="without a time zone; give it one"):
            await ctx.later(datetime(2030, 1, 1), ring)
        with pytest.raises(TypeError, match="timer ring takes nothing, but is to be called with what"):
            await ctx.later(timedelta(1), ring, what="tea")
        await ctx.later(datetime(2020, 1, 1, tzinfo=UTC), ring)
        return "set"

    async with chat(plugin) as room:
        await room.user("Ann").says("a")

        assert room.replies == ["set", "due 2020"]


# ── schedules ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Threads:
    ids: list[ThreadId] = field(default_factory=list)
    calls: int = 0


def scheduled() -> Plugin:
    plugin = Plugin("scheduled")

    @plugin.on(ThreadJoined)
    async def join(ctx: Context[ThreadJoined], threads: BotState[Threads]) -> None:
        threads.value.ids.append(ctx.thread)

    @plugin.every(timedelta(hours=6))
    async def beat(ctx: Context[ScheduleFired], threads: BotState[Threads]) -> None:
        for thread in threads.value.ids:
            await ctx.reply(f"beat {ctx.event.due:%d. %H:%M}", thread=thread)

    @plugin.cron("0 9 * * 1-5", tz="Europe/Paris")
    async def morning(ctx: Context[ScheduleFired], threads: BotState[Threads]) -> None:
        for thread in threads.value.ids:
            await ctx.reply(f"morning {ctx.event.due:%d. %H:%M}", thread=thread)

    return plugin


SCHEDULED = scheduled()  # here, as time zones are read from files, which a running loop shall not wait for


@pytest.mark.virtual_time
async def test_schedules_run_at_their_interval_and_at_clock_times() -> None:
    async with chat(SCHEDULED) as room:  # from Monday, 1 January 2024, 00:00 UTC
        await room.user("Ann").joins()
        await room.advance(hours=13)

        assert room.replies == ["beat 01. 06:00", "morning 01. 08:00", "beat 01. 12:00"]


@pytest.mark.virtual_time
async def test_schedules_missed_during_downtime_run_once_and_keep_their_interval() -> None:
    async with chat(SCHEDULED) as room:
        await room.user("Ann").joins()
        await room.kill()
        await room.advance(days=2, hours=1)
        await room.start()

        assert room.replies == ["beat 01. 06:00", "morning 01. 08:00"]
        await room.restart()
        await room.advance(hours=6)
        assert room.replies[2:] == ["beat 03. 06:00"]


@pytest.mark.virtual_time
async def test_a_failing_schedule_is_tried_again_and_does_not_hold_up_its_next_time() -> None:
    plugin = Plugin("failing")
    calls: list[datetime] = []

    @plugin.every(timedelta(hours=1), retry=Retry(attempts=2))
    async def fail(ctx: Context[ScheduleFired], threads: BotState[Threads]) -> None:
        threads.value.calls += 1
        calls.append(ctx.event.due)
        if len(calls) <= 2:
            raise RuntimeError("no")

    @plugin.message()
    async def tell(ctx: Context, threads: BotState[Threads]) -> str:
        return str(threads.value.calls)

    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").joins()
        await room.advance(hours=2)
        await room.user("Ann").says("?")

        assert calls[0] == calls[1] == calls[2] - timedelta(hours=1)
        assert room.replies == ["1"]


# ── mistakes ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_wrong_uses_of_timers_are_refused_at_their_line() -> None:
    plugin = Plugin("wrong")
    with pytest.raises(PluginError, match=r"test_timers\.py:\d+: 'hourly' is not a cron expression"):
        plugin.cron("hourly")
    with pytest.raises(PluginError, match=r"test_timers\.py:\d+: every\(0:00:00\) is more often"):
        plugin.every(timedelta(0))
    with pytest.raises(PluginError, match=r"test_timers\.py:\d+: on\(TimerFired\) gets nothing: .* @plugin\.timer"):
        plugin.on(TimerFired)
    with pytest.raises(PluginError, match=r"test_timers\.py:\d+: timeout=5 is not a time"):
        plugin.every(timedelta(hours=1), timeout=5)  # type: ignore[arg-type]

    @plugin.timer
    async def untyped(ctx: Context[TimerFired], what) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(
        PluginError,
        match=r"parameter 'what' of untyped has no type; annotate it with the type",
    ):
        plugin.handlers()


def test_what_a_timer_takes_must_be_storable() -> None:
    plugin = Plugin("wrong")

    @plugin.timer
    async def ring(ctx: Context[TimerFired], what: memoryview) -> None: ...

    with pytest.raises(PluginError, match=r"test_timers\.py:\d+: parameter 'what' of ring is memoryview, which cannot"):
        plugin.handlers()


def test_a_schedule_has_no_thread_and_so_no_state_of_one() -> None:
    plugin = Plugin("wrong")

    @plugin.every(timedelta(hours=1))
    async def beat(ctx: Context[ScheduleFired], notes: State[Notes]) -> None: ...

    with pytest.raises(PluginError, match=r"ScheduleFired happens in no thread; use BotState"):
        plugin.handlers()


def test_two_timers_of_one_name_are_refused() -> None:
    def made() -> Plugin:
        plugin = Plugin("twice")

        @plugin.timer
        async def ring(ctx: Context[TimerFired]) -> None: ...

        return plugin

    with pytest.raises(PluginError, match=r"timer .*ring names two functions, the other at .*test_timers\.py"):
        context("a", made(), made())


@pytest.mark.virtual_time
async def test_a_dead_letter_of_a_schedule_can_be_retried() -> None:
    plugin = Plugin("failing")
    calls: list[str] = []

    @plugin.cron("0 9 * * *", retry=Retry(attempts=1))
    async def fail(ctx: Context[ScheduleFired]) -> None:
        calls.append(ctx.event.key)
        if len(calls) == 1:
            raise RuntimeError("no")

    store = MemoryStore()
    async with chat(plugin, store=store, raise_failures=False) as room:
        await room.user("Ann").joins()
        await room.advance(hours=10)
        (letter,) = await store.dead_letters(room.bot.user)
        await store.commit(room.bot.user, [RequestRetry(letter.id)])
        await room.restart()

        assert calls[0] == calls[1]
        assert await store.dead_letters(room.bot.user) == []


# ── once ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.virtual_time
async def test_what_is_done_once_is_not_done_again_by_a_retry_but_by_the_next_event() -> None:
    plugin = Plugin("paying")
    charged: list[int] = []
    tries: list[str] = []

    async def charge(amount: int) -> Notes:
        charged.append(amount)
        return Notes([f"bill {len(charged)}"])

    @plugin.message()
    async def pay(ctx: Context) -> str:
        bill = await ctx.once("charge", charge, 5)
        coin = await ctx.once("coin", lambda: 7)
        tries.append(ctx.text)
        if len(tries) == 1:
            raise RuntimeError("after the charge")
        return f"{bill.texts[0]} {coin}"

    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").says("a")
        await room.restart()
        await room.user("Ann").says("b")

        assert room.replies == ["bill 1 7", "bill 2 7"]
        assert charged == [5, 5]


@pytest.mark.virtual_time
async def test_an_error_handler_may_set_a_timer_and_do_something_once() -> None:
    plugin = Plugin("failing")

    @plugin.timer
    async def ring(ctx: Context[TimerFired], what: str) -> str:
        return f"ring {what}"

    @plugin.message(retry=Retry(attempts=1))
    async def fail(ctx: Context) -> None:
        raise RuntimeError("no")

    @plugin.error(RuntimeError)
    async def sorry(ctx: Context[Event], error: RuntimeError) -> None:
        await ctx.later(timedelta(minutes=1), ring, what=await ctx.once("word", str, error))

    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").says("a")
        await room.advance(minutes=2)

        assert room.replies == ["ring no"]


def patient() -> Plugin:
    plugin = Plugin("patient")

    @plugin.timer
    async def ring(ctx: Context[TimerFired]) -> str:
        return "ring"

    @plugin.message(regex("^in (?P<days>-?\\d+)$"))
    async def later(ctx: Context, days: int) -> str:
        await ctx.reply("noted")
        await ctx.later(timedelta(days=days), ring)
        return "set"

    @plugin.message(regex("^year (?P<year>\\d+)$"))
    async def at(ctx: Context, year: int) -> str:
        await ctx.later(datetime(year, 1, 1, tzinfo=timezone(timedelta(hours=14))), ring)
        return "set"

    @plugin.command("wait")
    async def wait(talk: Dialog) -> str:
        return await talk.ask("well?", timeout=timedelta.max)

    return plugin


@pytest.mark.virtual_time
@pytest.mark.parametrize("words", ["in 36501", "in 2900000", "in 3000000", "in 999999999", "year 9999"])
async def test_a_time_out_of_range_is_explained_to_the_user_and_nothing_else_is_done(words: str) -> None:
    async with chat(patient()) as room:
        await room.user("Ann").says(words)

        assert room.replies == ["Sorry, that is too far in the future. I can remember a time up to 100 years from now."]
        assert not room.failures


@pytest.mark.virtual_time
@pytest.mark.parametrize("words", ["in -999999999", "year 1", "in -1"])
async def test_a_time_before_all_times_is_due_at_once(words: str) -> None:
    async with chat(patient()) as room:
        await room.user("Ann").says(words)
        await room.advance(seconds=1)

        assert room.replies[-2:] == ["set", "ring"]


@pytest.mark.virtual_time
async def test_a_dialog_that_waits_longer_than_time_is_counted_waits_for_ever() -> None:
    async with chat(patient()) as room:
        await room.user("Ann").says("/wait")
        await room.advance(hours=1)
        await room.user("Ann").says("yes")

        assert room.replies == ["well?", "yes"]
