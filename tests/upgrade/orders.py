"""The plugin that wrote the stored data of the upgrade tests, and goes on with it.

The script that makes the data runs this file with an old version of chatbot, the tests run it with today's. Names of
functions and classes are in the data: they never change.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

from chatbot import (
    BotState,
    Context,
    Dialog,
    Plugin,
    ProfileState,
    ReadReceiptReceived,
    Retry,
    ScheduleFired,
    State,
    TimerFired,
    UserState,
)

TIMER_DELAY = timedelta(days=2)


@dataclass
class Cart:
    items: list[str] = field(default_factory=list)


@dataclass
class Visits:
    count: int = 0


def orders(*, is_old: bool = False) -> Plugin:
    """Return the plugin.

    Args:
        is_old: whether /break fails and /hang never ends; otherwise they reply.
    """
    plugin = Plugin("orders")

    @plugin.command("add")
    async def add(
        ctx: Context,
        item: str,
        cart: State[Cart],
        own: UserState[Visits],
        profile: ProfileState[Visits],
        total: BotState[Visits],
    ) -> str:
        cart.value.items.append(item)
        for visits in (own, profile, total):
            visits.value.count += 1
        return f"{', '.join(cart.value.items)} ({own.value.count}, {profile.value.count}, {total.value.count})"

    @plugin.command("order")
    async def order(talk: Dialog, cart: State[Cart]) -> str:
        number = await talk.run(next_number, len(cart.value.items))
        name = await talk.ask("For whom?")
        await talk.say(f"Order {number} for {name}.")
        drink = await talk.ask("What to drink?")
        return f"{name} drinks {drink}."

    @plugin.timer
    async def remind(ctx: Context[TimerFired], what: str) -> str:
        return f"remember {what}"

    @plugin.command("remind")
    async def set_reminder(ctx: Context, what: str) -> None:
        await ctx.later(TIMER_DELAY, remind, what=what)

    @plugin.every(timedelta(hours=6))
    async def tick(ctx: Context[ScheduleFired], total: BotState[Visits]) -> None:
        total.value.count += 100

    @plugin.command("pay")
    async def pay(ctx: Context) -> str:
        return f"receipt {await ctx.once('payment', next_number, 41)}"

    @plugin.command("break", retry=Retry(attempts=1))
    async def fail(ctx: Context, what: str) -> str:
        if is_old:
            msg = f"cannot break the {what}"
            raise ValueError(msg)
        return f"the {what} is whole"

    @plugin.command("hang")
    async def hang(ctx: Context) -> str:
        if is_old:
            await asyncio.Event().wait()
        return "no longer hanging"

    @plugin.command("say")
    async def say(ctx: Context, text: str) -> str:
        return text

    @plugin.on(ReadReceiptReceived)
    async def note_reading(ctx: Context[ReadReceiptReceived], own: UserState[Visits]) -> None:
        own.value.count += 1000

    return plugin


def next_number(number: int) -> int:
    """Return the number that follows."""
    return number + 1
