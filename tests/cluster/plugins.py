"""Plugins of replicas in tests. Each replica gets its own; what they share is in the store, or given by the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import anyio

from chatbot import BotStarted, BotState, BotStopping, Context, Dialog, Plugin, ScheduleFired, TimerFired
from chatbot.model import ThreadId
from tests.cluster.cluster import Replica


@dataclass
class Seen:
    """What handlers of all replicas were called with, in order: the replica, the thread and the text."""

    calls: list[tuple[str, str, str]] = field(default_factory=list)

    def note(self, replica: Replica, thread: str, text: str) -> None:
        """Note a call."""
        self.calls.append((replica.name, thread, text))

    def of(self, text: str) -> list[str]:
        """Return the replicas whose handlers were called with a text."""
        return [replica for replica, _, found in self.calls if found == text]


@dataclass
class Tally:
    """How many messages all threads have had together."""

    count: int = 0


def echo(_replica: Replica) -> list[Plugin]:
    """Repeat what people say."""
    plugin = Plugin("echo")

    @plugin.message()
    async def repeat(ctx: Context) -> str:
        return ctx.text

    return [plugin]


def slow(seen: Seen, *, seconds: float = 30.0) -> Callable[[Replica], Sequence[Plugin]]:
    """Repeat what people say; what begins with `slow` takes long."""

    def plugins(replica: Replica) -> Sequence[Plugin]:
        plugin = Plugin("slow")

        @plugin.message()
        async def repeat(ctx: Context) -> str:
            seen.note(replica, ctx.thread, ctx.text)
            if ctx.text.startswith("slow"):
                await anyio.sleep(seconds)
            return ctx.text

        return [plugin]

    return plugins


def greeter(_replica: Replica) -> list[Plugin]:
    """Ask for a name, and greet."""
    plugin = Plugin("greeter")

    @plugin.command("hello")
    async def hello(talk: Dialog) -> str:
        name = await talk.ask("Who are you?", timeout=timedelta(minutes=2))
        return f"Hello {name}!"

    return [plugin]


def counting(seen: Seen) -> Callable[[Replica], Sequence[Plugin]]:
    """Count the messages of all threads in one state."""

    def plugins(replica: Replica) -> Sequence[Plugin]:
        plugin = Plugin("counting")

        @plugin.message()
        async def count(ctx: Context, tally: BotState[Tally]) -> str:
            number = tally.value.count + 1
            seen.note(replica, ctx.thread, ctx.text)
            await anyio.sleep(0.5)
            tally.value = Tally(number)
            return f"{number}"

        return [plugin]

    return plugins


def timing(seen: Seen) -> Callable[[Replica], Sequence[Plugin]]:
    """Set timers, cancel those of any thread, and run a schedule; note starts and stops."""

    def plugins(replica: Replica) -> Sequence[Plugin]:
        plugin = Plugin("timing")

        @plugin.timer
        async def ring(ctx: Context[TimerFired], text: str) -> str:
            seen.note(replica, ctx.thread, f"ring {text}")
            return f"ring {text}"

        @plugin.command("remind")
        async def remind(ctx: Context, seconds: int, text: str) -> str:
            return await ctx.later(timedelta(seconds=seconds), ring, text=text)

        @plugin.command("forget")
        async def forget(ctx: Context, timer: str) -> str:
            await ctx.cancel(timer)
            return "forgotten"

        @plugin.command("tell")
        async def tell(ctx: Context, thread: str, text: str) -> str:
            await ctx.reply(text, thread=ThreadId(thread))
            return "told"

        @plugin.every(timedelta(seconds=30))
        async def tick(ctx: Context[ScheduleFired]) -> None:
            seen.note(replica, "", "tick")

        @plugin.on(BotStarted)
        async def started(ctx: Context[BotStarted]) -> None:
            seen.note(replica, "", "started")

        @plugin.on(BotStopping)
        async def stopping(ctx: Context[BotStopping]) -> None:
            seen.note(replica, "", "stopping")

        return [plugin]

    return plugins
