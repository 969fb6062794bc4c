"""Virtual time: an event loop whose clock jumps to the next deadline instead of waiting for it.

Production code runs unchanged: it asks its event loop for the time and for wake-ups. Real sockets, pipes and processes
are refused, because time does not jump for them. While worker threads of anyio or asyncio run, or a store works on
threads of its own (`store_in_real_time`), virtual time stands still. When nothing is ready or scheduled and no thread
works, the loop raises `Stuck` with the places where tasks wait, so that no test hangs.

The pytest plugin uses it for the tests that ask for it; so does the harness.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import selectors
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextvars import Context
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypeVar, TypeVarTuple, Unpack, cast

import anyio

from chatbot.errors import ChatbotError, StateError

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

    from chatbot.stores.base import Store


def store_in_real_time(store: Store, loop: VirtualTimeLoop) -> Store:
    """Return the store wrapped so that virtual time stands still while it works.

    Args:
        store: any store.
        loop: the loop whose time stands still.
    """
    return cast("Store", _RealTimeStore(store, loop))


class _RealTimeStore:
    def __init__(self, store: Store, loop: VirtualTimeLoop) -> None:
        self._store = store
        self._loop = loop

    async def __aenter__(self) -> Self:
        with self._loop.work_outside():
            await self._store.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with self._loop.work_outside():
            await self._store.__aexit__(*exc_info)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._wait_for(found) if inspect.iscoroutinefunction(found) else found

    def _wait_for(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def wait(*args: Any, **options: Any) -> Any:
            with self._loop.work_outside():
                return await call(*args, **options)

        return wait


T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START: Final = datetime(2024, 1, 1, tzinfo=UTC)
"""Start of a virtual clock: a Monday, the first hour of a leap year, and before any real token expires."""

MAX_REAL_SECONDS: Final = 20.0
"""Real seconds that virtual time may stand still, because threads work or tasks never wait for time."""

ROUNDS_PER_CHECK: Final = 1024
"""Rounds of the loop between two checks of the real time."""

REFUSAL: Final = (
    "a test on virtual time tried to wait for {what}, where time does not jump. Keep the test in its process "
    "(chatbot.testing.chat does), or let it run in real time: without the virtual_time marker or fixture."
)

IDLE: Final = "nothing is ready, nothing is scheduled and no thread is at work, so this test would wait forever"
BUSY: Final = (
    f"for {MAX_REAL_SECONDS:.0f} real seconds tasks have woken each other without waiting for time to "
    "pass, so virtual time does not advance: an endless loop, or very much work"
)

LIBRARIES: Final = (
    contextlib.__file__,
    *(os.path.dirname(file) + os.sep for file in (asyncio.__file__, anyio.__file__, os.path.dirname(__file__))),
)
"""Directories of libraries, whose frames do not tell a test author where a task waits."""


class Stuck(ChatbotError):
    """All tasks wait, and no task, timer or thread can wake them; the message names the places."""


class JumpingSelector(selectors.DefaultSelector):
    """Selector that never waits: if nothing is ready, its clock jumps to the next deadline."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._rounds = 0
        self._moved: float | None = None
        self.threads = 0
        """Number of calls in threads that have not returned."""

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        """Accept the loop's own wake-up pipe, which is registered first, and refuse everything else."""
        if self.get_map():
            raise StateError(REFUSAL.format(what=f"a real socket or pipe ({_describe(fileobj)})"))
        return super().register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; if nothing is, let threads finish, then jump by `timeout` seconds."""
        ready = super().select(0)
        if ready or timeout == 0:
            self._check_progress()
            return ready
        self._rounds, self._moved = 0, None
        ready = self._let_threads_finish()
        if ready:
            return ready
        if timeout is None:
            raise _stuck(IDLE)
        self.now += timeout
        return []

    def _check_progress(self) -> None:
        """Detect tasks that wake each other forever without a pause, so that time never advances."""
        self._rounds += 1
        if self._rounds % ROUNDS_PER_CHECK:
            return
        now = time.monotonic()
        self._moved = self._moved or now
        if now - self._moved > MAX_REAL_SECONDS:
            raise _stuck(BUSY)

    def _let_threads_finish(self) -> list[tuple[selectors.SelectorKey, int]]:
        give_up = time.monotonic() + MAX_REAL_SECONDS
        while time.monotonic() < give_up:
            busy = self.threads > 0 or _anyio_threads_at_work()
            ready = super().select(0)  # after checking the threads: one that just finished has woken the loop by now
            if ready or not busy:
                return ready
            ready = super().select(0.02)
            if ready:
                return ready
        msg = f"a worker thread kept a test on virtual time waiting for {MAX_REAL_SECONDS:.0f} real seconds"
        raise Stuck(msg)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time, which starts at 0 seconds.

    Args:
        selector: of this loop alone.
    """

    def __init__(self, selector: JumpingSelector | None = None) -> None:
        self._jumping = selector or JumpingSelector()
        super().__init__(self._jumping)
        # A timer is due within this of its deadline. asyncio's nanosecond is lost in a float's rounding after half
        # a year of virtual time, and a timer that is never quite due would spin for ever.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Return the virtual seconds since the loop was created."""
        return self._jumping.now

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Schedule a callback. If it is due sooner than the clock can tell, the clock advances before it is called.

        Timers fire up to a resolution early. Tasks that then wait for the rest would otherwise wake each other, and the
        rest would never pass.
        """
        now = self.time()
        if now < when < now + self._clock_resolution:
            when = now + 2 * self._clock_resolution
        return super().call_at(when, callback, *args, context=context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run a function in a thread while virtual time stands still."""
        future = super().run_in_executor(executor, func, *args)
        self._jumping.threads += 1
        future.add_done_callback(self._count_back)
        return future

    def _count_back(self, _future: asyncio.Future[Any]) -> None:
        self._jumping.threads -= 1

    @contextlib.contextmanager
    def work_outside(self) -> Iterator[None]:
        """Stop virtual time inside this block, for threads that the loop does not know of."""
        self._jumping.threads += 1
        try:
            yield
        finally:
            self._jumping.threads -= 1

    async def shutdown_default_executor(self, *args: Any, **options: Any) -> None:
        """Shut down the executor; asyncio starts another thread to wait for its threads."""
        with self.work_outside():
            await super().shutdown_default_executor(*args, **options)

    async def _refuse(self, *_args: Any, **_options: Any) -> NoReturn:
        """Refuse before a socket is opened or a process is started that nobody would close."""
        raise StateError(REFUSAL.format(what="a real connection, server or process"))

    create_connection = create_server = create_datagram_endpoint = _refuse
    create_unix_connection = create_unix_server = _refuse
    subprocess_exec = subprocess_shell = _refuse

    def run_until_complete(self, future: Any) -> Any:
        """Run until `future` is done; if it gets stuck, cancel it, so that it cleans up, and raise `Stuck`."""
        task = asyncio.ensure_future(future, loop=self)
        try:
            return super().run_until_complete(task)
        except Stuck:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                super().run_until_complete(task)
            raise


class VirtualClock:
    """A wall clock on virtual time: `time.time()` for the emulator, the store and tokens.

    Args:
        loop: the loop whose time it shows; by default the running loop at each call.
        start: the time that it shows when the loop's time is 0.

    Raises:
        StateError: the loop is not on virtual time.
    """

    def __init__(self, loop: VirtualTimeLoop | None = None, *, start: datetime = START) -> None:
        self._loop = loop
        self._start = start.timestamp()

    def __call__(self) -> float:
        """Return epoch seconds, like `time.time()`."""
        loop = self._loop or virtual_loop()
        if loop is None:
            msg = (
                "the virtual clock was asked for the time outside of a test on virtual time: mark the test "
                "@pytest.mark.virtual_time, and ask inside it"
            )
            raise StateError(msg)
        return self._start + loop.time()

    def now(self) -> datetime:
        """Return the time as an aware datetime in UTC."""
        return datetime.fromtimestamp(self(), UTC)


def virtual_loop() -> VirtualTimeLoop | None:
    """Return the running loop if it is on virtual time, else None."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop if isinstance(loop, VirtualTimeLoop) else None


def _anyio_threads_at_work() -> bool:
    """Return whether a thread of anyio works for the running loop. There is no API for it, so threads are inspected."""
    loop = asyncio.get_running_loop()
    return any(
        getattr(thread, "loop", None) is loop and thread.queue.unfinished_tasks  # type: ignore[attr-defined]
        for thread in threading.enumerate()
        if thread.name == "AnyIO worker thread"
    )


def _describe(fileobj: FileDescriptorLike) -> str:
    return repr(fileobj) if not isinstance(fileobj, int) else f"file descriptor {fileobj}"


def _stuck(reason: str) -> Stuck:
    return Stuck(f"{reason}. Waiting are:\n{waiting_places(asyncio.all_tasks())}")


def waiting_places(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """Return where tasks wait, one line each: tasks of tests and bots or, if there are none, those inside libraries."""
    places = [(task.get_name(), *_place(task)) for task in tasks]
    own = [place for place in places if place[1]]
    return "\n".join(sorted(f"  {name}: {line}" for name, _, line in own or places))


def _place(task: asyncio.Task[Any]) -> tuple[bool, str]:
    """Return whether a task waits in code outside libraries, and the innermost line of that code or of the library."""
    frames = list(_frames(task.get_coro()))
    own = [frame for frame in frames if not frame.f_code.co_filename.startswith(LIBRARIES)]
    if not frames:
        return False, "not started"
    frame = (own or frames)[-1]
    return bool(own), f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def _frames(waiting: object) -> Iterator[FrameType]:
    """Return the frames of a suspended coroutine and of everything that it awaits, outermost first."""
    while waiting is not None:
        if inspect.iscoroutine(getattr(waiting, "code", None)):  # a task that plugin code has started
            waiting = waiting.code  # type: ignore[attr-defined]
        if inspect.iscoroutine(waiting):
            frame, waiting = waiting.cr_frame, waiting.cr_await
        elif inspect.isasyncgen(waiting):
            frame, waiting = waiting.ag_frame, waiting.ag_await
        elif inspect.isgenerator(waiting):
            frame, waiting = waiting.gi_frame, waiting.gi_yieldfrom
        else:  # `async for` awaits a step of a generator, which has no frame but refers to what it steps
            waiting = next(filter(inspect.isasyncgen, gc.get_referents(waiting)), None)
            continue
        if frame is not None:
            yield frame


__all__ = ["START", "Stuck", "VirtualClock", "VirtualTimeLoop", "virtual_loop", "waiting_places"]
