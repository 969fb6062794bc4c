"""What an author writes, as type checkers see it. Checked by mypy --strict and pyright, never run.

Every wrong line carries an ignore; an ignore that is not needed any more is itself an error, so that wrong handlers
stay flagged.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true, reportUnusedFunction=false

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import Enum
from typing import Literal, assert_type
from uuid import UUID

from chatbot import (
    PASS,
    Ack,
    BotStarted,
    BotState,
    ChatMessage,
    Context,
    Dialog,
    Event,
    MessageDeleted,
    MessageEdited,
    MessageEvent,
    MessageReceived,
    Participant,
    ParticipantsAdded,
    ParticipantsRemoved,
    Pass,
    Plugin,
    Proceed,
    ProfileState,
    Reply,
    Rest,
    Retry,
    ScheduleFired,
    SendMessage,
    SentMessage,
    State,
    ThreadId,
    TimerFired,
    TimerId,
    TopicUpdated,
    UserId,
    UserState,
    admin,
    from_user,
    has_attachment,
    in_thread,
    is_html,
    mentioned,
    regex,
    text,
)
from chatbot.testing import EventStream, context

plugin = Plugin("typing")


class Color(Enum):
    RED = 1


# Handlers as they should be.


@plugin.message()
async def echo(ctx: Context) -> str:
    assert_type(ctx, Context[MessageReceived])
    assert_type(ctx.event, MessageReceived)
    assert_type(ctx.message, ChatMessage)
    assert_type(ctx.sender, Participant)
    assert_type(ctx.thread, ThreadId)
    assert_type(ctx.text, str)
    assert_type(ctx.html, str | None)
    return ctx.text


@plugin.message(mentioned & ~text("hi", startswith="!") | regex("(?P<number>[0-9]+)"), ack=Ack.MANUAL)
async def combined(ctx: Context, number: int = 0) -> str | Pass | None:
    await ctx.acknowledge()
    return PASS if number else None


@plugin.message(lambda event: isinstance(event, MessageReceived), from_bots=True)
async def everyone(ctx: Context[MessageReceived]) -> None:
    sent = await ctx.reply("hi")
    assert_type(sent, SentMessage)
    await sent.edit("hello")
    await sent.delete()
    await ctx.reply(html="<b>hi</b>", thread=ThreadId("19:x"), metadata={"a": "b"})
    await ctx.edit(sent.key, "again")
    await ctx.add_participants(UserId("8:acs:x"), Participant(UserId("8:acs:y"), "Y"))
    await ctx.remove_participant(ctx.sender)
    await ctx.update_topic("Lunch")
    await ctx.leave()
    ctx.log.info("greeting.sent", count=1)


@plugin.command("roll")
async def roll(ctx: Context, count: int, sides: int = 6) -> str:
    """Roll COUNT dice of SIDES sides."""
    return f"{count}d{sides}"


@plugin.command("all", is_html | has_attachment | from_user(UserId("8:acs:x")) | in_thread(ThreadId("19:x")))
async def every_type(
    ctx: Context,
    number: float,
    day: date,
    span: timedelta,
    key: UUID,
    color: Color,
    size: Literal["s", "l"],
    tail: Rest = "",
    *,
    is_loud: bool = False,
) -> None: ...


@plugin.on(ParticipantsAdded)
async def welcome(ctx: Context[ParticipantsAdded]) -> str:
    assert_type(ctx.event.participants, tuple[Participant, ...])
    return "welcome"


@plugin.on(MessageEdited)
@plugin.on(MessageEdited, mentioned)
async def edited(ctx: Context[MessageEdited]) -> str:
    return ctx.text


@plugin.on(MessageDeleted)
async def wider_contexts_are_fine(ctx: Context[MessageEvent]) -> None: ...


@plugin.on(TopicUpdated)
async def topic(ctx: Context[Event]) -> None: ...


@plugin.on(BotStarted)
async def started(ctx: Context[BotStarted]) -> None: ...


async def door(ctx: Context[ParticipantsAdded | ParticipantsRemoved]) -> str:
    return str(len(ctx.event.participants))


plugin.on(ParticipantsAdded)(door)
plugin.on(ParticipantsRemoved)(door)


@plugin.middleware
async def around(ctx: Context[Event], proceed: Proceed) -> Reply:
    return await proceed()


class Shop: ...


@plugin.provide
async def shop() -> AsyncIterator[Shop]:
    yield Shop()


@plugin.provide
async def basket(ctx: Context[Event], shop: Shop) -> list[Shop]:
    return [shop]


@plugin.middleware
async def with_shop(ctx: Context[Event], proceed: Proceed, shop: Shop, *, basket: list[Shop]) -> Reply:
    return await proceed()


@plugin.error(ValueError)
async def report(ctx: Context[Event], error: ValueError, shop: Shop) -> None: ...


@plugin.command("buy")
async def buy(ctx: Context, shop: Shop, item: str) -> str:
    return item


@plugin.error(ValueError)
async def sorry(ctx: Context[Event], error: ValueError) -> str:
    return str(error)


@plugin.error()
async def whatever(ctx: Context[Event], error: Exception) -> None: ...


@plugin.error(KeyError)
async def wider_errors_are_fine(ctx: Context[Event], error: LookupError) -> Reply:
    return PASS


@plugin.message(text("slow"), retry=Retry(attempts=1), timeout=timedelta(seconds=5))
async def slow(ctx: Context) -> None: ...


plugin.include(Plugin("other"))


# Tests as they should be: the decorated function is still the function.


async def test_bot() -> None:
    assert_type(await roll(context("/roll 2 6"), 2, 6), str)
    assert_type(await echo(context("hi")), str)
    assert_type(await welcome(context(EventStream().user("Ann").joined())), str)
    assert_type(await buy(context("/buy tea"), Shop(), "tea"), str)
    assert_type(await basket(context(), Shop()), list[Shop])
    assert_type(await combined(context("hi"), number=2), str | Pass | None)
    stream = EventStream()
    ann = stream.user("Ann")
    stream += [ann.said("hi"), ann.edited("hello"), ann.left()]
    stream += ann.deleted()
    outcome = await stream.into(plugin)
    assert outcome.actions == [SendMessage("hi")]


# State, dialogs and timers.


@dataclass
class Cart:
    items: dict[str, int] = field(default_factory=dict)


async def price(item: str) -> int:
    return len(item)


@plugin.command("add")
async def add(ctx: Context, cart: State[Cart], item: str, count: int = 1) -> str:
    cart.value = Cart({**cart.value.items, item: count})
    assert_type(cart.value, Cart)
    timer = await ctx.later(timedelta(days=1), follow_up, item=item)
    await ctx.cancel(timer)
    assert_type(timer, TimerId)
    assert_type(await ctx.once("price", price, item), int)
    assert_type(await ctx.once("length", len, item), int)
    return item


@plugin.timer
async def follow_up(ctx: Context[TimerFired], item: str, cart: State[Cart]) -> str:
    return f"{item} {ctx.event.due}"


@plugin.timer(timeout=timedelta(seconds=5))
async def slow_timer(ctx: Context[TimerFired]) -> None: ...


@plugin.every(timedelta(hours=1))
async def beat(ctx: Context[ScheduleFired], all: BotState[Cart]) -> None: ...


@plugin.cron("0 9 * * 1-5", tz="Europe/Paris")
async def morning(ctx: Context[ScheduleFired]) -> None: ...


@plugin.command("order")
async def order(talk: Dialog, item: str, mine: UserState[Cart], everywhere: ProfileState[Cart]) -> str:
    assert_type(await talk.ask("Name?"), str)
    assert_type(await talk.ask("How many?", validate=int), int)
    sizes: list[Literal["s", "l"]] = ["s", "l"]
    assert_type(await talk.ask("Size?", choices=sizes, timeout=timedelta(minutes=5)), Literal["s", "l"])
    assert_type(await talk.confirm("Sure?"), bool)
    assert_type(await talk.run(len, item), int)
    return item


@plugin.message(text("dialog"))
async def dialog_on_message(talk: Dialog) -> None:
    await talk.say(html="<b>hi</b>")


# Mistakes that a type checker finds.


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


@plugin.command("ask", admin & ~mentioned)
async def what_cannot_wait(ctx: Context, whom: Participant, *others: Participant) -> None:
    async with ctx.typing():
        sent = await ctx.stream(tokens())
    await sent.edit(", ".join(str(one.display_name) for one in await ctx.participants()))
    await ctx.reply(str(whom.display_name), quote=True)
    names: list[str | None] = [one.name for one in ctx.attachments]
    print(names, ctx.is_mentioned)


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


@plugin.provide  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
def sync_provider() -> Shop:
    return Shop()


@plugin.middleware  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def middleware_for_messages(ctx: Context, proceed: Proceed) -> Reply:
    return await proceed()


async def test_wrong_calls() -> None:
    await roll(context("/roll"), "two")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await welcome(context("hi"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
