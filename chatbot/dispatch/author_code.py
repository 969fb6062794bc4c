"""Run code of plugins so that any error or cancellation that comes out of it fails only the current event.

Rules:
    1. Awaited code runs in its own asyncio task, inside a cancel scope created there. It is stopped only by that scope:
       a native `Task.cancel` would break `shield=True`.
    2. We stopped the code if and only if we called `scope.cancel()`. Neither `Task.cancelling` nor the state of an
       enclosing scope shows that, because handlers cancel tasks and leave scopes open.
    3. Everything else that comes out is a failure of the code, including `CancelledError` and the `RuntimeError` of a
       scope that was left open. If it is not an `Exception`, it is raised as `AbnormalExit`.
    4. `run` always waits for its task, even while it is being cancelled itself. The only exception is code that has not
       ended `ABANDON_SECONDS` after it was stopped. Such code is *abandoned*: `RunLimits.on_abandoned` is called first,
       and prevents its lane from starting other work until the task has ended.
    5. Tasks started by the code must not end the event loop either (`dispatch/plugin_tasks.py`).
    6. Synchronous code needs no task: everything that comes out of it is its own.

The code runs in a copy of the caller's context, so it sees its context variables (those of structlog and of traces).

Most handlers never suspend. For them, a task with its scope and two turns of the event loop would cost more than the
rest of a dispatch. `AuthorCode` therefore keeps a `SpareTask` while it is entered: a task that waits inside its scope.
The first step of the code runs as that task, without a turn of the event loop. If the code ends in this step and leaves
no trace on the task, the task is reused for the next event. Otherwise the task continues with the code and ends with
it, exactly as a task created for it would.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task  # documented, for those who implement tasks themselves
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import AbstractAsyncContextManager
from contextvars import Context, copy_context
from functools import partial
from sys import getrecursionlimit, getrefcount, setrecursionlimit
from typing import Any, Final, NamedTuple, ParamSpec, Protocol, Self, TypeVar
from weakref import getweakrefcount

import anyio.lowlevel
from anyio import CancelScope

from chatbot.dispatch.plugin_tasks import call_as_plugin, is_plugin_code
from chatbot.errors import AbnormalExit, plain_error

P = ParamSpec("P")
T = TypeVar("T")

SLOW_SECONDS: Final = 60.0
"""Seconds after which a running handler is reported."""

ABANDON_SECONDS: Final = 5.0
"""Seconds that code may take to end after it was stopped."""

_RECURSION_LIMIT: Final = getrecursionlimit()

IsFatal = Callable[[BaseException], bool]
"""Returns whether an error ends everything at once, instead of failing only the current event."""


class AuthorFunction(Protocol):
    """The owner of running code: a handler, an error handler, a supervised bot, …"""

    @property
    def name(self) -> str:
        """Qualified name of the function."""
        ...

    @property
    def place(self) -> str:
        """Where it is defined, as `file:line`; computed only for errors and reports."""
        ...


class FatalError(BaseException):
    """Wraps an error that ends everything, so that no handler of failures catches it; see `AuthorCode`."""

    def __init__(self, raised: BaseException) -> None:
        super().__init__(type(raised).__name__)
        self.raised = raised


class RunLimits(NamedTuple):
    """Time limit of code, and callbacks about its progress.

    Args:
        timeout: Seconds for code that sets no limit itself; None is unlimited.
        on_slow: Called on the event loop when code has run for `SLOW_SECONDS`.
        on_abandoned: Called when code did not stop, before anything else happens.
        on_started: Called when code starts.
        before: Awaited with the name of a handler or error handler before it runs; its errors are not failures of the
            handler.
        considered: Called with each handler that is tried and with what it would be called with; None if the event does
            not match. For an inspector.
    """

    timeout: float | None = None
    on_slow: Callable[[RunningCode], None] = lambda _running: None
    on_abandoned: Callable[[RunningCode], None] = lambda _running: None
    on_started: Callable[[RunningCode], None] = lambda _running: None
    before: Callable[[str], Awaitable[None]] | None = None
    considered: Callable[[Any, Any], None] | None = None


class Abandoned(TimeoutError):
    """Code of a plugin did not end after it was stopped; its task still runs."""

    def __init__(self, message: str, running: RunningCode) -> None:
        super().__init__(message)
        self.running = running


class AuthorCode:
    """Runs code of plugins for one bot. Enter it around all events to keep a spare task.

    Args:
        is_fatal: Selects errors that are raised as `FatalError`. Used by tests only: a `pytest.fail()` in a handler, or
            a real Ctrl-C, ends the test at once.
    """

    __slots__ = ("_entered", "_is_fatal", "_spare")

    def __init__(self, is_fatal: IsFatal | None = None) -> None:
        self._is_fatal = is_fatal
        self._entered = 0  # generations of a bot's plugins share it, and overlap
        self._spare: SpareTask | None = None

    async def __aenter__(self) -> Self:
        self._entered += 1
        if self._spare is None:
            self._spare = SpareTask()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._entered -= 1
        spare = self._spare
        if spare is not None and not self._entered:
            self._spare = None
            await spare.close()

    async def run(
        self,
        code: Coroutine[Any, Any, T],
        owner: AuthorFunction,
        *,
        timeout: float | None = None,
        limits: RunLimits | None = None,
        is_shared: bool = False,
    ) -> T:
        """Await code of a plugin.

        Args:
            code: The coroutine; it is always awaited or closed.
            owner: The function that it belongs to.
            timeout: Maximum seconds.
            limits: Callbacks about its progress.
            is_shared: All events depend on its task, so code of other events cannot cancel it where the event loop
                protects tasks.

        Raises:
            TimeoutError: It exceeded the timeout and was stopped.
            Abandoned: It exceeded the timeout and did not stop.
            AbnormalExit: It raised something other than an `Exception`, or was cancelled, but not by us.
            Exception: Any exception that it raised itself.
        """
        spare = self._spare
        if is_shared or spare is None or not spare.is_parked or spare.handed_over.done():
            running = RunningCode(owner, timeout, limits)
            running.start(code, is_shared=is_shared)
            if spare is None or spare.task.done():
                self._spare = SpareTask() if self._entered else None
        else:
            spare.is_parked = False  # what the code calls may run code itself
            begun = RunningCode(owner, timeout, limits, spare.task) if limits is not None else None
            try:
                rest = spare.step(code, owner.name)
                if rest is None and spare.is_untouched():
                    spare.is_parked = True
                    value: T = spare.result
                    return value
                rest = rest or Continuation(result=spare.result)
            except BaseException as raised:
                if spare.is_untouched():
                    spare.is_parked = True
                    failure = self.failure(raised)
                    if failure is raised:
                        raise
                    raise failure from failure.__cause__
                rest = Continuation(error=raised)
            running = begun or RunningCode(owner, timeout, limits, spare.task)
            running.resume(spare, rest)
            if self._spare is spare:
                self._spare = SpareTask()
        await running.ended()
        if running.is_abandoned:
            msg = (
                f"{owner.place}: {owner.name} did not end within {timeout or 0:g} s,"
                f" nor {ABANDON_SECONDS:g} s after it was canceled"
            )
            raise Abandoned(msg, running)
        if running.error is None and running.is_complete and not running.task.cancelled():
            result: T = running.result
            return result
        error = asyncio.CancelledError() if running.error is None else plain_error(running.error)
        if running.is_stopped and isinstance(error, asyncio.CancelledError):
            msg = f"{owner.place}: {owner.name} did not end within {timeout:g} s"
            raise TimeoutError(msg)
        raise self.failure(error)

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call synchronous code of a plugin; errors as for `run`."""
        try:
            return call_as_plugin(function, *args, **kwargs)
        except BaseException as error:
            failure = self.failure(error)
            if failure is error:
                raise
            raise failure from failure.__cause__

    def failure(self, error: BaseException) -> Exception:
        """Convert anything raised by code of a plugin to an `Exception` that is safe to handle.

        Raises:
            FatalError: The error ends everything.
        """
        error = plain_error(error)
        for leaf in leaf_errors(error):
            raised = leaf.raised if isinstance(leaf, AbnormalExit) else leaf
            if isinstance(raised, FatalError):
                raise raised
            if self._is_fatal is not None and self._is_fatal(raised):
                raise FatalError(raised) from None
        if isinstance(error, Exception):
            return error
        return AbnormalExit(error).with_traceback(error.__traceback__)


class RunningCode:
    """Code of a plugin that runs in its own task.

    Args:
        owner: The function that it belongs to; the task has its name.
        timeout: Maximum seconds from now on.
        limits: Callbacks about its progress.
        task: The task that runs its first step; None if `start` creates one.

    Attributes:
        task: The task.
        is_stopped: We have stopped it.
        is_abandoned: It did not end after that, and `ended` no longer waits for it.
        is_complete: It has returned.
        result: Its return value.
        error: The error that it raised instead.
    """

    __slots__ = (
        "_begun",
        "_limits",
        "_loop",
        "_scope",
        "_timeout",
        "_timer",
        "_waiter",
        "error",
        "is_abandoned",
        "is_complete",
        "is_stopped",
        "owner",
        "result",
        "task",
    )

    task: asyncio.Task[None]

    def __init__(
        self,
        owner: AuthorFunction,
        timeout: float | None = None,
        limits: RunLimits | None = None,
        task: asyncio.Task[None] | None = None,
    ) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self.owner = owner
        self._begun = 0.0 if timeout is None and limits is None else loop.time()
        self._timeout = timeout
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None
        self.is_stopped = False
        self.is_abandoned = False
        self.is_complete = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._scope: CancelScope | None = None
        self._waiter: asyncio.Future[None] | None = None
        if task is not None:
            self.task = task
            if limits is not None:
                limits.on_started(self)

    def start(self, code: Coroutine[Any, Any, Any], *, is_shared: bool = False) -> None:
        """Run the code in a new task."""
        make = self._loop.create_task if is_shared else partial(asyncio.Task, loop=self._loop)
        self.task = make(self._run(code), name=self.owner.name)
        if self._limits is not None:
            self._limits.on_started(self)
        self._start_timer()

    def resume(self, spare: SpareTask, rest: Continuation) -> None:
        """Run the rest of code whose first step ran as a spare task."""
        self._scope = spare.scope
        spare.take_over(self, rest)
        self._start_timer()

    def _start_timer(self) -> None:
        # Only one timer at a time, because most code ends long before the first one.
        if self._limits is not None and (self._timeout is None or self._timeout > SLOW_SECONDS):
            self._timer = self._loop.call_at(self._begun + SLOW_SECONDS, self._is_slow)
        elif self._timeout is not None:
            self._timer = self._loop.call_at(self._begun + self._timeout, self.stop)

    async def _run(self, code: Coroutine[Any, Any, Any]) -> None:
        """Body of the task. It never raises, because a task that raises SystemExit ends the event loop."""
        is_plugin_code.set(True)
        try:
            if self.is_stopped:
                code.close()
            else:
                with CancelScope() as self._scope:
                    self.result = await code
                    self.is_complete = True
        except BaseException as error:
            self.error = error
        finally:
            restore_recursion_limit()
            self.over()

    def over(self) -> None:
        """Cancel the timer and wake the waiting task; called when the task ends."""
        if self._timer is not None:
            self._timer.cancel()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def now(self) -> float:
        """Time of the event loop, in seconds; available outside tasks."""
        return self._loop.time()

    def _is_slow(self) -> None:
        self._timer = None
        if self._timeout is not None:
            self._timer = self._loop.call_later(self._timeout - SLOW_SECONDS, self.stop)
        if self._limits is not None:
            self._limits.on_slow(self)

    def _abandon(self) -> None:
        self._timer = None
        if self.task.done():
            return
        self.is_abandoned = True
        if self._limits is not None:
            self._limits.on_abandoned(self)
        self._wake()

    def stop(self) -> None:
        """Stop the code by cancelling its scope."""
        if not self.is_stopped:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(ABANDON_SECONDS, self._abandon)
        self.is_stopped = True
        if self._scope is not None:
            self._scope.cancel("chatbot stops this code")

    async def ended(self) -> None:
        """Wait until the code has ended or was abandoned. A cancellation of the waiting task takes effect later."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.stop()
            # Shielded: a cancelled scope keeps cancelling. A native cancellation comes once, and is raised below.
            with CancelScope(shield=True):
                while not (self.task.done() or self.is_abandoned):
                    self._waiter = self._loop.create_future()
                    try:
                        await self._waiter
                    except asyncio.CancelledError:
                        continue
            raise


class Continuation(Generator[Any, Any, Any]):
    """The rest of code after its first step; awaited once, by the task that ran the first step.

    It is not a native generator, because each step must run in the code's context instead of the task's, and because
    tools that look for the line where a task waits must find the code.

    Args:
        code: The coroutine; None if it has ended with `result` or `error`.
        context: The context in which it runs.
        awaited: The object that it waits for.
    """

    __slots__ = ("_awaited", "_cancelled", "_context", "_error", "_is_begun", "_is_marked", "_result", "code")

    def __init__(
        self,
        code: Coroutine[Any, Any, Any] | None = None,
        context: Context | None = None,
        awaited: Any = None,
        *,
        result: Any = None,
        error: BaseException | None = None,
    ) -> None:
        self.code = code
        self._context = context or copy_context()
        self._awaited = awaited
        # The flag by which a task distinguishes `await` from `yield`. It is restored for the task that continues. Until
        # then it is cleared, because other tasks may start to wait for the same future and expect it to be clear.
        self._is_marked = bool(getattr(awaited, "_asyncio_future_blocking", False))
        if self._is_marked:
            awaited._asyncio_future_blocking = False
        self._result = result
        self._error = error
        self._cancelled: BaseException | None = None
        self._is_begun = False

    def cancel(self, cancelled: asyncio.CancelledError) -> None:
        """Handle a cancellation of the task before it continues, as a task waiting for the same object would.

        Raises:
            CancelledError: The code has ended, so the task ends with this error.
        """
        if self.code is None:
            raise cancelled
        if not (asyncio.isfuture(self._awaited) and self._awaited.cancel()):
            self._cancelled = cancelled

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    def send(self, value: Any) -> Any:
        """Run a step; the first call only returns the object that the code waits for."""
        if self.code is None:
            if self._error is not None:
                raise self._error
            raise StopIteration(self._result)
        if self._is_begun:
            try:
                return self._context.run(self.code.send, value)
            finally:
                restore_recursion_limit()
        self._is_begun = True
        if self._cancelled is not None:
            return self.throw(self._cancelled)
        awaited: Any = self._awaited
        self._awaited = None
        if self._is_marked:
            awaited._asyncio_future_blocking = True
        return awaited

    def throw(self, *raised: Any) -> Any:
        """Run a step in which this error is raised."""
        assert self.code is not None
        return self._context.run(self.code.throw, *raised)

    def close(self) -> None:
        if self.code is not None:
            self._context.run(self.code.close)


class MarkedTask(asyncio.Task[None]):
    """A task that records whether attributes were set on it; asyncio's own task cannot list them.

    Attributes:
        is_marked: An attribute was set.
    """

    is_marked = False

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__("is_marked", True)
        super().__setattr__(name, value)


class SpareTask:
    """A task that waits inside its own scope for code, whose first step runs as this task.

    Attributes:
        task: The task.
        scope: Its scope, entered once it is parked.
        is_parked: It waits for code; false before its own first step, and while a step of code runs as this task.
        handed_over: The future that it waits for; done when it must continue, or when the task was cancelled.
        result: The return value of code that ended in its first step.
    """

    __slots__ = (
        "_is_cancelled",
        "_loop",
        "_references",
        "_rest",
        "_running",
        "_weak_references",
        "handed_over",
        "is_parked",
        "result",
        "scope",
        "task",
    )

    def __init__(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self.is_parked = False
        self.scope = CancelScope()
        self.handed_over: asyncio.Future[None] = loop.create_future()
        self._references = self._weak_references = 0
        self.result: Any = None
        self._running: RunningCode | None = None
        self._rest: Continuation | None = None
        self._is_cancelled = False  # in the first step, by the code
        # An empty context: the task outlives the event in which it is created, and must not keep its objects alive.
        self.task = MarkedTask(self._run(), loop=loop, name="chatbot.spare", context=Context())

    async def _run(self) -> None:
        """Body of the task; it never raises."""
        try:
            with self.scope:
                try:
                    self.is_parked = True
                    await self.handed_over
                except asyncio.CancelledError as cancelled:
                    if self._rest is None:
                        return  # it was dismissed, or all tasks of the loop are being cancelled
                    if self._rest.code is not None or self._is_cancelled:
                        self._rest.cancel(cancelled)  # otherwise the code had already ended, as its own task would have
                if self._running is not None and self._rest is not None:
                    self._running.result = await self._rest
                    self._running.is_complete = True
        except BaseException as error:
            if self._running is not None:
                self._running.error = error
        finally:
            if self._running is not None:
                self._running.over()

    def step(self, code: Coroutine[Any, Any, Any], name: str) -> Continuation | None:
        """Run the first step of code as this task; return the rest, or None if it has ended, with its `result` kept.

        The code sees this task as the current one, so it may open scopes and timeouts, start tasks, and cancel itself.

        Raises:
            BaseException: Anything that the code raised.
        """
        loop = self._loop
        caller: Any = asyncio.current_task(loop)
        before = is_plugin_code.set(True)  # the copy is the code's
        context = copy_context()
        is_plugin_code.reset(before)
        self.task.set_name(name)
        self._references = getrefcount(self.task)
        self._weak_references = getweakrefcount(self.task)
        _leave_task(loop, caller)
        _enter_task(loop, self.task)
        try:
            awaited = context.run(code.send, None)
        except StopIteration as stop:  # the code has ended; it cannot raise this itself
            self.result = stop.value
            return None
        finally:
            restore_recursion_limit()
            _leave_task(loop, self.task)
            _enter_task(loop, caller)
        return Continuation(code, context, awaited)

    def is_untouched(self) -> bool:
        """Return whether the ended code left no trace on the task, so that the task can be reused.

        Anything that could still affect the task refers to it: a scope, a timeout or a task group that was left open,
        or a handler that stores the task to cancel it later. Callbacks and attributes that the code left on the task
        are not references, so they are checked as well: they would leak into the next person's event. No code may hold
        the task of another event, so in doubt the task ends.
        """
        return (
            getrefcount(self.task) == self._references
            and getweakrefcount(self.task) == self._weak_references
            and not self.handed_over.done()
            and not self.task._callbacks
            and not self.task.is_marked
        )

    def take_over(self, running: RunningCode, rest: Continuation) -> None:
        """Let the task run the rest of the code, and end."""
        self._running, self._rest = running, rest
        self._is_cancelled = self.handed_over.done()
        self.dismiss()

    def dismiss(self) -> None:
        """Wake the task; it runs the rest of its code, if any, and ends."""
        self.is_parked = False
        if not self.handed_over.done():
            self.handed_over.set_result(None)

    async def close(self) -> None:
        """End the task; return when it has ended."""
        self.dismiss()
        with CancelScope(shield=True):
            await asyncio.wait([self.task])


def restore_recursion_limit() -> None:
    """Raise the recursion limit again if code of a plugin has lowered it: our own code would fail at once."""
    if getrecursionlimit() < _RECURSION_LIMIT:
        setrecursionlimit(_RECURSION_LIMIT)


class Uncancelled(AbstractAsyncContextManager[None]):
    """Protects our own work in the block, such as a loop of the bot, from cancellation by anything but our scopes.

    Otherwise a task cancelled by foreign code would end silently, and its task group with it. A scope keeps cancelling
    while it is cancelled, a native `Task.cancel` cancels once. So the next checkpoint shows which one it was.

    Raises:
        AbnormalExit: Foreign code cancelled the work.
    """

    async def __aenter__(self) -> None:
        """Do nothing."""

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, asyncio.CancelledError):
            await anyio.lowlevel.checkpoint_if_cancelled()
            raise AbnormalExit(error) from error


def leaf_errors(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of a group at any depth, or the error itself, all safe to handle (see `plain_error`)."""
    error = plain_error(error)
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from leaf_errors(part)
    else:
        yield error
