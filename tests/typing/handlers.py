"""Handlers as an author writes them, as type checkers see them. Checked by mypy --strict and pyright, never run.

The decorated function is still the function.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true, reportUnusedFunction=false

from __future__ import annotations

from collections.abc import AsyncIterator, Set
from datetime import date, timedelta
from enum import Enum
from typing import Literal, assert_type
from uuid import UUID

from chatbot import (
    PASS,
    Ack,
    Attachment,
    BotInfo,
    BotStarted,
    ChatMessage,
    CommandInfo,
    Context,
    Event,
    Filter,
    MessageDeleted,
    MessageEdited,
    MessageEvent,
    MessageReceived,
    Middleware,
    Participant,
    ParticipantsAdded,
    ParticipantsRemoved,
    Pass,
    Plugin,
    Proceed,
    Reply,
    Rest,
    Retry,
    SentMessage,
    ThreadId,
    TopicUpdated,
    UserId,
    admin,
    from_user,
    has_attachment,
    in_thread,
    is_html,
    mentioned,
    regex,
    text,
)

plugin = Plugin("typing")


class Color(Enum):
    RED = 1


# Handlers as they should be.


@plugin.message()
async def echo(ctx: Context) -> str:
    assert_type(ctx, Context[MessageReceived])
    assert_type(ctx.bot, BotInfo)
    assert_type(ctx.bot.siblings, Set[UserId])
    assert_type(ctx.commands, tuple[CommandInfo, ...])
    assert_type(ctx.attachments, tuple[Attachment, ...])
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


plugin.include(Plugin("other", cancel_words=["never mind"]))


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


# Filters and middleware are values.

FILTERS: list[Filter] = [
    mentioned & is_html | ~has_attachment,
    text("hi") | (lambda event: isinstance(event, MessageReceived)),
    admin & from_user(UserId("8:acs:x")) & in_thread(ThreadId("19:x")),
]
MIDDLEWARE: list[Middleware] = [around, with_shop]

for one in FILTERS:
    plugin.message(one)(echo)
for layer in MIDDLEWARE:
    assert_type(layer, Middleware)
