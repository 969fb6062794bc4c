"""State: remembered with the event that changed it, over restarts, and never half."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import anyio
import pytest

from chatbot import (
    PASS,
    BotStarted,
    BotState,
    Context,
    Dialog,
    Pass,
    Plugin,
    ProfileState,
    Retry,
    State,
    TimerFired,
    UserState,
)
from chatbot.bot import BotSettings
from chatbot.errors import PluginError
from chatbot.polling.cadence import Cadence
from chatbot.stores.serialization import MAX_RECORD_BYTES
from chatbot.testing import EventStream, chat


@dataclass
class Tally:
    count: int = 0
    names: list[str] = field(default_factory=list)


def counting() -> Plugin:
    plugin = Plugin("counting")

    @plugin.command("thread")
    async def in_thread(ctx: Context, tally: State[Tally]) -> str:
        tally.value.count += 1
        return f"thread {tally.value.count}"

    @plugin.command("user")
    async def of_user(ctx: Context, tally: UserState[Tally]) -> str:
        tally.value = Tally(tally.value.count + 1)
        return f"user {tally.value.count}"

    @plugin.command("profile")
    async def of_profile(ctx: Context, tally: ProfileState[Tally]) -> str:
        tally.value.count += 1
        return f"profile {tally.value.count}"

    @plugin.command("bot")
    async def of_bot(ctx: Context, tally: BotState[Tally]) -> str:
        tally.value.count += 1
        return f"bot {tally.value.count}"

    return plugin


@pytest.mark.virtual_time
async def test_each_kind_of_state_has_its_documented_scope() -> None:
    async with chat(counting()) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.says("/thread", "/user", "/profile", "/bot")
        await bob.says("/thread", "/user", "/profile", "/bot")
        elsewhere = room.another()
        await elsewhere.user("Ann").says("/thread", "/user", "/profile", "/bot")

        assert room.replies[4:] == ["thread 2", "user 1", "profile 1", "bot 2"]
        assert elsewhere.replies == ["thread 1", "user 1", "profile 2", "bot 3"]


@pytest.mark.virtual_time
async def test_state_outlives_the_process() -> None:
    async with chat(counting()) as room:
        ann = room.user("Ann")
        await ann.says("/thread", "/bot")
        await room.restart()
        await ann.says("/thread", "/bot")

        assert room.replies == ["thread 1", "bot 1", "thread 2", "bot 2"]


@pytest.mark.virtual_time
async def test_a_handler_that_fails_changes_nothing() -> None:
    plugin = Plugin("failing")

    @plugin.message(retry=Retry(attempts=2))
    async def fail(ctx: Context, tally: State[Tally]) -> str:
        tally.value.count += 1
        if ctx.text == "fail":
            raise RuntimeError(ctx.text)
        return str(tally.value.count)

    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").says("a", "fail", "b")

        assert room.replies == ["1", "2"]
        assert len(room.failures) == 2


@pytest.mark.virtual_time
async def test_a_value_that_cannot_be_stored_dead_letters_the_event_at_once_and_names_the_field() -> None:
    plugin = Plugin("odd")

    @plugin.message()
    async def spoil(ctx: Context, tally: State[Tally]) -> str:
        tally.value.names.append(ctx.event)  # type: ignore[arg-type]
        return "said only if it was remembered"

    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").says("a")

        assert room.replies == []
        (failure,) = room.failures
        place, _, said = str(failure.error).partition(": ")
        assert place.startswith("tests/flow/test_state.py:")
        assert said.endswith(
            "spoil left what cannot be stored: Tally.names[0] is of type MessageReceived; expected text"
        )


@pytest.mark.virtual_time
async def test_a_state_beyond_what_a_record_holds_is_refused_with_its_size_and_the_old_one_stays() -> None:
    plugin = Plugin("hoarding")

    @plugin.message()
    async def hoard(ctx: Context, tally: State[Tally]) -> str:
        tally.value.names.append("x" * int(ctx.text))
        return f"{len(tally.value.names)} kept"

    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").says("1000000", str(MAX_RECORD_BYTES), "10")

        assert room.replies == ["1 kept", "2 kept"]
        (failure,) = room.failures
        assert "State[Tally] takes 2,048,6" in str(failure.error)
        assert "a record holds at most 1,048,576" in str(failure.error)


@pytest.mark.virtual_time
@pytest.mark.parametrize("command", ["timer", "once", "dialog"])
async def test_what_else_an_author_has_kept_is_refused_with_its_size_too(command: str) -> None:
    plugin = Plugin("hoarding")

    @plugin.timer
    async def ring(ctx: Context[TimerFired], words: str) -> str:
        return words

    @plugin.command("timer", retry=Retry(1))
    async def set_timer(ctx: Context) -> None:
        await ctx.later(timedelta(seconds=1), ring, words=large())

    @plugin.command("once", retry=Retry(1))
    async def do_once(ctx: Context) -> None:
        await ctx.once("large", large)

    @plugin.command("dialog", retry=Retry(1))
    async def talk_long(talk: Dialog) -> None:
        await talk.run(large)

    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").says(f"/{command}")

        assert "takes 1,048,5" in str(room.failures[0].error)
        assert "a record holds at most 1,048,576" in str(room.failures[0].error)


def large() -> str:
    return "x" * (MAX_RECORD_BYTES - 1)


@pytest.mark.virtual_time
async def test_a_handler_whose_state_another_thread_has_changed_runs_again() -> None:
    plugin = Plugin("slow")
    both_have_read = anyio.Event()
    runs: list[str] = []

    @plugin.message()
    async def count(ctx: Context, tally: ProfileState[Tally]) -> str:
        runs.append(ctx.text)
        before = tally.value.count
        if len(runs) == 2:
            both_have_read.set()
        with anyio.fail_after(60):
            await both_have_read.wait()
        tally.value.count = before + 1
        return f"{ctx.text} {tally.value.count}"

    looking = BotSettings(cadence=Cadence(interval=1, idle=5))
    async with chat(plugin, settings=looking) as room:
        other = room.another()
        await room.user("Ann").joins()
        await other.user("Ann").joins()
        async with anyio.create_task_group() as group:
            group.start_soon(room.user("Ann").says, "here")
            group.start_soon(other.user("Ann").says, "there")

        assert sorted(room.replies + other.replies) in (["here 1", "there 2"], ["here 2", "there 1"])
        assert len(runs) == 3


@pytest.mark.virtual_time
async def test_handlers_of_one_event_share_its_state() -> None:
    plugin = Plugin("sharing")

    @plugin.message()
    async def first(ctx: Context, tally: State[Tally]) -> Pass:
        tally.value.count += 1
        return PASS

    @plugin.message()
    async def second(ctx: Context, tally: State[Tally]) -> str:
        tally.value.count += 1
        return str(tally.value.count)

    async with chat(plugin) as room:
        await room.user("Ann").says("a", "b")

        assert room.replies == ["2", "4"]


@pytest.mark.virtual_time
async def test_the_bots_own_events_have_the_bots_own_state() -> None:
    plugin = Plugin("starts")

    @plugin.on(BotStarted)
    async def start(ctx: Context[BotStarted], tally: BotState[Tally]) -> None:
        tally.value.count += 1

    @plugin.message()
    async def tell(ctx: Context, tally: BotState[Tally]) -> str:
        return f"start {tally.value.count}"

    async with chat(plugin) as room:
        await room.user("Ann").says("?")
        await room.restart()
        await room.user("Ann").says("?")

        assert room.replies == ["start 1", "start 2"]


@pytest.mark.virtual_time
async def test_an_event_stream_remembers_from_event_to_event() -> None:
    stream, plugin = EventStream(), counting()
    ann = stream.user("Ann")
    stream += [ann.said("/user"), ann.said("/user")]
    first = await stream.into(plugin)
    stream += ann.said("/user")
    second = await stream.into(plugin)

    assert first.replies + second.replies == ["user 1", "user 2", "user 3"]


@pytest.mark.parametrize(
    ("handle", "reason"),
    [(State, "BotStarted happens in no thread; use BotState"), (ProfileState, "BotStarted is not caused by a person")],
)
def test_state_that_an_event_cannot_have_is_refused_at_load(handle: type, reason: str) -> None:
    plugin = Plugin("wrong")

    async def start(ctx, tally) -> None: ...

    start.__annotations__ = {"ctx": Context[BotStarted], "tally": handle[Tally]}
    plugin.on(BotStarted)(start)

    with pytest.raises(PluginError, match=rf"test_state\.py:\d+: parameter 'tally' of start is a .*, but {reason}"):
        plugin.handlers()


def test_a_handler_can_be_called_plainly_with_a_state_of_the_tests_own() -> None:
    tally = State(Tally(3))

    tally.value.count += 1

    assert tally.value == Tally(4)
