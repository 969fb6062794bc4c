"""Tasks that code of plugins starts itself, by `asyncio.create_task` or a task group.

asyncio ends the event loop, and with it all bots of the process, when SystemExit or KeyboardInterrupt comes out of a
task. Those of plugins raise `AbnormalExit` instead, which is an ordinary failure of that task.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from chatbot.errors import AbnormalExit

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
T = TypeVar("T")

is_plugin_code: ContextVar[bool] = ContextVar("chatbot_is_plugin_code")
"""Whether a task runs code of a plugin; tasks that it starts inherit it. Threads that plugins start do not know."""


def runs_plugin_code(unknown: bool) -> bool:
    """Return whether code of a plugin runs.

    Args:
        unknown: what to return where nothing tells, as in a callback from a thread that a plugin has started.
    """
    return is_plugin_code.get(unknown)


@contextmanager
def running_our_code() -> Iterator[None]:
    """Mark the code in the block, and whatever it starts, as code of no plugin until `AuthorCode` runs some."""
    before = is_plugin_code.set(False)
    try:
        yield
    finally:
        is_plugin_code.reset(before)


def call_as_plugin(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call synchronous code of a plugin that runs in a task of ours, such as a filter, and return its result."""
    before = is_plugin_code.set(True)
    try:
        return function(*args, **kwargs)
    finally:
        is_plugin_code.reset(before)


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
    import asyncio  # here, because plugins are imported without it, and filters need this module

    loop = asyncio.get_running_loop()
    before: Any = loop.get_task_factory()
    if getattr(before, "guards_tasks", False) or getattr(loop, "guards_tasks", False):
        return

    def make(loop: asyncio.AbstractEventLoop, code: Any, **options: Any) -> Any:
        if runs_plugin_code(False) and asyncio.iscoroutine(code):
            code = StartedTask(code)
        return asyncio.Task(code, loop=loop, **options) if before is None else before(loop, code, **options)

    make.guards_tasks = True  # type: ignore[attr-defined]
    loop.set_task_factory(make)
