"""The event loop that bots run on: uvloop if it is installed (the extra `uvloop`), else asyncio.

Code of plugins runs on the same loop and can reach it, so the loop defends itself:

* asyncio and uvloop raise SystemExit and KeyboardInterrupt of a callback out of `run_forever`, and stay intact. The
  callback may be a plugin's (`loop.call_soon(sys.exit)`), so it is logged, and the loop goes on. A real Ctrl-C is none:
  `ForcedExit` handles the signal. `loop.stop` has no effect either: only the end of the main task ends the loop.
* Tasks of chatbot and its libraries can be cancelled by them, not by code of plugins. A handler that cancels
  `asyncio.all_tasks()` would otherwise end every bot; now it fails.
* A plugin's task factory makes the tasks that code of plugins starts, and no others.
* A copy of the process that a plugin has forked ends when it comes back to the loop: it would answer everybody again.

Nothing of this is on the path of a message: tasks and callbacks are run by the loop's own code.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from time import monotonic as _monotonic  # a plugin may replace that of the module
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple

import anyio
import structlog

from chatbot.dispatch.plugin_tasks import StartedTask, running_our_code, runs_plugin_code
from chatbot.dispatch.source_location import place_of_error
from chatbot.distribution import install_command
from chatbot.errors import ChatbotError, ConfigError, StateError, kind_of

T = TypeVar("T")
Args = TypeVarTuple("Args")

VARIABLE: Final = "CHATBOT_EVENT_LOOP"
"""The environment variable that chooses the event loop: `asyncio` or `uvloop`."""

GARBAGE_THRESHOLD: Final = 5_000
"""New objects after which Python looks for garbage in cycles. At its own threshold of 700, the dozens of requests in
flight are looked through again and again: a tenth of the processor time of a bot, for next to no garbage."""

ASYNCIO: Final = "asyncio"
UVLOOP: Final = "uvloop"


def chosen(environ: Mapping[str, str]) -> str:
    """Return the event loop to use, `asyncio` or `uvloop`.

    Args:
        environ: may hold `CHATBOT_EVENT_LOOP`.

    Raises:
        ConfigError: the variable names an unknown event loop, or one that is not installed.
    """
    named = environ.get(VARIABLE, "")
    is_installed = find_spec(UVLOOP) is not None
    if not named:
        return UVLOOP if is_installed else ASYNCIO
    if named not in (ASYNCIO, UVLOOP):
        msg = f"the environment variable {VARIABLE} is {named!r}; it can be {ASYNCIO} or {UVLOOP}"
        raise ConfigError(msg)
    if named == UVLOOP and not is_installed:
        remedy = install_command("uvloop")
        msg = f"the environment variable {VARIABLE} asks for uvloop, which is not installed: {remedy}"
        raise ConfigError(msg)
    return named


class BotTask(asyncio.Task[Any]):
    """A task of chatbot or of a library that it uses. Code of plugins cannot cancel it."""

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the task.

        Raises:
            StateError: code of a plugin asks for it.
        """
        if runs_plugin_code(True) and not _is_cancelled_by_us(sys._getframe(1)):
            text = "this task belongs to chatbot; code of a plugin may cancel only its own tasks"
            raise StateError(text)
        return super().cancel(msg)


def _is_cancelled_by_us(caller: FrameType | None) -> bool:
    """Return whether a task is cancelled by a scope or a connection of ours that ends while code of a plugin runs.

    asyncio hands the cancellation of a task on to the tasks that it waits for, some of it through its own functions.
    """
    while caller is not None:
        root = str(caller.f_globals.get("__name__")).partition(".")[0]
        if root != "asyncio":
            return root in _CANCELERS or caller.f_code is BotTask.cancel.__code__
        caller = caller.f_back
    return False


RESOLVERS: Final = 4
"""How many host names are resolved at the same time."""

_CANCELERS: Final = frozenset(("anyio", "aiohttp"))
"""Libraries that cancel only tasks that they were given for this, whoever makes them do it."""

if TYPE_CHECKING:
    _Loop = asyncio.BaseEventLoop
else:
    _Loop = object


class BotLoop(_Loop):
    """What makes an event loop survive code of plugins; a mix-in for the loops of asyncio and uvloop."""

    guards_tasks: Final = True
    _main: asyncio.Future[Any] | None = None
    _pid = 0

    def run_until_complete(self, future: Any) -> Any:
        """Run until a future is done, and return its result."""
        main = asyncio.ensure_future(future, loop=self)
        before, self._main = self._main, main
        try:
            return super().run_until_complete(main)
        finally:
            self._main = before

    def run_forever(self) -> None:
        """Run until what `run_until_complete` waits for is done, whatever callbacks raise."""
        escapes = Escapes()
        self._pid = os.getpid()
        while True:
            main = self._main
            try:
                super().run_forever()
            except BaseException as error:
                self.end_copy()
                if main is None or (main.done() and not main.cancelled() and main.exception() is error):
                    raise
                if not (isinstance(error, SystemExit | KeyboardInterrupt) or escapes.are_few()):
                    raise
                _log_escape(error)
            # asyncio forgets a stop that was asked for when a callback raises; a stop by anybody else is ignored.
            if main is None or main.done():
                return

    def end_copy(self) -> None:
        """End this process if it is a copy, forked from the one that the loop was made for."""
        if os.getpid() != self._pid:
            os._exit(1)

    def stop_copy(self) -> None:
        """Have a process that was just forked end as soon as it comes back to the loop, before it runs anything."""
        if self.is_running():
            ready: deque[object] | None = getattr(self, "_ready", None)  # asyncio's; uvloop runs what is ready
            if ready is not None:
                ready.clear()
            self.call_soon(self.end_copy)

    def create_task(self, coro: Coroutine[Any, Any, T], **options: Any) -> asyncio.Task[T]:  # type: ignore[override]
        """Start a task; whose it is depends on who starts it."""
        if not runs_plugin_code(False):
            return BotTask(coro, loop=self, **options)
        guarded = StartedTask(coro) if asyncio.iscoroutine(coro) else coro
        factory = self.get_task_factory()
        if factory is None:
            return asyncio.Task(guarded, loop=self, **options)
        return super().create_task(guarded, **options)


class Escapes:
    """Counts what comes out of the loop itself, rather than out of a callback.

    A signal handler of a plugin, such as that of an alarm, may raise while the loop waits: that happens once. A loop
    that is broken, as without its file descriptors, fails again at once.
    """

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=10)

    def are_few(self) -> bool:
        """Count one more; return whether the loop may go on."""
        self._times.append(_monotonic())
        return len(self._times) < 10 or self._times[-1] - self._times[0] > 1.0


def _log_escape(error: BaseException) -> None:
    with suppress(Exception):  # nothing may end the loop
        at, callback = place_of_error(error, is_own=True), _callback_of(error.__traceback__)
        structlog.get_logger().error("callback.failed", kind=kind_of(error), at=at, callback=callback, exc_info=error)


def _callback_of(trace: TracebackType | None) -> str | None:
    """Return the name of the callback that the loop was running; uvloop does not tell it."""
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code is asyncio.Handle._run.__code__:
            callback = frame.f_locals["self"]._callback
            return str(getattr(callback, "__qualname__", type(callback).__qualname__))
        trace = trace.tb_next
    return None


class AsyncioLoop(BotLoop, asyncio.ProactorEventLoop if sys.platform == "win32" else asyncio.SelectorEventLoop):  # type: ignore[misc]
    """The event loop of asyncio.

    Host names are resolved in threads of its own: those of `asyncio.to_thread` may all wait for a plugin.
    """

    _resolvers: ThreadPoolExecutor | None = None

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Resolve a host name, as `socket.getaddrinfo` does."""
        if self._resolvers is None:
            self._resolvers = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="chatbot-resolver")
        return await self.run_in_executor(self._resolvers, partial(socket.getaddrinfo, host, port, **options))

    def close(self) -> None:
        """Close the loop, and let its threads end."""
        if self._resolvers is not None:
            self._resolvers.shutdown(wait=False)
        super().close()


def _new_loop(name: str) -> BotLoop:
    loop = AsyncioLoop() if name == ASYNCIO else _uvloop()
    if hasattr(os, "register_at_fork"):
        known = weakref.ref(loop)

        def forked() -> None:
            loop = known()
            if loop is not None:
                loop.stop_copy()

        os.register_at_fork(after_in_child=forked)
    return loop


def _uvloop() -> BotLoop:
    import uvloop  # an extra

    class UvloopLoop(BotLoop, uvloop.Loop):  # type: ignore[misc]
        """The event loop of uvloop."""

    return UvloopLoop()


def running() -> str:
    """Return the event loop that runs now, `asyncio` or `uvloop`."""
    loop = asyncio.get_running_loop()
    return UVLOOP if any(base.__module__.partition(".")[0] == UVLOOP for base in type(loop).__mro__) else ASYNCIO


def run(loop: str, function: Callable[[*Args], Awaitable[T]], *args: *Args) -> T:
    """Run a coroutine function on an event loop from `chosen`, and return its result.

    Raises:
        ChatbotError: all of it was canceled, by code of a plugin.
    """
    streams = sys.stdout, sys.stderr
    thresholds = young, *others = gc.get_threshold()
    if young:  # 0 is off
        gc.set_threshold(max(young, GARBAGE_THRESHOLD), *others)
    try:
        with running_our_code():
            return anyio.run(function, *args, backend_options={"loop_factory": lambda: _new_loop(loop)})
    except asyncio.CancelledError as error:
        msg = "code of a plugin canceled all tasks of the process, which ends; the next start counts it as a kill"
        raise ChatbotError(msg) from error
    finally:
        # A handler may have replaced them, and Python exits with a code of its own if it cannot flush them at the end.
        sys.stdout, sys.stderr = streams
        gc.set_threshold(*thresholds)
