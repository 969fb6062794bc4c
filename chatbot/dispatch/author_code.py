"""Runs code of plugins so that whatever comes out of it is a failure of the event in hand, and of nothing else.

Rules:
    1. Awaited code runs in an asyncio task of its own, inside a cancel scope that is made there. It is stopped by that
       scope only: a native `Task.cancel` would break `shield=True`.
    2. It was stopped by us if and only if we called `scope.cancel()`. Neither `Task.cancelling` nor the state of an
       enclosing scope can tell that: handlers cancel tasks and leave scopes open.
    3. Everything else that comes out, `CancelledError` and the `RuntimeError` of a scope that was left open included,
       is a failure of the code. What is no `Exception` is raised as `AbnormalExit`.
    4. Nobody is left behind: `run` waits for its task, also while it is being cancelled itself. Only code that has not
       ended `ABANDON_SECONDS` after it was told to stop is *abandoned*: `RunLimits.abandoned` is told of it first, and
       keeps its lane from starting anything until the task has ended.
    5. Tasks that the code starts itself may not end the event loop either (`dispatch/plugin_tasks.py`).
    6. Synchronous code needs no task: what comes out of it is always its own.

The code runs in a copy of the caller's context, so it sees its context variables (structlog's, those of traces).

Most handlers never suspend, and a task with its scope and two turns of the event loop would cost them more than all the
rest of a dispatch. `AuthorCode` therefore keeps a `SpareTask` while it is entered: a task that waits inside its scope.
The first step of the code is taken in that task's name, without a turn of the event loop. If the code ends in this
step and leaves no trace on the task, the task is kept for the next event. In every other case the task goes on with
the code and ends with it, exactly as a task made for it would.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task  # documented, for those who implement tasks themselves
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from sys import getrefcount
from typing import Any, Final, NamedTuple, ParamSpec, Protocol, Self, TypeVar
from weakref import getweakrefcount

import anyio.lowlevel
from anyio import CancelScope

from chatbot.dispatch.plugin_tasks import is_plugin_code
from chatbot.errors import AbnormalExit, plain_error

P = ParamSpec("P")
T = TypeVar("T")

SLOW_SECONDS: Final = 60.0
"""A handler that has run for longer is reported."""

ABANDON_SECONDS: Final = 5.0
"""How long code may take to end once it was told to stop."""

IsFatal = Callable[[BaseException], bool]
"""Says of an error whether it ends everything at once, rather than being a failure of the event in hand."""


class AuthorFunction(Protocol):
    """Whose code it is: a handler, an error handler, a bot that is supervised, …"""

    @property
    def name(self) -> str:
        """The qualified name of the function."""
        ...

    @property
    def place(self) -> str:
        """Where it is defined, `file:line`; asked only when there is something to say."""
        ...


class FatalError(BaseException):
    """Carries an error that ends everything through all who handle failures; see `AuthorCode`."""

    def __init__(self, raised: BaseException) -> None:
        super().__init__(type(raised).__name__)
        self.raised = raised


class RunLimits(NamedTuple):
    """How long code may run, and who hears of it when it takes long.

    Args:
        timeout: seconds, where the code has no limit of its own; None is as long as it likes.
        slow: told of code that has run for `SLOW_SECONDS`, on the event loop.
        abandoned: told of code that did not stop, before anything else happens.
        begun: told of code that begins.
        before: awaited with the name of a handler, or of an error handler, before it runs; what it raises is no failure
            of the handler.
    """

    timeout: float | None = None
    on_slow: Callable[[RunningCode], None] = lambda _running: None
    on_abandoned: Callable[[RunningCode], None] = lambda _running: None
    on_started: Callable[[RunningCode], None] = lambda _running: None
    before: Callable[[str], Awaitable[None]] | None = None


class Abandoned(TimeoutError):
    """Code of a plugin did not end although it was told to stop; its task still runs."""

    def __init__(self, message: str, running: RunningCode) -> None:
        super().__init__(message)
        self.running = running


class AuthorCode:
    """Runs what authors of plugins have written, for one bot. Enter it around all events to keep a spare task.

    Args:
        ends_all: which errors are raised as `FatalError`. Only tests have any: a `pytest.fail()` in a handler, or a
            real Ctrl-C, ends the test at once.
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
    ) -> T:
        """Await code of a plugin.

        Args:
            code: the coroutine; it is always awaited or closed.
            whose: the function.
            timeout: how long it may run, in seconds.
            limits: who hears of it when it takes long.

        Raises:
            TimeoutError: it took longer, and was stopped.
            Abandoned: it took longer, and did not stop.
            AbnormalExit: it raised what is no `Exception`, was cancelled, but not by us, or cancelled itself.
            Exception: what it raised itself.
        """
        spare = self._spare
        if spare is None or not spare.is_parked or spare.handed_over.done():
            running = RunningCode(owner, timeout, limits)
            running.start(code)
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
        """Call synchronous code of a plugin; errors as of `run`."""
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            failure = self.failure(error)
            if failure is error:
                raise
            raise failure from failure.__cause__

    def failure(self, error: BaseException) -> Exception:
        """Return what came out of code of a plugin as an `Exception`, which everybody can handle.

        Raises:
            FatalError: it ends everything.
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
    """Code of a plugin that runs in a task of its own.

    Args:
        whose: the function; the task has its name.
        timeout: how long it may run, in seconds, from now on.
        limits: who hears of it when it takes long; they are told that it begins.
        task: the task that its first step is taken by, if it is not to be started.

    Attributes:
        task: the task.
        is_stopped: we have told it to stop.
        is_abandoned: it has not ended since, and nobody waits for it any more.
        is_complete: it has returned.
        result: what it returned.
        error: what came out of it instead.
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

    def start(self, code: Coroutine[Any, Any, Any]) -> None:
        """Run the code in a new task."""
        self.task = asyncio.Task(self._run(code), loop=self._loop, name=self.owner.name)
        if self._limits is not None:
            self._limits.on_started(self)
        self._start_timer()

    def resume(self, spare: SpareTask, rest: Continuation) -> None:
        """Run the rest of code whose first step was taken in the name of a spare task."""
        self._scope = spare.scope
        spare.take_over(self, rest)
        self._start_timer()

    def _start_timer(self) -> None:
        # One timer at a time: most code ends long before the first of them.
        if self._limits is not None and (self._timeout is None or self._timeout > SLOW_SECONDS):
            self._timer = self._loop.call_at(self._begun + SLOW_SECONDS, self._is_slow)
        elif self._timeout is not None:
            self._timer = self._loop.call_at(self._begun + self._timeout, self.stop)

    async def _run(self, code: Coroutine[Any, Any, Any]) -> None:
        """Be the task. Nothing comes out of it: a task that raises SystemExit ends the event loop."""
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
            self.over()

    def over(self) -> None:
        """Wake whoever waits: the task ends now."""
        if self._timer is not None:
            self._timer.cancel()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def now(self) -> float:
        """The event loop's time, in seconds; also where no task runs."""
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
        """Tell it to stop, by its scope."""
        if not self.is_stopped:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(ABANDON_SECONDS, self._abandon)
        self.is_stopped = True
        if self._scope is not None:
            self._scope.cancel("chatbot stops this code")

    async def ended(self) -> None:
        """Wait until it has ended, or was abandoned. Whoever waits is cancelled only after that, too."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.stop()
            # Shielded, as a cancelled scope is level-triggered; a native cancellation comes once, and is raised below.
            with CancelScope(shield=True):
                while not (self.task.done() or self.is_abandoned):
                    self._waiter = self._loop.create_future()
                    try:
                        await self._waiter
                    except asyncio.CancelledError:
                        continue
            raise


class Continuation(Generator[Any, Any, Any]):
    """What is left of code after its first step; awaited once, by the task in whose name that step was taken.

    It is no generator of Python's, because each step is taken in the code's context, which is not that of the task, and
    so that what looks for the place where a task waits finds the code.

    Args:
        code: the coroutine; None if it has ended, with `result` or `error`.
        context: what it runs in.
        awaited: what it waits for.
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
        # The mark by which a task tells `await` from `yield`. It is kept for the task that goes on, as others may wait
        # for the same future meanwhile: they expect it to have no mark.
        self._is_marked = bool(getattr(awaited, "_asyncio_future_blocking", False))
        if self._is_marked:
            awaited._asyncio_future_blocking = False
        self._result = result
        self._error = error
        self._cancelled: BaseException | None = None
        self._is_begun = False

    def cancel(self, cancelled: asyncio.CancelledError) -> None:
        """The task was cancelled before it went on: do what a task does that waits for what the code waits for.

        Raises:
            CancelledError: the code has ended, so that the task ends with this.
        """
        if self.code is None:
            raise cancelled
        if not (asyncio.isfuture(self._awaited) and self._awaited.cancel()):
            self._cancelled = cancelled

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    def send(self, value: Any) -> Any:
        """Take a step; the first one only says what the code waits for."""
        if self.code is None:
            if self._error is not None:
                raise self._error
            raise StopIteration(self._result)
        if self._is_begun:
            return self._context.run(self.code.send, value)
        self._is_begun = True
        if self._cancelled is not None:
            return self.throw(self._cancelled)
        awaited: Any = self._awaited
        self._awaited = None
        if self._is_marked:
            awaited._asyncio_future_blocking = True
        return awaited

    def throw(self, *raised: Any) -> Any:
        """Take a step in which this is raised."""
        assert self.code is not None
        return self._context.run(self.code.throw, *raised)

    def close(self) -> None:
        if self.code is not None:
            self._context.run(self.code.close)


class MarkedTask(asyncio.Task[None]):
    """A task that knows whether somebody set attributes on it: one of asyncio takes them, but cannot list them.

    Attributes:
        is_marked: somebody did.
    """

    is_marked = False

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__("is_marked", True)
        super().__setattr__(name, value)


class SpareTask:
    """A task that waits inside a scope of its own, for code whose first step was taken in its name.

    Attributes:
        task: the task.
        scope: its scope, which it has entered once it is parked.
        is_parked: it waits for code; not before its own first step, nor while it takes one of the code.
        handed_over: what it waits for; done if it shall go on, or if somebody has cancelled the task.
        result: what code returned in its first step.
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
        # An empty context: the task outlives the event in which it is made, and keeps nothing of it alive.
        self.task = MarkedTask(self._run(), loop=loop, name="chatbot.spare", context=Context())

    async def _run(self) -> None:
        """Be the task; nothing comes out of it."""
        try:
            with self.scope:
                try:
                    self.is_parked = True
                    await self.handed_over
                except asyncio.CancelledError as cancelled:
                    if self._rest is None:
                        return  # it was dismissed, or somebody cancels all tasks that there are
                    if self._rest.code is not None or self._is_cancelled:
                        self._rest.cancel(cancelled)  # else the code had ended before: a task of its own were done
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
        """Take the first step of code in the name of the task; return what is left, or None and keep the result.

        For the code this task is the current one, whether it goes on or not: it may open scopes and timeouts, start
        tasks, and cancel itself.

        Raises:
            BaseException: what came out of it.
        """
        loop, context = self._loop, copy_context()
        caller: Any = asyncio.current_task(loop)
        self.task.set_name(name)
        self._references = getrefcount(self.task)
        self._weak_references = getweakrefcount(self.task)
        _leave_task(loop, caller)
        _enter_task(loop, self.task)
        try:
            awaited = context.run(self._first_step, code)
        finally:
            _leave_task(loop, self.task)
            _enter_task(loop, caller)
        return None if awaited is self else Continuation(code, context, awaited)

    def _first_step(self, code: Coroutine[Any, Any, Any]) -> Any:
        """Return what the code waits for; the task itself stands for nothing, as the code has ended."""
        is_plugin_code.set(True)
        try:
            return code.send(None)
        except StopIteration as stop:
            self.result = stop.value
            return self

    def is_untouched(self) -> bool:
        """Whether the code that has ended left no trace on the task, so that other code may have it.

        A task that the code cancelled is no longer parked. Whoever else could do something to the task later refers to
        it: a scope, a timeout or a task group that was left open, or a handler that keeps it to cancel it when the next
        message comes. What the code left on the task itself is no reference to it: callbacks that wait for its end, and
        attributes, which would tell the next person's event of this one. Nobody may hold another event's task, so the
        slightest doubt ends this one.
        """
        return (
            getrefcount(self.task) == self._references
            and getweakrefcount(self.task) == self._weak_references
            and not self.handed_over.done()
            and not self.task._callbacks
            and not self.task.is_marked
        )

    def take_over(self, running: RunningCode, rest: Continuation) -> None:
        """Have the task do the rest, and end."""
        self._running, self._rest = running, rest
        self._is_cancelled = self.handed_over.done()
        self.dismiss()

    def dismiss(self) -> None:
        """Wake the task: it does what is left to do, and ends."""
        self.is_parked = False
        if not self.handed_over.done():
            self.handed_over.set_result(None)

    async def close(self) -> None:
        """End the task; return when it has ended."""
        self.dismiss()
        with CancelScope(shield=True):
            await asyncio.wait([self.task])


@asynccontextmanager
async def uncancelled() -> AsyncIterator[None]:
    """Guard work of our own in the block, such as a loop of the bot, which nobody but our scopes may cancel.

    A task that is cancelled by anybody else would end without a word, and with it its task group. A scope cancels for
    as long as it is cancelled itself, a native `Task.cancel` once: so it shows at the next checkpoint.

    Raises:
        AbnormalExit: somebody else cancelled it.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        await anyio.lowlevel.checkpoint_if_cancelled()
        raise AbnormalExit(error) from error


def leaf_errors(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of a group, however deep; or the error itself. Everybody can handle them (`plain`)."""
    error = plain_error(error)
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from leaf_errors(part)
    else:
        yield error
