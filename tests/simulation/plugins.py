"""The bot of the simulation: every answer says which message it belongs to, and how often its thread was counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import anyio

from chatbot import BotState, Context, Dialog, MessageEdited, Plugin, ScheduleFired, State, TimerFired
from chatbot.model import ThreadId, TimerId
from tests.cluster.cluster import Replica

TICK_SECONDS = 15
"""Seconds between two runs of the schedule."""


@dataclass
class Heard:
    """How many messages a thread has had."""

    count: int = 0


@dataclass
class Tally:
    """How many messages all threads have had."""

    count: int = 0


@dataclass
class Rung:
    """How many timers of a thread have fired."""

    count: int = 0


@dataclass(frozen=True)
class Ways:
    """What the plugin reaches of the simulation.

    Args:
        interrupted: called when a handler is canceled, with its replica and thread.
        die: kills a replica, because of a message with this number.
        board: returns the thread in which the schedule reports.
    """

    interrupted: Callable[[Replica, str], None]
    die: Callable[[Replica, int], None]
    board: Callable[[], ThreadId]


def witness(ways: Ways) -> Callable[[Replica], Sequence[Plugin]]:
    """Return what makes the plugins of a replica."""

    def plugins(replica: Replica) -> Sequence[Plugin]:
        plugin = Plugin("witness")

        async def work(thread: str, seconds: float) -> None:
            try:
                await anyio.sleep(seconds)
            except anyio.get_cancelled_exc_class():
                ways.interrupted(replica, thread)
                raise

        @plugin.message()
        async def received(ctx: Context, heard: State[Heard]) -> str:
            heard.value = Heard(heard.value.count + 1)
            await work(ctx.thread, 2.0 if ctx.text.startswith("slow") else 0.05)
            return f"{ctx.text} heard as {heard.value.count}"

        @plugin.on(MessageEdited)
        async def edited(ctx: Context[MessageEdited]) -> str:
            return f"{ctx.text} again"

        @plugin.command("two")
        async def two(ctx: Context, number: int) -> None:
            await ctx.reply(f"two {number} a")
            await ctx.reply(f"two {number} b")

        @plugin.command("tally")
        async def tally(ctx: Context, total: BotState[Tally], number: int) -> str:
            count = total.value.count + 1
            await work(ctx.thread, 0.3)
            total.value = Tally(count)
            return f"tally {number} is {count}"

        @plugin.command("tell")
        async def tell(ctx: Context, number: int, thread: str) -> str:
            await ctx.reply(f"tell {number} news", thread=ThreadId(thread))
            return f"tell {number} done"

        @plugin.command("ask")
        async def ask(talk: Dialog, number: int) -> str:
            answer = await talk.ask(f"ask {number} who?", timeout=timedelta(minutes=10))
            return f"hello {answer}"

        @plugin.timer
        async def ring(ctx: Context[TimerFired], rung: State[Rung], number: int) -> str:
            rung.value = Rung(rung.value.count + 1)
            return f"remind {number} rings as {rung.value.count}"

        @plugin.command("remind")
        async def remind(ctx: Context, number: int, seconds: float) -> str:
            timer = await ctx.later(timedelta(seconds=seconds), ring, number=number)
            return f"remind {number} by {timer}"

        @plugin.command("forget")
        async def forget(ctx: Context, number: int, timer: str) -> str:
            await ctx.cancel(TimerId(timer))
            return f"forget {number} done"

        @plugin.command("die")
        async def die(ctx: Context, number: int) -> str:
            ways.die(replica, number)
            await anyio.sleep_forever()
            return ""

        @plugin.every(timedelta(seconds=TICK_SECONDS))
        async def tick(ctx: Context[ScheduleFired]) -> None:
            await ctx.reply(f"tick {int(ctx.event.due.timestamp())}", thread=ways.board())

        return [plugin]

    return plugins
