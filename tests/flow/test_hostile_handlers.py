"""Whatever comes out of code of plugins: the event is kept as a dead letter, and its thread goes on."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import NoReturn

import anyio
import pytest

from chatbot import (
    BotStarted,
    Context,
    Dialog,
    Event,
    MessageReceived,
    Plugin,
    Proceed,
    Reply,
    Retry,
    ScheduleFired,
    ThreadJoined,
    TimerFired,
)
from chatbot.bot import BotSettings
from chatbot.errors import AbnormalExit
from chatbot.outbox.stream import INTERRUPTED
from chatbot.stores import MemoryStore
from chatbot.stores.writes import SaveDeadLetter
from chatbot.testing import chat
from tests.support.failures import ONCE, STILL_HERE, chat_with_failures

pytestmark = pytest.mark.virtual_time

Hostile = Callable[[], Awaitable[None]]


class Own(BaseException):
    def __str__(self) -> str:
        msg = "even its text fails"
        raise Own(msg)

    __repr__ = __str__


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


async def cancelled() -> None:
    task = asyncio.create_task(asyncio.sleep(10))
    task.cancel()
    await task


async def cancels_itself() -> None:
    current = asyncio.current_task()
    assert current is not None
    current.cancel()
    await asyncio.sleep(0)


async def leaves_a_scope_open() -> None:
    anyio.CancelScope().__enter__().cancel()
    await anyio.sleep(1)


async def exits() -> None:
    sys.exit(2)


async def interrupts() -> None:
    raise KeyboardInterrupt


async def raises_its_own() -> None:
    raise Own


async def raises_a_group() -> None:
    msg = "several"
    raise BaseExceptionGroup(msg, [ValueError("one"), Own()])


async def raises_what_has_no_text() -> None:
    raise Mute


class Traceless(Exception):
    """What Python keeps in an error is not to be had of it."""

    @property
    def __traceback__(self) -> NoReturn:  # type: ignore[override]
        raise SystemExit

    __cause__ = __context__ = __traceback__  # type: ignore[assignment]


class False_(Exception):  # noqa: N801
    def __bool__(self) -> bool:
        raise SystemExit


class Nobody(BaseException):
    @property
    def __class__(self) -> NoReturn:  # type: ignore[override]
        raise KeyboardInterrupt


class Endless(BaseExceptionGroup[BaseException]):
    @property
    def exceptions(self) -> NoReturn:  # type: ignore[override]
        raise SystemExit


async def raises_what_has_no_traceback() -> None:
    raise Traceless


async def raises_what_is_neither_true_nor_false() -> None:
    raise False_


async def raises_what_has_no_class() -> None:
    raise Nobody


async def raises_a_group_that_holds_nothing() -> None:
    msg = "several"
    raise Endless(msg, [ValueError()])


HOSTILE: list[Hostile] = [
    cancelled,
    cancels_itself,
    leaves_a_scope_open,
    exits,
    interrupts,
    raises_its_own,
    raises_a_group,
    raises_what_has_no_text,
    raises_what_has_no_traceback,
    raises_what_is_neither_true_nor_false,
    raises_what_has_no_class,
    raises_a_group_that_holds_nothing,
]


@dataclass
class Made:
    """What a provider makes."""


def middleware(plugin: Plugin, hostile: Hostile) -> None:
    @plugin.middleware
    async def around(ctx: Context[Event], proceed: Proceed) -> Reply:
        if isinstance(ctx.event, MessageReceived) and ctx.event.message.content == "/x":
            await hostile()
        return await proceed()

    @plugin.command("x", retry=ONCE)
    async def x(ctx: Context) -> str:
        return "x"


def handler(plugin: Plugin, hostile: Hostile) -> None:
    @plugin.command("x", retry=ONCE)
    async def x(ctx: Context) -> str:
        await hostile()
        return "x"


def error_handler(plugin: Plugin, hostile: Hostile) -> None:
    @plugin.error(ValueError)
    async def sorry(ctx: Context[Event], error: ValueError) -> str:
        await hostile()
        return "sorry"

    @plugin.command("x", retry=ONCE)
    async def x(ctx: Context) -> str:
        raise ValueError


def provider(plugin: Plugin, hostile: Hostile) -> None:
    @plugin.provide
    async def make(ctx: Context) -> Made:
        await hostile()
        return Made()

    @plugin.command("x", retry=ONCE)
    async def x(ctx: Context, made: Made) -> str:
        return "x"


def teardown(plugin: Plugin, hostile: Hostile) -> None:
    @plugin.provide
    async def make(ctx: Context) -> AsyncIterator[Made]:
        yield Made()
        await hostile()

    @plugin.command("x", retry=ONCE)
    async def x(ctx: Context, made: Made) -> str:
        return "x"


def dialog(plugin: Plugin, hostile: Hostile) -> None:
    @plugin.command("x", retry=ONCE)
    async def x(talk: Dialog) -> None:
        await talk.run(hostile)


def once(plugin: Plugin, hostile: Hostile) -> None:
    @plugin.command("x", retry=ONCE)
    async def x(ctx: Context) -> None:
        await ctx.once("key", hostile)


def stream(plugin: Plugin, hostile: Hostile) -> None:
    @plugin.command("x", retry=ONCE)
    async def x(ctx: Context) -> None:
        async def words() -> AsyncIterator[str]:
            yield "a"
            await anyio.sleep(5)
            await hostile()

        await ctx.stream(words())


def typing(plugin: Plugin, hostile: Hostile) -> None:
    @plugin.command("x", retry=ONCE)
    async def x(ctx: Context) -> None:
        async with ctx.typing():
            await anyio.sleep(5)
            await hostile()


def timer(plugin: Plugin, hostile: Hostile) -> None:
    @plugin.timer(retry=ONCE)
    async def ring(ctx: Context[TimerFired]) -> None:
        await hostile()

    @plugin.command("x")
    async def x(ctx: Context) -> None:
        await ctx.later(timedelta(seconds=1), ring)


def schedule(plugin: Plugin, hostile: Hostile) -> None:
    @plugin.every(timedelta(seconds=20), retry=ONCE)
    async def tick(ctx: Context[ScheduleFired]) -> None:
        await hostile()


def bot_started(plugin: Plugin, hostile: Hostile) -> None:
    @plugin.on(BotStarted, retry=ONCE)
    async def started(ctx: Context[BotStarted]) -> None:
        await hostile()


def thread_joined(plugin: Plugin, hostile: Hostile) -> None:
    @plugin.on(ThreadJoined, retry=ONCE)
    async def joined(ctx: Context[ThreadJoined]) -> None:
        await hostile()


PLACES = [
    middleware,
    handler,
    error_handler,
    provider,
    teardown,
    dialog,
    once,
    stream,
    typing,
    timer,
    schedule,
    bot_started,
    thread_joined,
]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("place", PLACES)
async def test_the_event_becomes_a_dead_letter_and_the_thread_continues(
    place: Callable[[Plugin, Hostile], None], hostile: Hostile
) -> None:
    plugin = Plugin("hostile")
    place(plugin, hostile)

    async with chat_with_failures(plugin) as room:
        await room.user("Ann").says("/x")
        await room.advance(seconds=30)
        await room.user("Ann").says("next")

        assert room.replies[-1:] == [STILL_HERE]
        dead_letters = room.dead_letters
        assert dead_letters
        assert all(letter.handler and letter.error for letter in dead_letters)


@pytest.mark.parametrize("hostile", [asyncio.CancelledError, SystemExit, Own])
async def test_a_filter_fails_likewise(hostile: type[BaseException]) -> None:
    plugin = Plugin("hostile")

    def wanted(event: Event) -> bool:
        if isinstance(event, MessageReceived) and event.message.content == "x":
            raise hostile
        return False

    @plugin.message(wanted, retry=ONCE)
    async def never(ctx: Context) -> None: ...

    async with chat_with_failures(plugin) as room:
        await room.user("Ann").says("x", "next")

        assert room.replies == [STILL_HERE]
        (letter,) = room.dead_letters
        assert letter.handler.endswith("never")


async def test_a_mistyped_command_stops_no_thread_where_nothing_can_be_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plugin = Plugin("hostile")

    @plugin.command("break")
    async def break_imports(ctx: Context) -> str:
        monkeypatch.setitem(sys.modules, "difflib", None)
        return "broken"

    @plugin.command("size")
    async def size(ctx: Context, *, width: int = 1) -> str:
        return f"{width} wide"

    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").says("/sise", "/size --widht 2", "/break")
        assert ["Did you mean" in reply for reply in room.replies] == [True, True, False]
        await room.user("Ann").says("/sise", "/size --widht 2", "/size --width 2")

        assert room.replies[3:] == ["There is no option --widht.\nUsage: /size [--width WIDTH]", "2 wide"]
        assert room.dead_letters == []


@pytest.mark.parametrize("value", [b"bytes", 7, ["list"], "half \ud83d"])
async def test_a_return_value_that_is_no_reply_stops_no_thread(value: object) -> None:
    plugin = Plugin("hostile")

    @plugin.error(Exception)
    async def sorry(ctx: Context[Event], error: Exception) -> Reply:
        return value  # type: ignore[return-value]

    @plugin.command("x", retry=ONCE)
    async def x(ctx: Context) -> Reply:
        return [value]  # type: ignore[return-value]

    async with chat_with_failures(plugin) as room:
        await room.user("Ann").says("/x", "next")

        assert room.replies[-1] == STILL_HERE
        (letter,) = room.dead_letters
        assert letter.handler.endswith("x")
        assert letter.error.startswith("TypeError")


class Text(str):
    """A text whose methods are a plugin's code."""

    __slots__ = ()

    def isascii(self) -> NoReturn:
        raise SystemExit

    strip = encode = splitlines = __len__ = __str__ = __iter__ = isascii  # type: ignore[assignment]


@pytest.mark.parametrize("command", ["/returns", "/replies", "/streams", "/says"])
async def test_a_text_with_methods_of_its_own_is_said_as_it_is(command: str) -> None:
    plugin = Plugin("hostile")

    @plugin.command("returns")
    async def returns(ctx: Context) -> str:
        return Text("hello")

    @plugin.command("replies")
    async def replies(ctx: Context) -> None:
        await ctx.reply(Text("hello"))

    @plugin.command("streams")
    async def streams(ctx: Context) -> None:
        async def words() -> AsyncIterator[str]:
            yield Text("hel")
            yield Text("lo")

        await ctx.stream(words())

    @plugin.command("says")
    async def says(talk: Dialog) -> None:
        await talk.say(Text("hello"))

    async with chat(plugin) as room:
        await room.user("Ann").says(command)

        assert room.replies == ["hello"]


async def test_the_dead_letter_of_a_stream_names_what_ended_it() -> None:
    plugin, store = Plugin("hostile"), MemoryStore()

    @plugin.command("x", retry=ONCE)
    async def x(ctx: Context) -> None:
        async def words() -> AsyncIterator[str]:
            yield "a"
            await exits()

        await ctx.stream(words())

    async with chat(plugin, store=store, raise_failures=False) as room:
        await room.user("Ann").says("/x")

        (letter,) = await store.dead_letters(room.bot.user)
        assert letter.error == "SystemExit: 2"


async def test_a_dialog_goes_on_when_its_code_swallows_everything() -> None:
    plugin = Plugin("dialog")

    @plugin.command("x")
    async def x(talk: Dialog) -> str:
        try:
            name = await talk.ask("Who?")
        except BaseException:
            name = "nobody"
        return f"Hi {name}"

    async with chat(plugin) as room:
        await room.user("Ann").says("/x", "Ann")

        assert room.replies == ["Who?", "Hi Ann"]


async def test_a_schedule_whose_handler_exits_does_not_end_its_bot() -> None:
    plugin, store, runs = Plugin("hostile"), MemoryStore(), list[int]()

    @plugin.every(timedelta(hours=1), retry=ONCE)
    async def tick(ctx: Context[ScheduleFired]) -> None:
        runs.append(len(runs))
        if len(runs) < 3:
            await exits()

    @plugin.message()
    async def others(ctx: Context) -> str:
        return json.dumps(len(runs))

    async with chat(plugin, store=store, raise_failures=False) as room:
        await room.user("Ann").joins()
        await room.advance(hours=4, minutes=30)
        await room.user("Ann").says("how many?")

        assert room.replies == ["4"]
        assert len(await store.dead_letters(room.bot.user)) == 2


def cancel_tasks(name: str) -> None:
    """Cancel the tasks whose name holds this, as `for task in asyncio.all_tasks(): task.cancel()` would."""
    found = [task for task in asyncio.all_tasks() if name in task.get_name()]
    assert found, f"no task is called {name}"
    for task in found:
        task.cancel()


async def test_a_bot_whose_loops_are_cancelled_by_a_handler_crashes_with_the_reason() -> None:
    plugin = Plugin("sweeper")

    @plugin.message()
    async def sweep(ctx: Context) -> str:
        cancel_tasks("Bot._run_forever")
        return "swept"

    with pytest.raises(ExceptionGroup) as caught:
        async with chat(plugin, raise_failures=False) as room:
            await room.user("Ann").says("x")
    assert {type(error) for error in caught.value.exceptions} == {AbnormalExit}


def sweeper() -> Plugin:
    """Return a plugin that answers, and cancels all turns at the first message that it gets."""
    plugin, swept = Plugin("sweeper"), list[str]()

    @plugin.message()
    async def sweep(ctx: Context) -> str:
        if not swept:
            swept.append(ctx.text)
            cancel_tasks("Scheduler._turns")
        return ctx.text

    return plugin


async def test_a_turn_that_is_cancelled_by_a_handler_is_given_again() -> None:
    async with chat(sweeper(), raise_failures=False) as room:
        await room.user("Ann").says("one", "two")

        assert room.replies == ["one", "two"]


async def test_turns_of_other_threads_follow_one_that_is_cancelled_by_a_handler() -> None:
    async with chat(sweeper(), settings=BotSettings(max_turns=1), raise_failures=False) as room:
        ann = room.user("Ann")
        threads = [room.emulator.create_thread(ann.user, f"{number}", [room.bot.user]) for number in range(10)]
        for thread in threads:
            room.emulator.send(thread, ann.user, "word")
        await room.advance(minutes=2)

        said = [[text for user, text in room.emulator.texts(thread) if user == room.bot.user] for thread in threads]
        assert said == [["word"]] * 10


async def test_what_a_filter_binds_to_its_context_is_not_seen_in_other_threads() -> None:
    """As filters do that bind whom they have seen to the log, by `structlog.contextvars`."""
    plugin, seen, found = Plugin("binder"), ContextVar[str]("seen"), list[str]()

    def binds(event: Event) -> bool:
        assert isinstance(event, MessageReceived)
        found.append(seen.get("nothing"))
        seen.set(event.message.content)
        return True

    @plugin.message(binds)
    async def answer(ctx: Context) -> str:
        return seen.get()

    async with chat(plugin, settings=BotSettings(max_turns=1)) as room:
        ann = room.user("Ann")
        threads = [room.emulator.create_thread(ann.user, f"{number}", [room.bot.user]) for number in range(5)]
        for thread in threads:
            room.emulator.send(thread, ann.user, thread)
        await room.advance(seconds=10)

        assert found == ["nothing"] * 5
        assert [room.emulator.texts(thread)[-1] for thread in threads] == [(room.bot.user, text) for text in threads]


async def test_a_stream_whose_event_is_dead_lettered_ends_with_a_note_to_the_user() -> None:
    plugin, store, is_fixed = Plugin("hostile"), MemoryStore(), list[bool]()

    @plugin.command("x", retry=Retry(attempts=2))
    async def x(ctx: Context) -> None:
        async def words() -> AsyncIterator[str]:
            yield "The answer "
            await anyio.sleep(5)
            yield "is "
            await anyio.sleep(5)
            if not is_fixed:
                await exits()
            yield "42"

        await ctx.stream(words())

    async with chat(plugin, store=store, raise_failures=False) as room:
        await room.user("Ann").says("/x")

        (letter,) = await store.dead_letters(room.bot.user)
        assert room.replies == [f"The answer is …\n\n{INTERRUPTED}"]

        is_fixed.append(True)
        await store.commit(room.bot.user, [SaveDeadLetter(replace(letter, is_revived=True))])
        await room.restart()

        assert room.replies == ["The answer is 42"]
        assert await store.dead_letters(room.bot.user) == []


async def replies_without_end(ctx: Context) -> None:
    while True:
        await ctx.reply("more")


async def sets_timers_without_end(ctx: Context) -> None:
    while True:
        await ctx.later(timedelta(days=1), ring)


async def streams_without_end(ctx: Context) -> None:
    async def words() -> AsyncIterator[str]:
        while True:
            yield "word " * 100

    await ctx.stream(words())


async def replies_with_a_book(ctx: Context) -> None:
    await ctx.reply("x" * 50_000_000)


async def edits_to_a_book(ctx: Context) -> None:
    await (await ctx.reply("x")).edit("x" * 50_000_000)


async def ring(ctx: Context[TimerFired]) -> None: ...


@pytest.mark.parametrize(
    "much",
    [
        replies_without_end,
        sets_timers_without_end,
        streams_without_end,
        replies_with_a_book,
        edits_to_a_book,
    ],
)
async def test_what_is_too_much_for_a_thread_is_the_handlers_failure(
    much: Callable[[Context], Awaitable[None]],
) -> None:
    plugin, store = Plugin("hostile"), MemoryStore()
    plugin.timer(ring)

    @plugin.command("x", retry=ONCE)
    async def x(ctx: Context) -> None:
        await much(ctx)

    @plugin.message()
    async def others(ctx: Context) -> str:
        return "still here"

    async with chat(plugin, store=store, raise_failures=False) as room:
        await room.user("Ann").says("/x", "next")

        assert room.replies[-1] == "still here"
        (letter,) = await store.dead_letters(room.bot.user)
        assert letter.handler.endswith("x")
        assert letter.error.startswith("ValueError: ")


async def test_a_dialog_that_says_things_without_end_is_its_failure() -> None:
    plugin, store = Plugin("hostile"), MemoryStore()

    @plugin.command("x", retry=ONCE)
    async def x(talk: Dialog) -> None:
        while True:
            await talk.say("more")

    async with chat(plugin, store=store, raise_failures=False) as room:
        await room.user("Ann").says("/x")

        assert room.replies == []
        (letter,) = await store.dead_letters(room.bot.user)
        assert letter.error.startswith("ValueError: more than 1,000 actions")
