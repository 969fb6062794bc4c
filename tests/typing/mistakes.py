"""Mistakes in handlers that a type checker finds. Checked by mypy --strict and pyright, never run.

Every wrong line carries an ignore; an ignore that is not needed any more is itself an error, so that wrong handlers
stay flagged.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true, reportUnusedFunction=false

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

from chatbot import (
    BotStarted,
    Context,
    Dialog,
    Event,
    Filter,
    Middleware,
    ParticipantsAdded,
    Plugin,
    Proceed,
    Reply,
    ScheduleFired,
    State,
    TimerFired,
    admin,
    from_user,
    in_thread,
    mentioned,
    migration,
    regex,
    text,
)
from chatbot.testing import EventStream, context

plugin = Plugin("mistakes")


@dataclass
class Cart:
    items: dict[str, int] = field(default_factory=dict)


async def price(item: str) -> int:
    return len(item)


@plugin.command("roll")
async def roll(ctx: Context, count: int) -> str:
    return str(count)


@plugin.on(ParticipantsAdded)
async def welcome(ctx: Context[ParticipantsAdded]) -> str:
    return "welcome"


@plugin.on(ParticipantsAdded)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def dialog_with_nobody(talk: Dialog) -> None: ...


@plugin.timer  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def timer_of_a_message(ctx: Context) -> None: ...


@plugin.every(timedelta(hours=1))
async def schedule_in_a_thread(ctx: Context[ScheduleFired]) -> None:
    print(ctx.thread)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


@plugin.every(60)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def seconds_are_no_period(ctx: Context[ScheduleFired]) -> None: ...


@plugin.message()
async def wrong_state(ctx: Context, cart: State[Cart]) -> None:
    cart.value = "pear"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    await ctx.once("price", price, 2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


@plugin.message()
async def wrong_question(talk: Dialog) -> None:
    await talk.ask("Size?", choices=[1, 2])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


@plugin.message()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
def not_async(ctx: Context) -> str:
    return ctx.text


@plugin.message()  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def wrong_return(ctx: Context) -> int:
    return 1


@plugin.message()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def wrong_first_parameter(ctx: str) -> str:
    return ctx


@plugin.message()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def no_parameter() -> None: ...


@plugin.message()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def wrong_event(ctx: Context[ParticipantsAdded]) -> None: ...


async def tokens() -> AsyncIterator[str]:
    yield "one"


@plugin.command("wrong")
async def streams_what_is_no_text(ctx: Context) -> None:
    await ctx.stream("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await ctx.stream(tokens)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with ctx.typing:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass


@plugin.on(BotStarted)
async def nowhere_to_type(ctx: Context[BotStarted]) -> None:
    async with ctx.typing():  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
        pass


@plugin.on(ParticipantsAdded)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def bare_context(ctx: Context) -> None: ...


@plugin.command("x")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
async def returns_a_list(ctx: Context) -> list[str]:
    return []


@plugin.message("hi")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def text_is_no_filter(ctx: Context) -> None: ...


plugin.on(str)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


@plugin.on(BotStarted)
async def started_nowhere(ctx: Context[BotStarted]) -> None:
    print(ctx.text)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    print(ctx.thread)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


@plugin.on(ParticipantsAdded)
async def not_of_this_event(ctx: Context[ParticipantsAdded]) -> None:
    print(ctx.event.topic)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


@plugin.message()
async def wrong_calls(ctx: Context) -> None:
    await ctx.reply()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await ctx.reply("a", html="b")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    ctx.reply("forgotten")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    plugin.message(mentioned & 3)  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]


@plugin.error(ValueError)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def another_error(ctx: Context[Event], error: KeyError) -> None: ...


@plugin.error(ValueError)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def error_without_parameter(ctx: Context[Event]) -> None: ...


@plugin.message(timeout=60)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def seconds_are_no_timedelta(ctx: Context) -> None: ...


@plugin.middleware  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def middleware_for_messages(ctx: Context, proceed: Proceed) -> Reply:
    return await proceed()


class Shop: ...


@plugin.provide  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
def sync_provider() -> Shop:
    return Shop()


@plugin.middleware  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def middleware_without_proceed(ctx: Context[Event]) -> Reply:
    return None


@plugin.middleware  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
async def middleware_returns_a_list(ctx: Context[Event], proceed: Proceed) -> list[str]:
    return []


async def returns_a_number(ctx: Context[Event], proceed: Proceed) -> int:
    return 1


LAYER: Middleware = returns_a_number  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
CHOICE: Filter = mentioned | "hi"  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]

plugin.message(text(7))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
plugin.message(regex())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
plugin.message(from_user("8:acs:x"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
plugin.message(in_thread("19:x"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
plugin.command("stop", admin())  # type: ignore[operator]  # pyright: ignore[reportCallIssue]
plugin.command(mentioned)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
plugin.cron("0 9 * * *", tz=2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
plugin.include("plugins.echo")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
plugin.error("ValueError")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


@plugin.timer
async def ring(ctx: Context[TimerFired], count: int) -> None: ...


@plugin.message()
async def wrong_timers(ctx: Context) -> None:
    await ctx.later(60, ring, count=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await ctx.cancel("ring")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await ctx.later(timedelta(minutes=1), "ring")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@dataclass
class Basket:
    items: list[str] = field(default_factory=list)

    @migration()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    @staticmethod
    def unversioned(stored: dict[str, str]) -> dict[str, str]:
        return stored

    @migration(from_version=1)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    @staticmethod
    def loses_everything(stored: dict[str, str]) -> None: ...


async def test_wrong_calls() -> None:
    await roll(context("/roll"), "two")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await welcome(context("hi"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    EventStream().timer_fired(roll, count=1).payload.pop()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
