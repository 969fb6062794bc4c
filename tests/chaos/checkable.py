"""A bot whose every answer can be predicted: the plugin that real daemons run while they are killed.

It is copied beside the bots.yaml of a test, and stands alone there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import anyio

from chatbot import Context, MessageEdited, Plugin, Retry, State

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


# ── handlers that do to their bot what they can ───────────────────────────────────────────────────────────────

HASTY = Retry(attempts=2, first=timedelta(milliseconds=100))
SOON = timedelta(seconds=1)
_open: list[anyio.CancelScope] = []


class Unreadable(Exception):
    """Cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError


@plugin.command("exit", retry=HASTY)
async def leave(ctx: Context, number: int) -> None:
    """End the process, in order, as argparse does."""
    sys.exit(2)


@plugin.command("interrupt", retry=HASTY)
async def interrupt(ctx: Context, number: int) -> None:
    """Raise several errors that are no exceptions."""
    raise BaseExceptionGroup("several", [KeyboardInterrupt(), GeneratorExit()])


@plugin.command("cancel", retry=HASTY)
async def cancel(ctx: Context, number: int) -> None:
    """Cancel the task it runs in, and wait."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await anyio.sleep(0.1)


@plugin.command("await", retry=HASTY)
async def await_canceled(ctx: Context, number: int) -> None:
    """Await a task that was canceled."""
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task


@plugin.command("scope", retry=HASTY)
async def leave_open(ctx: Context, number: int) -> None:
    """Leave a cancel scope open."""
    _open.append(anyio.CancelScope().__enter__())


@plugin.command("hang", retry=HASTY, timeout=SOON)
async def hang(ctx: Context, number: int) -> None:
    """Never end by itself."""
    await anyio.sleep_forever()


@plugin.command("swallow", retry=HASTY, timeout=SOON)
async def swallow(ctx: Context, number: int) -> None:
    """End a little later than its cancellation."""
    end = time.monotonic() + 3
    while time.monotonic() < end:
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            continue
    raise TimeoutError


@plugin.command("thread", retry=Retry(attempts=1), timeout=SOON)
async def block_thread(ctx: Context, number: int, seconds: float = 15.0) -> None:
    """Wait for a thread that nobody can end: the handler is abandoned until then."""
    await anyio.to_thread.run_sync(_block, Path(__file__).with_name("stuck"), seconds)


def _block(directory: Path, seconds: float) -> None:
    """Sleep beside a file that says so to whoever watches from outside: its name begins with the process id."""
    directory.mkdir(exist_ok=True)
    file = directory / f"{os.getpid()}-{threading.get_ident()}"
    file.touch()
    time.sleep(seconds)
    file.unlink()


@plugin.command("block", retry=HASTY)
async def block_loop(ctx: Context, number: int) -> None:
    """Block the event loop for a moment, then fail."""
    time.sleep(0.3)  # noqa: ASYNC251 - that is the point
    raise RuntimeError


@plugin.command("unreadable", retry=HASTY)
async def unreadable(ctx: Context, number: int) -> None:
    """Raise what cannot be shown."""
    raise Unreadable


@plugin.command("unstorable", retry=HASTY)
async def unstorable(ctx: Context, counted: State[Count], number: int) -> None:
    """Leave a state that has no stored form."""
    counted.value = Count(object())  # type: ignore[arg-type]


@plugin.command("bytes", retry=HASTY)
async def reply_bytes(ctx: Context, number: int) -> None:
    """Reply with what is no text."""
    await ctx.reply(b"\xff")  # type: ignore[call-overload]


@plugin.command("half", retry=HASTY)
async def half_a_key(ctx: Context, number: int) -> None:
    """Use half an emoji where it can be no text that people read."""
    await ctx.reply("half", metadata={"half": "\ud83d"})
