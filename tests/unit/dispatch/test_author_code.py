"""Code of plugins is run so that whatever comes out of it is its own failure, and is stopped by one scope only."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import pytest

from chatbot.dispatch.author_code import AuthorCode, FatalError
from chatbot.dispatch.plugin_tasks import guard_tasks
from chatbot.errors import AbnormalExit

pytestmark = pytest.mark.virtual_time

VALUE: contextvars.ContextVar[str] = contextvars.ContextVar("VALUE", default="unset")


class Function(NamedTuple):
    name: str = "plugin.function"
    place: str = "plugin.py:1"


class Own(BaseException):
    pass


async def cancels_a_task_of_its_own() -> None:
    task = asyncio.create_task(asyncio.sleep(10))
    task.cancel()
    await task


async def cancels_itself_and_waits() -> None:
    current = asyncio.current_task()
    assert current is not None
    current.cancel()
    await asyncio.sleep(1)


async def cancels_itself_and_returns() -> None:
    current = asyncio.current_task()
    assert current is not None
    current.cancel()


async def leaves_a_scope_open() -> None:
    anyio.CancelScope().__enter__()


async def leaves_a_cancelled_scope_open() -> None:
    anyio.CancelScope().__enter__().cancel()
    await anyio.sleep(1)


async def leaves_a_deadline_open() -> None:
    anyio.move_on_after(1).__enter__()


async def leaves_a_task_group_open() -> None:
    group = anyio.create_task_group()
    await group.__aenter__()
    group.start_soon(asyncio.sleep, 0)


async def leaves_a_timeout_open() -> None:
    await asyncio.timeout(1).__aenter__()
    await asyncio.sleep(2)


async def raises_cancelled() -> None:
    raise asyncio.CancelledError


async def exits() -> None:
    sys.exit("bye")


async def interrupts() -> None:
    raise KeyboardInterrupt


async def raises_generator_exit() -> None:
    raise GeneratorExit


async def raises_its_own() -> None:
    raise Own


async def raises_a_group() -> None:
    msg = "several"
    raise BaseExceptionGroup(msg, [ValueError(), SystemExit(1)])


async def cancels_a_pool_that_is_waited_for() -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(asyncio.sleep(10))
        await asyncio.sleep(0)
        task.cancel()
        await task


async def exits_in_a_task_group() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(exits)


async def exits_in_a_task() -> None:
    await asyncio.create_task(exits())


async def interrupts_in_a_task_group_of_asyncio() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(interrupts())
        await asyncio.sleep(1)


async def waits_for_a_task_that_is_cancelled_before_it_begins() -> None:
    task = asyncio.create_task(exits())
    task.cancel()
    await task


async def reads() -> str:
    return VALUE.get()


HOSTILE: list[Callable[[], Awaitable[None]]] = [
    cancels_a_task_of_its_own,
    cancels_itself_and_waits,
    cancels_itself_and_returns,
    leaves_a_scope_open,
    leaves_a_cancelled_scope_open,
    leaves_a_deadline_open,
    leaves_a_task_group_open,
    leaves_a_timeout_open,
    raises_cancelled,
    exits,
    interrupts,
    raises_generator_exit,
    raises_its_own,
    raises_a_group,
    cancels_a_pool_that_is_waited_for,
    exits_in_a_task_group,
    exits_in_a_task,
    interrupts_in_a_task_group_of_asyncio,
    waits_for_a_task_that_is_cancelled_before_it_begins,
]


@contextlib.asynccontextmanager
async def author_code(has_spare: bool) -> AsyncIterator[AuthorCode]:
    """Code runs in a new task each time, or takes its first step in the name of a spare one."""
    async with contextlib.AsyncExitStack() as stack:
        code = AuthorCode()
        if has_spare:
            await stack.enter_async_context(code)
            await anyio.lowlevel.checkpoint()
        yield code


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("timeout", [None, 600.0])
@pytest.mark.parametrize("has_spare", [False, True])
async def test_every_base_exception_is_raised_as_an_exception_and_the_caller_continues(
    hostile: Callable[[], Awaitable[None]], timeout: float | None, has_spare: bool
) -> None:
    guard_tasks()

    async def run() -> None:
        await hostile()

    with anyio.CancelScope() as scope:
        async with author_code(has_spare) as code:
            with pytest.raises(Exception):  # noqa: B017, PT011 -- which one does not matter here
                await code.run(run(), Function(), timeout=timeout)
            await anyio.sleep(5)
            assert await code.run(reads(), Function()) == "unset"
        assert not scope.cancelled_caught
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_what_is_no_exception_is_named_and_is_the_cause() -> None:
    with pytest.raises(AbnormalExit, match="SystemExit: bye") as caught:
        await AuthorCode().run(exits(), Function())
    assert isinstance(caught.value.__cause__, SystemExit)


async def test_an_error_whose_text_cannot_be_had_is_named_all_the_same() -> None:
    class Mute(BaseException):
        def __str__(self) -> str:
            raise ValueError

    async def raises() -> None:
        raise Mute

    with pytest.raises(AbnormalExit, match="Mute: <its __str__ raises ValueError>"):
        await AuthorCode().run(raises(), Function())


@pytest.mark.parametrize("has_spare", [False, True])
async def test_a_timeout_stops_it_and_says_who_and_where(has_spare: bool) -> None:
    async with author_code(has_spare) as code:
        with pytest.raises(TimeoutError, match=r"plugin\.py:1: plugin\.function did not end within 2 s"):
            await code.run(anyio.sleep(10), Function(), timeout=2)


@pytest.mark.parametrize("has_spare", [False, True])
async def test_work_that_is_shielded_is_finished_when_the_timeout_strikes(has_spare: bool) -> None:
    done: list[str] = []

    async def writes() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(5)
            done.append("written")
        await anyio.lowlevel.checkpoint()
        done.append("more")

    async with author_code(has_spare) as code:
        with pytest.raises(TimeoutError):
            await code.run(writes(), Function(), timeout=2)
    assert done == ["written"]


async def test_a_result_returned_after_a_cancellation_counts() -> None:
    async def finishes() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await anyio.sleep(10)
        return "done"

    assert await AuthorCode().run(finishes(), Function(), timeout=2) == "done"


async def test_a_failure_while_being_stopped_is_raised_as_it_is() -> None:
    async def fails() -> None:
        try:
            await anyio.sleep(10)
        finally:
            msg = "in the cleanup"
            raise ValueError(msg)

    with pytest.raises(ValueError, match="in the cleanup"):
        await AuthorCode().run(fails(), Function(), timeout=2)


@pytest.mark.parametrize("natively", [False, True])
@pytest.mark.parametrize("has_spare", [False, True])
async def test_who_waits_is_cancelled_only_when_the_code_was_stopped_and_has_ended(
    natively: bool, has_spare: bool
) -> None:
    said: list[str] = []

    async def slow() -> None:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3)
            said.append("code")

    async def waits() -> None:
        async with author_code(has_spare) as code:
            try:
                await code.run(slow(), Function())
            finally:
                said.append("waiter")

    if natively:
        task = asyncio.create_task(waits())
        await anyio.sleep(1)
        task.cancel()
        await anyio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        with anyio.move_on_after(1) as scope:
            await waits()
        assert scope.cancelled_caught
    assert said == ["code", "waiter"]


@pytest.mark.parametrize("has_spare", [False, True])
@pytest.mark.parametrize("suspends", [False, True])
async def test_it_sees_the_context_variables_of_who_waits_and_keeps_its_own_to_itself(
    has_spare: bool, suspends: bool
) -> None:
    async def reads_and_sets() -> list[str]:
        seen = [VALUE.get()]
        VALUE.set("its own")
        if suspends:
            await anyio.sleep(1)
            seen.append(await asyncio.create_task(reads()))
        return [*seen, VALUE.get()]

    VALUE.set("the caller's")
    async with author_code(has_spare) as code:
        seen = await code.run(reads_and_sets(), Function())
    assert seen == ["the caller's", *(["its own"] if suspends else []), "its own"]
    assert VALUE.get() == "the caller's"


@pytest.mark.parametrize("has_spare", [False, True])
async def test_it_may_use_task_groups_scopes_and_threads(has_spare: bool) -> None:
    async def works() -> list[str]:
        said: list[str] = []
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 1)
        with anyio.move_on_after(1):
            await anyio.sleep(2)
        async with asyncio.timeout(2):
            said.append(await anyio.to_thread.run_sync(str, "thread"))
        return said

    async with author_code(has_spare) as code:
        assert await code.run(works(), Function(), timeout=600) == ["thread"]


def the_task() -> asyncio.Task[object]:
    current = asyncio.current_task()
    assert current is not None
    return current


async def test_a_handler_that_keeps_its_task_to_cancel_it_later_cancels_no_other() -> None:
    kept: list[asyncio.Task[object]] = []

    async def replaces() -> str:
        if kept:
            kept.pop().cancel()
        kept.append(the_task())
        return "done"

    async with author_code(has_spare=True) as code:
        for _ in range(3):
            assert await code.run(replaces(), Function()) == "done"
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("has_spare", [False, True])
async def test_callbacks_on_its_task_are_called_when_the_code_has_ended(has_spare: bool) -> None:
    ended: list[object] = []

    async def registers() -> None:
        the_task().add_done_callback(ended.append)

    async with author_code(has_spare) as code:
        for count in (1, 2):
            await code.run(registers(), Function())
            await anyio.sleep(1)
            assert len(ended) == count


@pytest.mark.parametrize("has_spare", [False, True])
async def test_attributes_that_code_sets_on_its_task_do_not_reach_the_next_event(has_spare: bool) -> None:
    async def notes() -> str | None:
        task: Any = the_task()
        noted: str | None = getattr(task, "sender", None)
        task.sender = "Ann"
        return noted

    async with author_code(has_spare) as code:
        for _ in range(2):
            assert await code.run(notes(), Function()) is None
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("has_spare", [False, True])
async def test_what_has_ended_cannot_be_cancelled_any_more(has_spare: bool) -> None:
    async def is_cancelled_too_late() -> str:
        asyncio.get_running_loop().call_soon(the_task().cancel)
        await asyncio.timeout(0).__aenter__()
        return "done"

    async with author_code(has_spare) as code:
        assert await code.run(is_cancelled_too_late(), Function()) == "done"


async def test_code_may_wait_for_what_others_wait_for_too() -> None:
    shared = asyncio.get_running_loop().create_future()
    answers: list[int] = []

    async def waits(code: AuthorCode) -> None:
        async def coalesces() -> int:
            return await shared

        answers.append(await code.run(coalesces(), Function()))

    async with (
        author_code(has_spare=True) as first,
        author_code(has_spare=True) as second,
        anyio.create_task_group() as group,
    ):
        group.start_soon(waits, first)
        group.start_soon(waits, second)
        await anyio.sleep(1)
        shared.set_result(42)
    assert answers == [42, 42]


@pytest.mark.parametrize("suspends", [False, True])
async def test_all_steps_are_taken_by_one_task_which_is_not_that_of_who_waits(suspends: bool) -> None:
    async def compares() -> bool:
        before = the_task()
        with anyio.move_on_after(60):
            if suspends:
                await anyio.sleep(1)
        return before is the_task() and before is not waiting

    waiting = the_task()
    async with author_code(has_spare=True) as code:
        assert await code.run(compares(), Function())
    assert the_task() is waiting


async def test_code_that_ends_at_once_leaves_its_task_to_the_next() -> None:
    async def names() -> int:
        return id(the_task())

    async with author_code(has_spare=True) as code:
        assert await code.run(names(), Function()) == await code.run(names(), Function())


async def test_code_may_run_code() -> None:
    async def outer(code: AuthorCode) -> str:
        return await code.run(reads(), Function())

    async with author_code(has_spare=True) as code:
        for _ in range(2):
            assert await code.run(outer(code), Function()) == "unset"


async def test_code_runs_also_when_somebody_has_cancelled_all_tasks() -> None:
    async def sweeps() -> None:
        for task in asyncio.all_tasks():
            if task is not waiting:
                task.cancel()

    waiting = the_task()
    async with author_code(has_spare=True) as code:
        for _ in range(3):
            with pytest.raises(AbnormalExit):
                await code.run(sweeps(), Function())
            assert await code.run(reads(), Function()) == "unset"
            await anyio.lowlevel.checkpoint()


async def test_code_that_is_cancelled_before_its_second_step_is_cancelled_where_it_waits() -> None:
    said: list[str] = []

    async def waits() -> None:
        asyncio.get_running_loop().call_soon(the_task().cancel)
        try:
            await anyio.sleep(10)
        except asyncio.CancelledError:
            said.append("cancelled")
            raise

    async with author_code(has_spare=True) as code:
        with pytest.raises(AbnormalExit):
            await code.run(waits(), Function())
    assert said == ["cancelled"]


async def test_a_task_that_is_left_behind_and_exits_does_not_end_the_event_loop() -> None:
    guard_tasks()
    said: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(context["exception"]))

    async def leaves_one() -> None:
        asyncio.create_task(exits())  # noqa: RUF006

    await AuthorCode().run(leaves_one(), Function())
    await anyio.sleep(1)
    gc.collect()
    assert [type(error) for error in said] == [AbnormalExit]


@pytest.mark.parametrize("has_spare", [False, True])
async def test_no_task_is_left_behind(has_spare: bool) -> None:
    before = asyncio.all_tasks()
    async with author_code(has_spare) as code:
        for hostile in (raises_cancelled, cancels_itself_and_waits, leaves_a_cancelled_scope_open):
            with pytest.raises(Exception):  # noqa: B017, PT011
                await code.run(hostile(), Function())
    assert asyncio.all_tasks() == before


async def test_synchronous_code_fails_likewise() -> None:
    def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(AbnormalExit, match="CancelledError"):
        AuthorCode().call(cancelled)


async def test_errors_that_end_everything_are_carried_through() -> None:
    async def exits_in_a_group() -> None:
        msg = "several"
        raise BaseExceptionGroup(msg, [ValueError(), Own()])

    code = AuthorCode(lambda error: isinstance(error, Own))
    with pytest.raises(FatalError) as caught:
        await code.run(exits_in_a_group(), Function())
    assert isinstance(caught.value.raised, Own)


@pytest.mark.parametrize("waits", [0, 1, 2])
@pytest.mark.parametrize("has_spare", [True, False])
async def test_a_lowered_recursion_limit_is_raised_before_anybody_else_runs(waits: int, has_spare: bool) -> None:
    before = sys.getrecursionlimit()
    seen: list[int] = []

    async def lowers() -> str:
        for _ in range(waits):
            await asyncio.sleep(1)
        asyncio.get_running_loop().call_soon(lambda: seen.append(sys.getrecursionlimit()))
        sys.setrecursionlimit(before - 1)
        return "done"

    author_code = AuthorCode()
    async with author_code if has_spare else contextlib.nullcontext():
        assert await author_code.run(lowers(), Function()) == "done"
        await asyncio.sleep(1)

    assert seen == [before]
