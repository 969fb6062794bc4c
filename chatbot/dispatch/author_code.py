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
    5. Tasks that the code starts itself may not end the event loop either: asyncio lets SystemExit and
       KeyboardInterrupt out of a task end it, so those tasks raise `AbnormalExit` instead (`guard_tasks`).
    6. Synchronous code needs no task: what comes out of it is always its own.

The task copies the context of the caller, so context variables (structlog's, those of traces) are seen by the code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, ParamSpec, Protocol, TypeVar

import anyio.lowlevel
from anyio import CancelScope

from chatbot.errors import AbnormalExit

P = ParamSpec("P")
T = TypeVar("T")

SLOW_SECONDS: Final = 60.0
"""A handler that has run for longer is reported."""

ABANDON_SECONDS: Final = 5.0
"""How long code may take to end once it was told to stop."""

EndsAll = Callable[[BaseException], bool]
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


class EndOfAll(BaseException):
    """Carries an error that ends everything through all who handle failures; see `AuthorCode`.

    Args:
        raised: the error.
    """

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
    slow: Callable[[Running], None] = lambda _running: None
    abandoned: Callable[[Running], None] = lambda _running: None
    begun: Callable[[Running], None] = lambda _running: None
    before: Callable[[str], Awaitable[None]] | None = None


class Abandoned(TimeoutError):
    """Code of a plugin did not end although it was told to stop; its task still runs.

    Args:
        message: what did not end, where, and within what time.
        running: the code.
    """

    def __init__(self, message: str, running: Running) -> None:
        super().__init__(message)
        self.running = running


class AuthorCode:
    """Runs what authors of plugins have written, for one bot.

    Args:
        ends_all: which errors are raised as `EndOfAll`. Only tests have any: a `pytest.fail()` in a handler, or a
            real Ctrl-C, ends the test at once.
    """

    __slots__ = ("_ends_all",)

    def __init__(self, ends_all: EndsAll | None = None) -> None:
        self._ends_all = ends_all

    async def run(
        self,
        code: Coroutine[Any, Any, T],
        whose: AuthorFunction,
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
        running = Running(code, whose, timeout, limits)
        if limits is not None:
            limits.begun(running)
        await running.ended()
        if running.is_abandoned:
            msg = (
                f"{whose.place}: {whose.name} did not end within {timeout or 0:g} s,"
                f" nor {ABANDON_SECONDS:g} s after it was canceled"
            )
            raise Abandoned(msg, running)
        if running.error is None and running.is_complete and not running.task.cancelled():
            result: T = running.result
            return result
        error = running.error or asyncio.CancelledError()
        if running.is_stopped and isinstance(error, asyncio.CancelledError):
            msg = f"{whose.place}: {whose.name} did not end within {timeout:g} s"
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
            raise failure from error

    def failure(self, error: BaseException) -> Exception:
        """Return what came out of code of a plugin as an `Exception`.

        Raises:
            EndOfAll: it ends everything.
        """
        for leaf in leaves(error):
            raised = leaf.raised if isinstance(leaf, AbnormalExit) else leaf
            if isinstance(raised, EndOfAll):
                raise raised
            if self._ends_all is not None and self._ends_all(raised):
                raise EndOfAll(raised) from None
        if isinstance(error, Exception):
            return error
        return AbnormalExit(error).with_traceback(error.__traceback__)


class Running:
    """Code of a plugin that runs in a task of its own, from now on.

    Args:
        code: the coroutine.
        whose: the function; the task has its name.
        timeout: how long it may run, in seconds.
        limits: who hears of it when it takes long.

    Attributes:
        task: the task.
        is_stopped: we have told it to stop.
        is_abandoned: it has not ended since, and nobody waits for it any more.
        is_complete: it has returned.
        result: what it returned.
        error: what came out of it instead.
    """

    __slots__ = (
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
        "result",
        "task",
        "whose",
    )

    def __init__(
        self,
        code: Coroutine[Any, Any, Any],
        whose: AuthorFunction,
        timeout: float | None = None,
        limits: RunLimits | None = None,
    ) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self.whose = whose
        self._timeout = timeout
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None
        self.is_stopped = False
        self.is_abandoned = False
        self.is_complete = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._scope: CancelScope | None = None
        self._waiter: asyncio.Future[None] = loop.create_future()
        self.task = asyncio.Task(self._run(code), loop=loop, name=whose.name)
        # One timer at a time: most code ends long before the first of them.
        if limits is not None and (timeout is None or timeout > SLOW_SECONDS):
            self._timer = loop.call_later(SLOW_SECONDS, self._is_slow)
        elif timeout is not None:
            self._timer = loop.call_later(timeout, self.stop)

    async def _run(self, code: Coroutine[Any, Any, Any]) -> None:
        """Be the task. Nothing comes out of it: a task that raises SystemExit ends the event loop."""
        _is_author_code.set(True)
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
            if self._timer is not None:
                self._timer.cancel()
            self._wake()

    def _wake(self) -> None:
        if not self._waiter.done():
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
            self._limits.slow(self)

    def _abandon(self) -> None:
        self._timer = None
        if self.task.done():
            return
        self.is_abandoned = True
        if self._limits is not None:
            self._limits.abandoned(self)
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
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.stop()
            # Shielded, as a cancelled scope is level-triggered; a native cancellation comes once, and is raised below.
            with CancelScope(shield=True):
                while not (self.task.done() or self.is_abandoned):
                    self._waiter = asyncio.get_running_loop().create_future()
                    try:
                        await self._waiter
                    except asyncio.CancelledError:
                        continue
            raise


_is_author_code: ContextVar[bool] = ContextVar("chatbot_is_author_code", default=False)
"""Whether a task runs code of a plugin; tasks that it starts inherit it."""


class StartedTask(Coroutine[Any, Any, Any]):
    """The coroutine of a task that code of a plugin has started; no coroutine of Python's, so that it can be closed
    before it has begun.

    Args:
        code: the coroutine.
    """

    __slots__ = ("code",)

    def __init__(self, code: Coroutine[Any, Any, Any]) -> None:
        self.code = code

    def __getattr__(self, name: str) -> Any:
        return getattr(self.code, name)  # cr_frame and the like, by which anyio and debuggers tell its state

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.code.__await__()

    def send(self, value: Any) -> Any:
        """Take a step."""
        try:
            return self.code.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise AbnormalExit(error) from error

    def throw(self, *raised: Any) -> Any:
        """Take a step in which this is raised."""
        try:
            return self.code.throw(*raised)
        except (SystemExit, KeyboardInterrupt) as error:
            raise AbnormalExit(error) from error

    def close(self) -> None:
        """End it."""
        self.code.close()


def guard_tasks() -> None:
    """Keep the tasks that code of plugins starts on the running event loop from ending that loop."""
    loop = asyncio.get_running_loop()
    before: Any = loop.get_task_factory()
    if getattr(before, "guards_tasks", False):
        return

    def make(loop: asyncio.AbstractEventLoop, code: Any, **options: Any) -> Any:
        if _is_author_code.get() and asyncio.iscoroutine(code):
            code = StartedTask(code)
        return asyncio.Task(code, loop=loop, **options) if before is None else before(loop, code, **options)

    make.guards_tasks = True  # type: ignore[attr-defined]
    loop.set_task_factory(make)


async def uncancelled(work: Awaitable[T]) -> T:
    """Await work of our own, such as a loop of the bot, which nobody but our scopes may cancel.

    A task that is cancelled by anybody else would end without a word, and with it its task group. A scope cancels for
    as long as it is cancelled itself, a native `Task.cancel` once: so it shows at the next checkpoint.

    Raises:
        AbnormalExit: somebody else cancelled it.
    """
    try:
        return await work
    except asyncio.CancelledError as error:
        await anyio.lowlevel.checkpoint_if_cancelled()
        raise AbnormalExit(error) from error


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of a group, however deep; or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from leaves(one)
    else:
        yield error
