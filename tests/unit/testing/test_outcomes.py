"""Pytest's outcomes and a real Ctrl-C end a test at once, wherever in a handler they come from."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import anyio
import pytest

from chatbot import Context, Plugin
from chatbot.errors import AbnormalExit
from chatbot.testing import EventStream, chat

pytestmark = pytest.mark.virtual_time

Ending = Callable[[], Awaitable[None]]


async def fails() -> None:
    pytest.fail("no")


async def skips() -> None:
    pytest.skip("no")


async def exits() -> None:
    pytest.exit("no")


async def fails_in_a_group() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(fails)


async def is_interrupted() -> None:
    os.kill(os.getpid(), signal.SIGINT)


ENDINGS: list[tuple[Ending, type[BaseException]]] = [
    (fails, pytest.fail.Exception),
    (skips, pytest.skip.Exception),
    (exits, pytest.exit.Exception),
    (fails_in_a_group, pytest.fail.Exception),
    (is_interrupted, KeyboardInterrupt),
]


@contextmanager
def interrupts_are_raised() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt where it strikes; asyncio's runner would cancel the test's task instead."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("ending", "error"), ENDINGS)
async def test_what_ends_a_test_ends_a_chat_at_once(ending: Ending, error: type[BaseException]) -> None:
    plugin, calls = Plugin("ends"), list[str]()

    @plugin.message()
    async def end(ctx: Context) -> None:
        calls.append(ctx.text)
        await ending()

    with interrupts_are_raised(), pytest.raises(error) as caught:
        async with chat(plugin, raise_failures=False) as room:
            await room.user("Ann").says("one", "two")
    assert type(caught.value) is error
    assert calls == ["one"]


@pytest.mark.parametrize(("ending", "error"), ENDINGS)
async def test_what_ends_a_test_ends_an_event_stream_at_once(ending: Ending, error: type[BaseException]) -> None:
    plugin, stream = Plugin("ends"), EventStream()

    @plugin.message()
    async def end(ctx: Context) -> None:
        await ending()

    stream += stream.user("Ann").said("one")
    with interrupts_are_raised(), pytest.raises(error):
        await stream.into(plugin, should_raise=False)


async def test_an_interrupt_that_a_handler_raises_itself_is_a_failure_of_its_event() -> None:
    plugin = Plugin("raises")

    @plugin.command("x")
    async def x(ctx: Context) -> None:
        raise KeyboardInterrupt

    @plugin.message()
    async def others(ctx: Context) -> str:
        return "still here"

    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").says("/x", "next")

        assert room.replies == ["still here"]
        assert {type(failure.error) for failure in room.failures} == {AbnormalExit}
