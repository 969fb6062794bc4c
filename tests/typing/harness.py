"""What an author writes in tests, as type checkers see it. Checked by mypy --strict and pyright, never run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true, reportUnusedFunction=false

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from chatbot import MessageId, Plugin, ThreadId, UserId
from chatbot.stores import MemoryStore
from chatbot.testing import Failure, Person, Room, VirtualClock, chat

one, two = Plugin("one"), Plugin("two")


async def test_a_bot() -> None:
    async with chat(one, two, name="dice", store=MemoryStore(), patience=timedelta(minutes=1)) as room:
        assert_type(room, Room)
        ann = room.user("Ann")
        assert_type(ann, Person)
        assert_type(await ann.says("hi", "/roll 2 6"), MessageId)
        await ann.edits("hello")
        await ann.adds(room.bot, room.user("Bob"))
        await room.advance(days=1, hours=0.5)
        await room.advance(timedelta(days=1))
        assert_type(room.replies, list[str])
        assert_type(room.said, list[tuple[str, str]])
        assert_type(room.read, dict[str, str])
        assert_type(room.transcript, str)
        assert_type(room.failures, list[Failure])
        assert_type(room.thread, ThreadId)
        assert_type(room.bot.user, UserId)
        with room.not_waiting():
            await room.another("tea").user("Ann").joins()


async def test_bots(virtual_time: VirtualClock) -> None:
    async with chat(bots={"one": [one], "two": [two]}, raise_failures=False) as room:
        assert_type(virtual_time(), float)
        await room.user("Ann").removes(room.bots["one"])


async def test_mistakes() -> None:
    async with chat("plugins.echo") as room:  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await room.user("Ann").says(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await room.advance(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        room.replies = []  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
