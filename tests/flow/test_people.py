from __future__ import annotations

import anyio
import pytest

from chatbot import Context, ParticipantsAdded, ParticipantsRemoved, Plugin, ThreadJoined, ThreadLeft, TopicUpdated
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time


def host(log: list[str] | None = None) -> Plugin:
    plugin = Plugin("host")
    noted = [] if log is None else log

    @plugin.on(ParticipantsAdded)
    async def added(ctx: Context[ParticipantsAdded]) -> str:
        return f"welcome {', '.join(one.display_name or one.user for one in ctx.event.participants)}"

    @plugin.on(ParticipantsRemoved)
    async def removed(ctx: Context[ParticipantsRemoved]) -> str:
        return f"bye {len(ctx.event.participants)}"

    @plugin.on(TopicUpdated)
    async def renamed(ctx: Context[TopicUpdated]) -> str:
        return f"so it is about {ctx.event.topic}"

    @plugin.on(ThreadJoined)
    async def joined(ctx: Context[ThreadJoined]) -> None:
        noted.append("joined")

    @plugin.on(ThreadLeft)
    async def left(ctx: Context[ThreadLeft]) -> None:
        noted.append("deleted" if ctx.event.is_deleted else "left")

    @plugin.message()
    async def echo(ctx: Context) -> str:
        return ctx.text

    return plugin


async def test_people_are_welcomed_and_seen_off() -> None:
    async with chat(host()) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.joins()
        await bob.says("hi")
        await bob.leaves()
        await ann.renames("tea")

        assert room.replies[0] == "welcome Ann"
        assert room.replies[2:] == ["welcome Bob", "hi", "bye 1", "so it is about tea"]
        assert room.people == ["Ann", "bot"]


async def test_who_comes_back_is_welcomed_again() -> None:
    async with chat(host()) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.joins()
        await bob.joins()
        await bob.leaves()
        await bob.joins()

        assert room.replies[2:] == ["welcome Bob", "bye 1", "welcome Bob"]


async def test_a_bot_that_is_removed_and_added_again_answers_what_comes_then() -> None:
    log: list[str] = []
    async with chat(host(log)) as room:
        ann = room.user("Ann")
        await ann.says("one")
        await ann.removes(room.bot)
        await ann.says("nobody hears this")
        await ann.adds(room.bot)
        await ann.says("two")

        assert room.replies[-2:] == ["one", "two"]
        assert log == ["joined", "left", "joined"]


async def test_a_bot_that_was_removed_while_it_was_down_learns_it_at_its_start() -> None:
    log: list[str] = []
    async with chat(host(log)) as room:
        ann = room.user("Ann")
        await ann.says("one")
        await room.kill()
        await ann.removes(room.bot)
        await room.start()
        await room.restart()

        assert log == ["joined", "left"]


async def test_a_bot_that_left_and_came_back_while_it_was_down_goes_on_at_its_return() -> None:
    async with chat(host()) as room:
        ann = room.user("Ann")
        await ann.says("one")
        await room.kill()
        await ann.says("before")
        await ann.removes(room.bot)
        await ann.says("between")
        await ann.adds(room.bot)
        await ann.says("after")
        await room.start()

        assert "between" not in room.replies
        assert room.replies[-1] == "after"


async def test_a_deleted_thread_is_left_without_a_failure() -> None:
    log: list[str] = []
    async with chat(host(log)) as room:
        other = room.another()
        await room.user("Ann").says("one")
        await other.user("Bob").says("two")
        await room.user("Ann").closes()
        await room.advance(hours=1)
        await other.user("Bob").says("three")

        assert log == ["joined", "joined", "deleted"]
        assert other.replies[-2:] == ["two", "three"]


async def test_a_bot_finds_every_thread_it_is_added_to() -> None:
    async with chat(host()) as room:
        rooms = [room.another(f"room {number}") for number in range(5)]
        for number, each in enumerate(rooms):
            await each.user("Ann").says(f"hello {number}")

        assert [each.replies[-1] for each in rooms] == [f"hello {number}" for number in range(5)]


async def test_a_bot_serves_many_threads_at_once() -> None:
    async with chat(host()) as room:
        rooms = [room.another(f"room {number}") for number in range(40)]
        async with anyio.create_task_group() as group:
            for number, each in enumerate(rooms):
                group.start_soon(each.user(f"Person {number}").says, f"hello {number}")

        assert [each.replies[-1] for each in rooms] == [f"hello {number}" for number in range(40)]


async def test_what_was_said_before_a_bot_was_added_is_not_answered() -> None:
    async with chat(host()) as room:
        ann = room.user("Ann")
        await ann.joins()
        await ann.removes(room.bot)
        await ann.says("old talk")
        await room.advance(days=2)
        await ann.adds(room.bot)
        await ann.says("new talk")

        assert "old talk" not in room.replies
        assert room.replies[-1] == "new talk"
