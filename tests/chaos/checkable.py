"""A bot whose every answer can be predicted: the plugin that real daemons run while they are killed.

It is copied beside the bots.yaml of a test, and stands alone there.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio

from chatbot import Context, MessageEdited, Plugin, State

plugin = Plugin("checkable")
_shaken: set[str] = set()


@dataclass(frozen=True)
class Count:
    """How often a thread was counted in."""

    value: int = 0


@plugin.message()
async def say(ctx: Context) -> str:
    """`say 7` is answered with `7`."""
    return ctx.text.removeprefix("say ")


@plugin.on(MessageEdited)
async def edited(ctx: Context[MessageEdited]) -> str:
    """A correction to `say 7 anew` is answered with `7 anew`."""
    return ctx.text.removeprefix("say ")


@plugin.command("two")
async def two(ctx: Context, number: int) -> None:
    """Answer in two messages."""
    await ctx.reply(f"{number} a")
    await ctx.reply(f"{number} b")


@plugin.command("fix")
async def fix(ctx: Context, number: int) -> None:
    """Answer, and correct the answer."""
    draft = await ctx.reply(f"{number} draft")
    await draft.edit(f"{number} fixed")


@plugin.command("count")
async def count(ctx: Context, counted: State[Count], number: int) -> str:
    """Answer which count of the thread this is."""
    counted.value = Count(counted.value.value + 1)
    return f"{number} is {counted.value.value}"


@plugin.command("tell")
async def tell(ctx: Context, number: int) -> None:
    """Answer in one message that grows."""
    await ctx.stream(_told(number))


async def _told(number: int) -> AsyncIterator[str]:
    for word in (str(number), " once", " upon", " a", " time"):
        yield word
        await anyio.sleep(0.3)


@plugin.command("shaky")
async def shaky(ctx: Context, number: int) -> str:
    """Fail the first time."""
    if ctx.event.key not in _shaken:
        _shaken.add(ctx.event.key)
        message = "the first attempt in a process fails"
        raise RuntimeError(message)
    return str(number)


@plugin.command("slow")
async def slow(ctx: Context, number: int, seconds: float = 1.0) -> str:
    """Take a while."""
    await anyio.sleep(seconds)
    return str(number)


@plugin.command("poison")
async def poison(ctx: Context, number: int) -> str:
    """Fail every time."""
    message = "this never succeeds"
    raise RuntimeError(message)


@plugin.command("die")
async def die(ctx: Context, number: int, how: str = "exit") -> str:
    """Take the whole process down."""
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(9)
