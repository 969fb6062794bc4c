from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, datetime
from typing import Any

import anyio
import anyio.to_thread
import pytest

from chatbot.errors import StateError
from chatbot.testing.virtual_time import START, Stuck, VirtualClock, VirtualTimeLoop, virtual_loop

DAY_SECONDS = 86_400


def run(test: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(test)


def test_a_year_of_sleeping_takes_no_time() -> None:
    async def sleep() -> float:
        await anyio.sleep(365 * DAY_SECONDS)
        return anyio.current_time()

    assert run(sleep()) == pytest.approx(365 * DAY_SECONDS)


def test_short_sleeps_still_end_after_centuries() -> None:
    async def sleep() -> float:
        await anyio.sleep(200 * 365 * DAY_SECONDS)
        before = anyio.current_time()
        for _ in range(100):
            await anyio.sleep(0.001)
        return anyio.current_time() - before

    assert run(sleep()) == pytest.approx(0.1, abs=1e-3)


def test_sleepers_wake_in_the_order_of_their_deadlines() -> None:
    woken: list[float] = []

    async def sleep(seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append(seconds)

    async def sleepers() -> None:
        async with anyio.create_task_group() as group:
            for seconds in (3600, 0.5, 60, 0):
                group.start_soon(sleep, seconds)

    run(sleepers())

    assert woken == [0, 0.5, 60, 3600]


def test_a_timeout_ends_what_would_hang_at_once() -> None:
    async def hang() -> None:
        with anyio.fail_after(3600):
            await anyio.Event().wait()

    with pytest.raises(TimeoutError):
        run(hang())


def test_a_real_hang_is_an_error_that_names_the_places() -> None:
    async def wait_for_ever() -> None:
        await anyio.Event().wait()

    async def hang() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(wait_for_ever, name="the waiting one")
            await wait_for_ever()

    with pytest.raises(Stuck) as caught:
        run(hang())

    assert "the waiting one: " in str(caught.value)
    assert f"{__file__}:" in str(caught.value)
    assert "wait_for_ever" in str(caught.value)


def test_a_hang_inside_an_async_generator_is_found() -> None:
    async def never() -> AsyncIterator[int]:
        await asyncio.get_running_loop().create_future()
        yield 1

    async def hang() -> None:
        async with contextlib.aclosing(never()) as numbers:
            async for _ in numbers:
                pass

    with pytest.raises(Stuck, match="never"):
        run(hang())


def test_tasks_that_wake_each_other_for_ever_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def spin() -> None:
        with anyio.fail_after(1):
            while True:
                await anyio.lowlevel.checkpoint()

    monkeypatch.setattr("chatbot.testing.virtual_time.MAX_REAL_SECONDS", 0.05)

    with pytest.raises(Stuck, match=r"virtual time does not advance(.|\n)* in .*spin"):
        run(spin())


def test_tasks_that_wait_for_less_than_the_clock_can_tell_do_not_stop_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatbot.testing.virtual_time.MAX_REAL_SECONDS", 0.5)

    async def wait_until(due: float, turns: int) -> None:
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        while anyio.current_time() < due:  # noqa: ASYNC110 this is what the clock must get along with
            await anyio.sleep(due - anyio.current_time())

    async def wait() -> float:
        async with anyio.create_task_group() as group:
            for turns in range(3):
                group.start_soon(wait_until, 5e-7, turns)
        return anyio.current_time()

    assert run(wait()) < 1e-4


def test_what_hangs_can_clean_up() -> None:
    steps: list[str] = []

    async def hang() -> None:
        try:
            await anyio.Event().wait()
        finally:
            await anyio.lowlevel.cancel_shielded_checkpoint()
            steps.append("cleaned up")

    with pytest.raises(Stuck):
        run(hang())

    assert steps == ["cleaned up"]


def test_time_stands_still_while_a_worker_thread_works() -> None:
    async def work() -> tuple[float, float]:
        with anyio.fail_after(5):
            await anyio.to_thread.run_sync(time.sleep, 0.05)
            by_anyio = anyio.current_time()
            await asyncio.to_thread(time.sleep, 0.05)
        return by_anyio, anyio.current_time()

    assert run(work()) == (0, 0)


def test_a_worker_thread_that_has_nothing_to_do_stops_no_time() -> None:
    async def work() -> float:
        await anyio.to_thread.run_sync(math.sqrt, 2)
        await anyio.sleep(DAY_SECONDS)
        return anyio.current_time()

    assert run(work()) == DAY_SECONDS


def test_other_tasks_run_on_while_a_thread_works() -> None:
    release = threading.Event()

    async def work() -> bool:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, release.wait)
            await anyio.lowlevel.checkpoint()
            release.set()
        return release.is_set()

    assert run(work())


def test_time_stands_still_for_threads_that_are_told_of() -> None:
    async def work() -> float:
        loop, done = virtual_loop(), asyncio.Event()
        assert loop is not None
        thread = threading.Timer(0.05, loop.call_soon_threadsafe, [done.set])
        thread.start()
        with loop.work_outside():
            await done.wait()
        thread.join()
        return anyio.current_time()

    assert run(work()) == 0


def test_work_outside_that_never_ends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        loop = virtual_loop()
        assert loop is not None
        with loop.work_outside():
            await anyio.sleep(1)

    monkeypatch.setattr("chatbot.testing.virtual_time.MAX_REAL_SECONDS", 0.05)

    with pytest.raises(Stuck, match="worker thread"):
        run(work())


async def connect() -> None:
    await asyncio.open_connection("127.0.0.1", 9)


async def serve() -> None:
    await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)


async def start_process() -> None:
    await asyncio.create_subprocess_exec(sys.executable, "-c", "")


@pytest.mark.parametrize("io", [connect, serve, start_process])
def test_real_sockets_and_processes_are_refused_with_a_remedy(io: Any) -> None:
    with pytest.raises(StateError, match="without the virtual_time marker"):
        run(io())


def test_the_refusal_names_the_socket() -> None:
    ours, theirs = socket.socketpair()

    async def read() -> bytes:
        return await asyncio.get_running_loop().sock_recv(ours, 1)

    with ours, theirs:
        ours.setblocking(False)
        with pytest.raises(StateError, match=f"file descriptor {ours.fileno()}"):
            run(read())


def test_the_clock_starts_at_a_fixed_date_and_runs_with_the_loop() -> None:
    async def look() -> tuple[datetime, float, datetime]:
        clock = VirtualClock()
        began = clock.now()
        await anyio.sleep(90)
        return began, clock(), clock.now()

    began, seconds, then = run(look())

    assert began == START == datetime(2024, 1, 1, tzinfo=UTC)
    assert seconds == START.timestamp() + 90
    assert then == datetime(2024, 1, 1, 0, 1, 30, tzinfo=UTC)


def test_a_clock_of_a_loop_can_be_read_outside_of_it() -> None:
    loop = VirtualTimeLoop()
    clock = VirtualClock(loop, start=datetime(2030, 6, 1, tzinfo=UTC))

    loop.run_until_complete(asyncio.sleep(1))
    loop.close()

    assert clock.now() == datetime(2030, 6, 1, 0, 0, 1, tzinfo=UTC)


async def test_on_a_real_loop_there_is_no_virtual_clock() -> None:
    assert virtual_loop() is None
    with pytest.raises(StateError, match=r"@pytest\.mark\.virtual_time"):
        VirtualClock()()
