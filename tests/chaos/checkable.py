"""A bot whose every answer can be predicted: the plugin that real daemons run while they are killed.

It is copied beside the bots.yaml of a test, and stands alone there.
"""

from __future__ import annotations

import os
import signal

import anyio

from chatbot import Context, MessageEdited, Plugin

plugin = Plugin("checkable")
_shaken: set[str] = set()


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
