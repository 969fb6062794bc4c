"""uvloop is used where it is installed, unless the environment says otherwise."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NoReturn

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from chatbot import Context, Event, Filter, MessageReceived, Plugin, text
from chatbot.dispatch import BotInfo, Dispatcher
from chatbot.dispatch.author_code import AuthorCode
from chatbot.dispatch.event_view import EventView
from chatbot.dispatch.filters import FilterLike, Found
from chatbot.errors import AbnormalExit, ChatbotError, ConfigError, StateError
from chatbot.model import ChatMessage, MessageId, MessageType, ThreadId, UserId
from chatbot.runtime import event_loop
from chatbot.runtime.status_pages import BotsLoop
from chatbot.worker_threads import run_in_thread

needs_uvloop = pytest.mark.skipif(sys.platform == "win32", reason="uvloop does not exist for Windows")


@pytest.fixture
def without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "uvloop", raising=False)
    monkeypatch.setattr(sys, "path", [])


@needs_uvloop
def test_what_is_installed_is_used() -> None:
    assert event_loop.chosen({}) == "uvloop"


@pytest.mark.usefixtures("without_uvloop")
def test_without_it_python_s_own_is_used() -> None:
    assert event_loop.chosen({}) == "asyncio"


@needs_uvloop
@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_the_environment_may_name_it(name: str) -> None:
    assert event_loop.chosen({"CHATBOT_EVENT_LOOP": name}) == name


def test_a_name_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="CHATBOT_EVENT_LOOP is 'trio'; it can be asyncio or uvloop"):
        event_loop.chosen({"CHATBOT_EVENT_LOOP": "trio"})


@pytest.mark.usefixtures("without_uvloop")
def test_asked_for_but_not_installed_it_is_named_with_what_installs_it() -> None:
    with pytest.raises(ConfigError, match=r"not installed: pip install 'chatbot-acs\[uvloop\]'"):
        event_loop.chosen({"CHATBOT_EVENT_LOOP": "uvloop"})


@needs_uvloop
@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_what_runs_is_what_was_chosen(name: str) -> None:
    async def look(delay: float) -> str:
        await anyio.sleep(delay)
        return event_loop.running()

    assert event_loop.run(name, look, 0.0) == name


def test_garbage_is_looked_for_less_often_while_the_loop_runs_and_as_before_afterwards() -> None:
    before = gc.get_threshold()

    async def threshold() -> int:
        return gc.get_threshold()[0]

    assert event_loop.run("asyncio", threshold) >= event_loop.GARBAGE_THRESHOLD
    assert gc.get_threshold() == before


def test_streams_that_handlers_replace_are_put_back() -> None:
    async def replaces() -> None:
        sys.stdout = sys.stderr = None

    streams = sys.stdout, sys.stderr
    event_loop.run("asyncio", replaces)

    assert (sys.stdout, sys.stderr) == streams


LOOPS = ["asyncio", pytest.param("uvloop", marks=needs_uvloop)]


class Author:
    name, place = "author", "plugin.py:1"


AuthorMade = Callable[[], Awaitable[object]]


async def by_author(code: AuthorMade) -> object:
    """Run code as a plugin's, and show then that tasks, threads and timers of our own still work."""
    async with AuthorCode() as author_code:
        try:
            result: object = await author_code.run(_awaited(code), Author())
        except Exception as error:
            result = error
    await anyio.sleep(0.01)
    assert await anyio.to_thread.run_sync(lambda: 7) == 7
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(anyio.sleep, 0)
    return result


async def _awaited(code: AuthorMade) -> object:
    return await code()


def exits(*_: object) -> NoReturn:
    sys.exit(3)


def interrupts(*_: object) -> NoReturn:
    raise KeyboardInterrupt


async def leaves() -> None:
    exits()


def loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def calls_soon() -> None:
    loop().call_soon(exits)


async def calls_soon_twice() -> None:
    loop().call_soon(exits)
    loop().call_soon(interrupts)


async def calls_later() -> None:
    loop().call_later(0.001, interrupts)


async def calls_from_a_thread() -> None:
    thread = threading.Thread(target=loop().call_soon_threadsafe, args=(exits,))
    thread.start()
    await anyio.to_thread.run_sync(thread.join)


async def starts_a_task_elsewhere() -> None:
    running, made = loop(), list[asyncio.Task[None]]()
    running.call_soon(lambda: made.append(running.create_task(leaves())), context=contextvars.Context())
    await asyncio.sleep(0.001)
    await asyncio.wait(made)
    assert isinstance(made[0].exception(), SystemExit)


async def waits_for_a_task_by_callback() -> None:
    task = asyncio.create_task(asyncio.sleep(0))
    task.add_done_callback(interrupts)
    await task


async def stops_the_loop() -> None:
    loop().stop()


async def stops_the_loop_and_exits() -> None:
    loop().stop()
    loop().call_soon(exits)


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize(
    "code",
    [
        calls_soon,
        calls_soon_twice,
        calls_later,
        calls_from_a_thread,
        starts_a_task_elsewhere,
        waits_for_a_task_by_callback,
        stops_the_loop,
        stops_the_loop_and_exits,
    ],
)
def test_no_callback_ends_the_loop(name: str, code: AuthorMade) -> None:
    assert event_loop.run(name, by_author, code) is None


@pytest.mark.parametrize("name", LOOPS)
def test_what_a_thread_has_the_loop_raise_is_raised_in_the_thread(name: str) -> None:
    async def asks() -> None:
        await anyio.to_thread.run_sync(anyio.from_thread.run_sync, exits)

    error = event_loop.run(name, by_author, asks)

    assert isinstance(error, AbnormalExit)
    assert isinstance(error.raised, SystemExit)


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt])
def test_what_the_main_task_raises_ends_the_loop(name: str, ending: type[BaseException]) -> None:
    async def main() -> None:
        loop().call_soon(exits)
        await anyio.sleep(0.001)
        raise ending

    with pytest.raises(ending):
        event_loop.run(name, main)


@pytest.mark.parametrize("name", LOOPS)
def test_a_callback_that_exits_in_the_moment_of_the_end_does_not_keep_the_loop_running(name: str) -> None:
    async def main() -> str:
        loop().call_soon(exits)
        return "done"

    assert event_loop.run(name, main) == "done"


@needs_uvloop
@pytest.mark.parametrize("name", LOOPS)
def test_an_alarm_that_raises_while_the_loop_waits_does_not_end_it(name: str) -> None:
    class Alarm(Exception):
        pass

    def ring(*_: object) -> NoReturn:
        raise Alarm

    async def sets_an_alarm() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        await anyio.sleep(0.1)

    before = signal.signal(signal.SIGALRM, ring)
    try:
        assert event_loop.run(name, by_author, sets_an_alarm) is None
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_loop_that_fails_again_at_once_is_not_run_for_ever() -> None:
    escapes = event_loop.Escapes()

    assert [escapes.are_few() for _ in range(11)].count(True) == 9


async def cancels_all() -> None:
    for task in asyncio.all_tasks():
        task.cancel()


async def cancels_all_from_a_thread() -> None:
    running, done = loop(), asyncio.Event()

    def cancel() -> None:
        try:
            for task in asyncio.all_tasks():
                task.cancel()
        finally:
            done.set()

    threading.Thread(target=running.call_soon_threadsafe, args=(cancel,)).start()
    await done.wait()


@pytest.mark.parametrize("name", LOOPS)
def test_code_of_a_plugin_cannot_cancel_our_tasks(name: str) -> None:
    error = event_loop.run(name, by_author, cancels_all)

    assert isinstance(error, StateError)
    assert "code of a plugin may cancel only its own tasks" in str(error)


@pytest.mark.parametrize("name", LOOPS)
def test_a_thread_of_a_plugin_cannot_either(name: str) -> None:
    said = list[str]()

    async def main() -> None:
        loop().set_exception_handler(lambda _loop, context: said.append(str(context["exception"])))
        await by_author(cancels_all_from_a_thread)

    event_loop.run(name, main)

    assert said
    assert "may cancel only its own" in said[0]


BOT, ANN, THREAD = UserId("8:acs:bot"), UserId("8:acs:ann"), ThreadId("19:thread@thread.v2")


def said(content: str) -> MessageReceived:
    time = datetime(2025, 1, 1, tzinfo=UTC)
    message = ChatMessage(
        id=MessageId("1"), version=1, type=MessageType.TEXT, created_on=time, content=content, sender=ANN
    )
    return MessageReceived(bot=BOT, thread=THREAD, occurred_on=time, message=message)


class Sweeps(Filter):
    """A filter of a plugin that cancels all tasks."""

    def match(self, view: EventView) -> Found | None:
        sweeps(view.event)
        return None


def sweeps(_event: Event) -> bool:
    for task in asyncio.all_tasks():
        task.cancel()
    return False


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("filter", [sweeps, Sweeps(), ~Sweeps(), text("x") | Sweeps()])
def test_synchronous_code_cannot_either(name: str, filter: FilterLike) -> None:
    plugin = Plugin("sweeps")

    @plugin.message(filter)
    async def never(ctx: Context) -> None: ...

    async def main() -> BaseException | None:
        async with Dispatcher([plugin], bot=BotInfo("bot", BOT, "Bot")) as dispatcher:
            outcome = await dispatcher.dispatch(said("hello"))
            await asyncio.sleep(0)
            return outcome.error

    assert isinstance(event_loop.run(name, main), StateError)


async def in_a_task_of_ours() -> None:
    await asyncio.create_task(asyncio.sleep(60))


async def in_tasks_that_are_gathered() -> None:
    await asyncio.gather(asyncio.create_task(asyncio.sleep(60)), asyncio.sleep(60))


async def in_a_task_that_is_waited_for() -> None:
    await asyncio.wait_for(asyncio.create_task(in_tasks_that_are_gathered()), 60)


async def in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(in_a_task_of_ours())


async def in_a_thread() -> None:
    await anyio.to_thread.run_sync(time.sleep, 0.01)
    await asyncio.sleep(60)


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize(
    "waits", [in_a_task_of_ours, in_tasks_that_are_gathered, in_a_task_that_is_waited_for, in_a_group, in_a_thread]
)
def test_work_of_ours_that_code_of_a_plugin_makes_us_end_is_ended(
    name: str, waits: Callable[[], Awaitable[object]]
) -> None:
    """However deep the cancelled work waits for other tasks: it is our scope that is cancelled."""

    async def main() -> bool:
        refused, cancelled = list[object](), list[bool]()

        async def work() -> None:
            try:
                await waits()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

        loop().set_exception_handler(lambda _loop, context: refused.append(context))
        async with anyio.create_task_group() as group, AuthorCode() as author_code:
            group.start_soon(work)

            async def ends() -> None:
                group.cancel_scope.cancel()

            await anyio.sleep(0.02)
            with anyio.CancelScope(shield=True):
                await author_code.run(ends(), Author())
        assert refused == []
        return cancelled == [True]

    assert event_loop.run(name, main)


@pytest.mark.parametrize("name", LOOPS)
def test_our_own_limits_of_time_are_kept_whoever_runs(name: str) -> None:
    async def main() -> bool:
        with anyio.move_on_after(0.01) as scope:
            await in_a_task_of_ours()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await in_a_task_of_ours()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(in_a_group(), 0.01)
        return scope.cancelled_caught

    assert event_loop.run(name, main)


@pytest.mark.parametrize("name", LOOPS)
def test_a_call_of_another_loop_that_takes_too_long_is_cancelled_here(name: str) -> None:
    async def main() -> list[str]:
        errors, ended = list[str](), asyncio.Event()
        loop().set_exception_handler(lambda _loop, context: errors.append(str(context["exception"])))
        bots = BotsLoop()

        async def slow() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        def elsewhere() -> None:
            with pytest.raises(TimeoutError):
                asyncio.run(bots.call(slow, 0.05))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await ended.wait()
        await anyio.to_thread.run_sync(thread.join)
        return errors

    assert event_loop.run(name, main) == []


@pytest.mark.parametrize("name", LOOPS)
def test_it_can_cancel_its_own_tasks_and_those_that_libraries_start_for_it(name: str) -> None:
    async def cancels_its_own() -> str:
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 60)
            group.cancel_scope.cancel()
        with anyio.move_on_after(0.001):
            await asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))
        return "done"

    assert event_loop.run(name, by_author, cancels_its_own) == "done"


@pytest.mark.parametrize("name", LOOPS)
def test_a_process_whose_tasks_are_all_cancelled_all_the_same_ends_with_a_sentence(name: str) -> None:
    async def cancels_by_force() -> None:
        for task in asyncio.all_tasks():
            asyncio.Task.cancel(task)
        await asyncio.sleep(1)

    with pytest.raises(ChatbotError, match="code of a plugin canceled all tasks of the process"):
        event_loop.run(name, by_author, cancels_by_force)


@pytest.mark.parametrize("name", LOOPS)
def test_names_are_resolved_and_our_threads_work_while_handlers_keep_all_threads(name: str) -> None:
    gate = threading.Event()

    async def main() -> object:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(asyncio.to_thread, gate.wait)
                group.start_soon(anyio.to_thread.run_sync, gate.wait)
            await anyio.sleep(0.01)
            with anyio.fail_after(60):
                await anyio.getaddrinfo("localhost", 80)
                found = await run_in_thread(lambda: 7)
            gate.set()
        return found

    assert event_loop.run(name, main) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("name", LOOPS)
def test_a_copy_of_the_process_that_a_plugin_has_forked_does_not_go_on(name: str) -> None:
    async def forks() -> int:
        pid = os.fork()
        await asyncio.sleep(0)
        return os.waitstatus_to_exitcode((await run_in_thread(os.waitpid, pid, 0))[1])

    assert event_loop.run(name, by_author, forks) == 1


@pytest.mark.parametrize("name", LOOPS)
def test_a_task_factory_of_a_plugin_makes_its_own_tasks_alone(name: str) -> None:
    made = list[str]()

    def factory(running: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(coro.__name__)
        return asyncio.Task(coro, loop=running, **options)

    async def sets_it() -> None:
        loop().set_task_factory(factory)
        await asyncio.create_task(cancels_nothing())

    async def cancels_nothing() -> None: ...

    event_loop.run(name, by_author, sets_it)

    assert made == ["cancels_nothing"]
