"""Runs code of plugins so that whatever comes out of it is a failure of the event in hand, and of nothing else.

Rules:
    1. Awaited code runs in an asyncio task of its own, inside a cancel scope that is made there. It is stopped by that
       scope only: a native `Task.cancel` would break `shield=True`.
    2. It was stopped by us if and only if we called `scope.cancel()`. Neither `Task.cancelling` nor the state of an
       enclosing scope can tell that: handlers cancel tasks and leave scopes open.
    3. Everything else that comes out, `CancelledError` and the `RuntimeError` of a scope that was left open included,
       is a failure of the code. What is no `Exception` is raised as `AbnormalExit`.
    4. Nobody is left behind: `run` waits for its task, also while it is being cancelled itself.
    5. Synchronous code needs no task: what comes out of it is always its own.

The task copies the context of the caller, so context variables (structlog's, those of traces) are seen by the code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, ParamSpec, Protocol, TypeVar

import anyio.lowlevel
from anyio import CancelScope

from chatbot.errors import AbnormalExit

P = ParamSpec("P")
T = TypeVar("T")

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


class AuthorCode:
    """Runs what authors of plugins have written, for one bot.

    Args:
        ends_all: which errors are raised as `EndOfAll`. Only tests have any: a `pytest.fail()` in a handler, or a
            real Ctrl-C, ends the test at once.
    """

    __slots__ = ("_ends_all",)

    def __init__(self, ends_all: EndsAll | None = None) -> None:
        self._ends_all = ends_all

    async def run(self, code: Coroutine[Any, Any, T], whose: AuthorFunction, *, timeout: float | None = None) -> T:
        """Await code of a plugin.

        Args:
            code: the coroutine; it is always awaited or closed.
            whose: the function.
            timeout: how long it may run, in seconds.

        Raises:
            TimeoutError: it took longer, and was stopped.
            AbnormalExit: it raised what is no `Exception`, was cancelled, but not by us, or cancelled itself.
            Exception: what it raised itself.
        """
        running = Running(code, whose)
        if timeout is None:
            await running.ended()
        else:
            timer = asyncio.get_running_loop().call_later(timeout, running.stop)
            try:
                await running.ended()
            finally:
                timer.cancel()
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
        for raised in leaves(error):
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

    Attributes:
        task: the task.
        is_stopped: we have told it to stop.
        is_complete: it has returned.
        result: what it returned.
        error: what came out of it instead.
    """

    __slots__ = ("_scope", "_waiter", "error", "is_complete", "is_stopped", "result", "task", "whose")

    def __init__(self, code: Coroutine[Any, Any, Any], whose: AuthorFunction) -> None:
        loop = asyncio.get_running_loop()
        self.whose = whose
        self.is_stopped = False
        self.is_complete = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._scope: CancelScope | None = None
        self._waiter: asyncio.Future[None] = loop.create_future()
        self.task = asyncio.Task(self._run(code), loop=loop, name=whose.name)

    async def _run(self, code: Coroutine[Any, Any, Any]) -> None:
        """Be the task. Nothing comes out of it: a task that raises SystemExit ends the event loop."""
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
            if not self._waiter.done():
                self._waiter.set_result(None)

    def stop(self) -> None:
        """Tell it to stop, by its scope."""
        self.is_stopped = True
        if self._scope is not None:
            self._scope.cancel("chatbot stops this code")

    async def ended(self) -> None:
        """Wait until it has ended. Whoever waits is cancelled only after it was stopped and has ended, too."""
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.stop()
            # Shielded, as a cancelled scope is level-triggered; a native cancellation comes once, and is raised below.
            with CancelScope(shield=True):
                while not self.task.done():
                    self._waiter = asyncio.get_running_loop().create_future()
                    try:
                        await self._waiter
                    except asyncio.CancelledError:
                        continue
            raise


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
