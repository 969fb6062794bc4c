"""State, dialogs and timers, as type checkers see them. Checked by mypy --strict and pyright, never run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true, reportUnusedFunction=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, assert_type

from chatbot import (
    ActionKey,
    BotState,
    Context,
    Dialog,
    DialogCancelled,
    DialogTimeout,
    MessageReceived,
    Participant,
    Plugin,
    ProfileState,
    ScheduleFired,
    State,
    ThreadId,
    TimerFired,
    TimerId,
    UserId,
    UserState,
    migration,
    text,
)

plugin = Plugin("conversations")


@dataclass
class Cart:
    items: dict[str, int] = field(default_factory=dict)

    @migration(from_version=1)
    @staticmethod
    def count_items(stored: dict[str, Any]) -> dict[str, Any]:
        return {"items": dict.fromkeys(stored["items"], 1)}


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
    assert_type(await talk.run(price, item), int)
    assert_type(await talk.now(), datetime)
    timer = await talk.later(timedelta(days=1), follow_up, item=item)
    assert_type(timer, TimerId)
    await talk.cancel(timer)
    assert_type(await talk.reply("hi", thread=talk.thread), ActionKey)
    assert_type(await talk.reply(html="<b>hi</b>"), ActionKey)
    assert_type(await talk.participants(), Sequence[Participant])
    async with talk.typing():
        talk.log.info("order.placed", count=1)
    assert_type(talk.user, UserId)
    assert_type(talk.thread, ThreadId)
    assert_type(talk.event, MessageReceived)
    try:
        await talk.ask("Anything else?", timeout=timedelta(minutes=1))
    except DialogTimeout as error:
        return str(error)
    except DialogCancelled:
        return "Never mind."
    return item


@plugin.message(text(equals=("dialog", "talk"), contains=("a", "b")))
async def dialog_on_message(talk: Dialog) -> None:
    await talk.say(html="<b>hi</b>")
