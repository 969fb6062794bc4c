"""Handlers that damage what they share with everybody: the event loop, threads, signals, files, Python itself.

Each command is run in a daemon of its own, beside a bot of another plugin. It is copied beside the bots.yaml of a test,
and stands alone there.
"""

from __future__ import annotations

import asyncio
import atexit
import builtins
import contextvars
import gc
import json
import locale
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import structlog

from chatbot import Context, Dialog, Event, MessageReceived, Plugin, Retry, State, TimerFired

plugin = Plugin("vandal")
HASTY = Retry(attempts=2, first=timedelta(milliseconds=100))
SOON = timedelta(seconds=1)
_kept: list[Any] = []


def attack(name: str, timeout: timedelta | None = None):  # type: ignore[no-untyped-def]
    return plugin.command(name, retry=HASTY, timeout=timeout or timedelta(minutes=10))


@plugin.message()
async def others(ctx: Context) -> str:
    """What is no command is answered."""
    return f"heard {ctx.text}"


def exits(*_: object) -> NoReturn:
    sys.exit(3)


def interrupts(*_: object) -> NoReturn:
    raise KeyboardInterrupt


# ── the event loop ────────────────────────────────────────────────────────────────────────────────────────────


@attack("call-soon")
async def call_soon(ctx: Context) -> str:
    asyncio.get_running_loop().call_soon(sys.exit)
    return "done"


@attack("call-later")
async def call_later(ctx: Context) -> str:
    asyncio.get_running_loop().call_later(0.05, interrupts)
    return "done"


@attack("from-thread")
async def from_thread(ctx: Context) -> str:
    await anyio.to_thread.run_sync(lambda: anyio.from_thread.run_sync(sys.exit))
    return "never"


@attack("bare-thread")
async def bare_thread(ctx: Context) -> str:
    loop = asyncio.get_running_loop()
    threading.Thread(target=lambda: loop.call_soon_threadsafe(exits)).start()
    return "done"


@attack("task")
async def task(ctx: Context) -> str:
    async def leave() -> None:
        exits()

    loop = asyncio.get_running_loop()
    loop.call_soon(lambda: _kept.append(loop.create_task(leave())), context=contextvars.Context())
    _kept.append(asyncio.create_task(leave()))
    return "done"


@attack("done-callback")
async def done_callback(ctx: Context) -> str:
    current = asyncio.current_task()
    assert current is not None
    current.add_done_callback(exits)
    made = asyncio.create_task(asyncio.sleep(0))
    made.add_done_callback(interrupts)
    await made
    return "done"


@attack("loop-stop")
async def loop_stop(ctx: Context) -> str:
    asyncio.get_running_loop().stop()
    return "done"


@attack("loop-close")
async def loop_close(ctx: Context) -> None:
    asyncio.get_running_loop().close()


@attack("loop-settings")
async def loop_settings(ctx: Context) -> str:
    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **_: Any) -> NoReturn:
        coro.close()
        raise ZeroDivisionError

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, _context: exits())
    loop.set_task_factory(factory)
    loop.set_debug(True)
    loop.call_soon(lambda: 1 / 0)
    return "done"


@attack("loop-policy")
async def loop_policy(ctx: Context) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asyncio.set_event_loop_policy(None)
        asyncio.set_event_loop(None)
    _kept.append(asyncio.new_event_loop())
    asyncio.set_event_loop(_kept[-1])
    return "done"


@attack("executor")
async def executor(ctx: Context) -> str:
    await asyncio.get_running_loop().shutdown_default_executor()
    return "done"


@attack("executor-full", timeout=SOON)
async def executor_full(ctx: Context) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(asyncio.to_thread(time.sleep, 4))


@attack("threads-full", timeout=SOON)
async def threads_full(ctx: Context) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(anyio.to_thread.run_sync, time.sleep, 8)


@attack("sweep")
async def sweep(ctx: Context) -> None:
    for found in asyncio.all_tasks():
        found.cancel()


@attack("sweep-quietly")
async def sweep_quietly(ctx: Context) -> str:
    for found in asyncio.all_tasks():
        with suppress(Exception):
            found.cancel()
    return "never"


@attack("sweep-thread")
async def sweep_thread(ctx: Context) -> str:
    loop = asyncio.get_running_loop()

    def cancel_all() -> None:
        for found in asyncio.all_tasks(loop):
            found.cancel()

    threading.Thread(target=lambda: loop.call_soon_threadsafe(cancel_all)).start()
    return "done"


@attack("sweep-hard")
async def sweep_hard(ctx: Context) -> None:
    for found in asyncio.all_tasks():
        asyncio.Task.cancel(found)
    await anyio.sleep(1)


# ── what is awaited ───────────────────────────────────────────────────────────────────────────────────────────


class Yields:
    """Awaiting it yields what no event loop knows."""

    def __init__(self, what: object) -> None:
        self.what = what

    def __await__(self) -> Generator[Any, Any, None]:
        yield self.what


@attack("yields")
async def yields(ctx: Context) -> None:
    await Yields(42)


@attack("yields-self")
async def yields_self(ctx: Context) -> None:
    current: Any = asyncio.current_task()
    await current


@attack("yields-other-loop")
async def yields_other_loop(ctx: Context) -> None:
    loop = asyncio.new_event_loop()
    try:
        await loop.create_future()
    finally:
        loop.close()


@attack("generator-left")
async def generator_left(ctx: Context) -> str:
    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await anyio.sleep(0.1)
            exits()

    left = endless()
    await anext(left)
    return "done"


@attack("generator-ignores")
async def generator_ignores(ctx: Context) -> None:
    async def words() -> AsyncIterator[str]:
        try:
            yield "a"
            await anyio.sleep(0.2)
            raise ValueError
        finally:
            yield "b"

    await ctx.stream(words())


@attack("recursion")
async def recursion(ctx: Context) -> None:
    await recursion(ctx)


@attack("recursion-limit")
async def recursion_limit(ctx: Context) -> str:
    with suppress(RecursionError):
        sys.setrecursionlimit(60)
    return "done"


# ── what is raised, what is returned ──────────────────────────────────────────────────────────────────────────


@attack("cycle")
async def cycle(ctx: Context) -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    one.__context__, two.__context__ = two, one
    raise one


@attack("deep-chain")
async def deep_chain(ctx: Context) -> None:
    first = error = ValueError("0")
    for number in range(50_000):
        error.__context__ = ValueError(str(number))
        error = error.__context__
    raise first


@attack("deep-group")
async def deep_group(ctx: Context) -> None:
    error: Exception = ValueError("0")
    for _ in range(5_000):
        error = ExceptionGroup("deep", [error])
    raise error


@attack("huge-error")
async def huge_error(ctx: Context) -> None:
    raise ValueError("x" * 50_000_000)


class Notes(Exception):
    @property
    def __notes__(self) -> NoReturn:
        exits()


@attack("notes")
async def notes(ctx: Context) -> None:
    raise Notes


@attack("huge-reply")
async def huge_reply(ctx: Context) -> str:
    return "x" * 50_000_000


@attack("many-replies")
async def many_replies(ctx: Context) -> None:
    for number in range(200_000):
        await ctx.reply(str(number))


@attack("huge-metadata")
async def huge_metadata(ctx: Context) -> None:
    await ctx.reply("x", metadata={"k" * 100_000: "v" * 1_000_000})


@dataclass(frozen=True)
class Nest:
    value: Any = None


@attack("deep-state")
async def deep_state(ctx: Context, nest: State[Nest]) -> str:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    nest.value = Nest(deep)
    return "done"


@attack("cyclic-state")
async def cyclic_state(ctx: Context, nest: State[Nest]) -> str:
    ring: list[Any] = []
    ring.append(ring)
    nest.value = Nest(ring)
    return "done"


@attack("returns-coroutine")
async def returns_coroutine(ctx: Context) -> Any:
    return others(ctx)


@attack("returns-generator")
async def returns_generator(ctx: Context) -> Any:
    return (text for text in "abc")


@attack("returns-error")
async def returns_error(ctx: Context) -> Any:
    return ValueError("x")


class Odd:
    def __eq__(self, other: object) -> bool:
        exits()

    def __bool__(self) -> bool:
        exits()

    def __repr__(self) -> str:
        exits()

    def __hash__(self) -> int:
        exits()

    def __del__(self) -> None:
        exits()


@attack("returns-odd")
async def returns_odd(ctx: Context) -> Any:
    return Odd()


@attack("odd-metadata")
async def odd_metadata(ctx: Context) -> None:
    await ctx.reply("x", metadata={"k": Odd()})  # type: ignore[dict-item]


# ── what is shared by all ─────────────────────────────────────────────────────────────────────────────────────


@attack("finalizer")
async def finalizer(ctx: Context) -> str:
    class Last:
        def __del__(self) -> None:
            exits()

    ring = [Last()]
    ring.append(ring)  # type: ignore[arg-type]
    del ring
    gc.collect()
    return "done"


@attack("signals")
async def signals(ctx: Context) -> str:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return "done"


@attack("loop-signals")
async def loop_signals(ctx: Context) -> str:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: None)
        loop.remove_signal_handler(number)
    return "done"


class Alarm(Exception):
    pass


@attack("alarm")
async def alarm(ctx: Context) -> str:
    def ring(*_: object) -> NoReturn:
        raise Alarm

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    return "done"


@attack("stdio")
async def stdio(ctx: Context) -> str:
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    return "done"


@attack("stderr")
async def stderr(ctx: Context) -> str:
    sys.stderr.close()
    sys.stdout.close()
    return "done"


@attack("chdir")
async def chdir(ctx: Context) -> str:
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir(os.getcwd())
    return "done"


@attack("umask")
async def umask(ctx: Context) -> str:
    os.umask(0o777)
    return "done"


@attack("locale")
async def change_locale(ctx: Context) -> str:
    locale.setlocale(locale.LC_ALL, "C")
    os.environ["TZ"] = "Asia/Kathmandu"
    time.tzset()
    os.environ.clear()
    return "done"


@attack("wall-clock")
async def wall_clock(ctx: Context) -> str:
    time.time = lambda: 0.0
    time.time_ns = lambda: 0
    return "done"


@attack("sleepless")
async def sleepless(ctx: Context) -> str:
    def never(*_: object) -> NoReturn:
        raise RuntimeError

    time.sleep = never
    random.random = never  # type: ignore[assignment]
    builtins.print = never  # type: ignore[assignment]
    builtins.input = never  # type: ignore[assignment]
    return "done"


@attack("dice")
async def dice(ctx: Context) -> str:
    random.seed(0)
    return "done"


@attack("logging")
async def log(ctx: Context) -> str:
    logging.basicConfig(force=True, level=logging.CRITICAL)
    logging.disable(logging.CRITICAL)
    logging.shutdown()
    logging.getLogger().handlers.clear()
    return "done"


@attack("structlog")
async def structured(ctx: Context) -> str:
    def fail(*_: object) -> NoReturn:
        raise ValueError

    structlog.configure(processors=[fail], cache_logger_on_first_use=False)
    structlog.contextvars.bind_contextvars(event="x", bot="y", exc_info=True)
    return "done"


@attack("warnings")
async def warn(ctx: Context) -> str:
    warnings.simplefilter("error")
    warnings.showwarning = exits  # type: ignore[assignment]
    return "done"


@attack("hooks")
async def hooks(ctx: Context) -> str:
    sys.excepthook = sys.unraisablehook = threading.excepthook = exits  # type: ignore[assignment]
    gc.callbacks.append(exits)
    gc.collect()
    threading.Thread(target=exits).start()
    return "done"


@attack("socket-timeout")
async def socket_timeout(ctx: Context) -> str:
    socket.setdefaulttimeout(0.000001)
    return "done"


@attack("at-exit")
async def at_exit(ctx: Context) -> str:
    atexit.register(time.sleep, 600)
    return "done"


@attack("fork")
async def fork(ctx: Context) -> str:
    if os.fork() == 0:
        await anyio.lowlevel.checkpoint()
    return "done"


@attack("many-threads")
async def many_threads(ctx: Context) -> str:
    gate = threading.Event()
    for _ in range(500):
        threading.Thread(target=gate.wait, args=(3,)).start()
    return "done"


@attack("json")
async def encode(ctx: Context) -> str:
    def never(*_: object, **__: object) -> NoReturn:
        raise ValueError

    json.dumps = json.loads = never  # type: ignore[assignment]
    return "done"


# ── the context ───────────────────────────────────────────────────────────────────────────────────────────────


@attack("late-reply")
async def late_reply(ctx: Context) -> str:
    async def later() -> None:
        await anyio.sleep(0.3)
        await ctx.reply("late")

    _kept.append(asyncio.create_task(later()))
    return "done"


@attack("parallel")
async def parallel(ctx: Context) -> str:
    await asyncio.gather(*(ctx.reply(str(number)) for number in range(3)))
    return "done"


@attack("asks-twice")
async def asks_twice(talk: Dialog) -> str:
    await asyncio.gather(talk.ask("one?"), talk.ask("two?"))
    return "done"


@plugin.timer(retry=HASTY)
async def ring(ctx: Context[TimerFired]) -> None:
    exits()


@attack("timers")
async def timers(ctx: Context) -> str:
    for _ in range(100):
        await ctx.later(timedelta(0), ring)
    return "done"


def quarrel(event: Event) -> bool:
    return isinstance(event, MessageReceived) and event.message.content == "/filter" and bool(Odd())


@plugin.message(quarrel, retry=HASTY)
async def filtered(ctx: Context) -> str:
    return "never"


@attack("steps")
async def steps(ctx: Context) -> str:
    def step(*_: object) -> None:
        return None

    sys.settrace(step)  # type: ignore[arg-type]
    threading.settrace(step)  # type: ignore[arg-type]
    return "done"


@attack("iterates")
async def iterates(ctx: Context) -> None:
    class Words:
        def __aiter__(self) -> Iterator[str]:
            exits()

    await ctx.stream(Words())  # type: ignore[arg-type]
