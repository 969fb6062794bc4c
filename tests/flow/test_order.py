from __future__ import annotations

import anyio
import pytest

from chatbot import Context, Plugin
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time


def slow_echo() -> Plugin:
    plugin = Plugin("slow echo")

    @plugin.message(timeout=None)  # ten minutes are the default limit, and one of these takes them
    async def echo(ctx: Context) -> str:
        """Take as many seconds as the message says."""
        await anyio.sleep(float(ctx.text))
        return ctx.text

    return plugin


async def test_a_thread_is_handled_in_order_however_long_a_handler_takes() -> None:
    async with chat(slow_echo()) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.joins()
        await bob.joins()
        async with anyio.create_task_group() as group:
            group.start_soon(ann.says, "60")
            group.start_soon(bob.says, "0")

        assert [text for name, text in room.said if name != "bot"] == room.replies


async def test_a_slow_handler_holds_up_no_other_thread() -> None:
    async with chat(slow_echo()) as room:
        other = room.another()
        await room.user("Ann").joins()
        await other.user("Bob").joins()
        async with anyio.create_task_group() as group:
            group.start_soon(room.user("Ann").says, "600")
            group.start_soon(other.user("Bob").says, "1")

        assert other.messages[-1].text == "1"
        assert room.messages[-1].text == "600"
        assert room.messages[-1].id - other.messages[-1].id > 250_000


async def test_what_people_say_at_once_is_answered_one_by_one() -> None:
    async with chat(slow_echo()) as room:
        people = [room.user(name) for name in ("Ann", "Bob", "Cem", "Dee")]
        for person in people:
            await person.joins()
        async with anyio.create_task_group() as group:
            for number, person in enumerate(people):
                group.start_soon(person.says, str(number))

        assert room.replies == [text for name, text in room.said if name != "bot"]
        assert sorted(room.replies) == ["0", "1", "2", "3"]
