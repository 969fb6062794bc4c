"""After a kill, only a handler that was running is suspected of it."""

from __future__ import annotations

import anyio
import pytest

from chatbot import Context, Plugin, Retry
from chatbot.stores import MemoryStore
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time


async def test_a_handler_that_fails_after_a_kill_has_all_its_attempts_and_its_own_error_on_the_dead_letter() -> None:
    plugin, store, tries = Plugin("poison"), MemoryStore(), list[str]()

    @plugin.message(retry=Retry(attempts=5))
    async def fail(ctx: Context) -> None:
        tries.append(ctx.text)
        msg = "no luck"
        raise ValueError(msg)

    async with chat(plugin, store=store, raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.joins()
        await room.restart()

        await ann.says("hi")

        (letter,) = await store.dead_letters(room.bot.user)
        assert letter.error == "ValueError: no luck"
        assert tries == ["hi"] * letter.attempts == ["hi"] * 5


async def test_a_handler_that_waits_for_its_next_try_is_not_blamed_when_the_process_is_killed() -> None:
    plugin, store, failed = Plugin("shaky"), MemoryStore(), list[anyio.Event]()

    @plugin.message()
    async def shake(ctx: Context) -> str:
        if not failed[-1].is_set():
            failed[-1].set()
            msg = "the first attempt of a process fails"
            raise ValueError(msg)
        return "steady"

    async with chat(plugin, store=store, raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.joins()
        await room.kill()
        await ann.says("hi")
        for _ in range(5):
            failed.append(anyio.Event())
            async with anyio.create_task_group() as group:
                group.start_soon(room.start)
                await failed[-1].wait()
                await anyio.sleep(0.1)  # of virtual time: the next try is due in about a second
                await room.kill()
        failed.append(anyio.Event())
        await room.start()

        assert room.replies == ["steady"]
        assert await store.dead_letters(room.bot.user) == []
