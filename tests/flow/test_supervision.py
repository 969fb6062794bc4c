"""Trouble from outside: what is known is kept, each change is said once, and all goes on by itself afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
import structlog

from chatbot.stores import SqliteStore
from chatbot.testing import chat
from tests.support.plugins import echo

pytestmark = pytest.mark.virtual_time

Said = list[dict[str, Any]]


@pytest.fixture
def said() -> Iterator[Said]:
    """What the bots log."""
    lines: Said = []

    def keep(_logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        lines.append(dict(event))
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    yield lines
    structlog.reset_defaults()


def troubles(said: Said, work: str) -> list[str]:
    """The beginnings and ends of trouble with this kind of work, in their order."""
    events = ("trouble.began", "trouble.ended")
    return [line["event"].partition(".")[2] for line in said if line["event"] in events and line["work"] == work]


@pytest.mark.parametrize("fault", ["refuse", "reset", "503", "401", "expired-token", "hang", "429"])
async def test_a_service_that_is_away_for_an_hour_is_said_once_and_its_return_once(said: Said, fault: str) -> None:
    async with chat(echo()) as room:
        ann, ben = room.user("Ann"), room.another("yard").user("Ben")
        await ann.says("one")
        await ben.says("one")
        room.emulator.faults.add(f"*:{fault},user={room.bot.user}")
        with room.not_waiting():
            await ann.says("two")
            await ben.says("two")
            await room.advance(hours=1)
        during = list(said)
        room.emulator.faults.clear()
        await room.settle()
        await room.advance(minutes=10)

        for work in ("read", "list threads"):
            assert troubles(during, work) == ["began"]
            assert troubles(said, work) == ["began", "ended"]
        assert not [line for line in said if line["event"] in ("turn.failed", "bot.crashed")]
        assert room.replies == ["one", "two"]


async def test_tokens_that_cannot_be_renewed_are_said_once_and_renewed_afterwards(said: Said) -> None:
    async with chat(echo()) as room:
        ann = room.user("Ann")
        await ann.says("one")
        room.emulator.revoke_tokens(room.bot.user)
        room.emulator.faults.add("issue_token:401")
        with room.not_waiting():
            await ann.says("two")
            await room.advance(hours=1)
        during = list(said)
        room.emulator.faults.clear()
        await room.settle()
        await room.advance(minutes=10)

        assert troubles(during, "read") == ["began"]
        assert troubles(said, "read") == ["began", "ended"]
        assert room.replies == ["one", "two"]


async def test_one_thread_that_cannot_be_read_is_said_once_while_others_can(said: Said) -> None:
    async with chat(echo()) as room:
        elsewhere = room.another("yard")
        ann, ben = room.user("Ann"), elsewhere.user("Ben")
        await ann.says("one")
        await ben.says("one")
        room.emulator.faults.add(f"list_messages:503,user={room.bot.user},thread={room.thread}")
        with room.not_waiting():
            await ann.says("two")
        for number in range(20):
            with room.not_waiting():
                await ben.says(f"{number}")
                await room.advance(minutes=1)
        assert troubles(said, "read") == ["began"]
        assert elsewhere.replies == ["one", *map(str, range(20))]
        room.emulator.faults.clear()
        await room.settle()

        assert troubles(said, "read") == ["began", "ended"]
        assert room.replies == ["one", "two"]


async def test_failures_that_change_their_kind_are_not_said_at_every_look(said: Said) -> None:
    async with chat(echo()) as room:
        await room.user("Ann").says("one")
        room.emulator.faults.add(f"*:refuse,user={room.bot.user},every=2")
        room.emulator.faults.add(f"*:503,user={room.bot.user}")
        with room.not_waiting():
            await room.user("Ann").says("two")
            await room.advance(hours=1)

        assert len(troubles(said, "read")) <= 2
        assert len(troubles(said, "list threads")) <= 2


@pytest.mark.parametrize("seconds", [-7200, -30, 30, 7200, 86_400 * 3])
async def test_a_jump_of_the_clock_loses_and_doubles_nothing(seconds: int) -> None:
    """A laptop that slept, a clock that was set: the service and this machine suddenly disagree, then agree again."""
    async with chat(echo()) as room:
        ann = room.user("Ann")
        await ann.says("one")
        room.emulator.faults.add(f"*:skew={seconds}")
        await ann.says("two")
        await room.advance(minutes=10)
        await ann.says("three")
        await room.restart()
        await ann.says("four")
        await room.advance(minutes=10)

        assert room.replies == ["one", "two", "three", "four"]


# ── the store ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_store_that_another_program_locks_is_said_once_and_used_again_afterwards(
    said: Said, tmp_path: Path
) -> None:
    async with chat(echo(), store=SqliteStore(tmp_path / "bot.db", busy_seconds=0)) as room:
        elsewhere = room.another("yard")
        ann, ben = room.user("Ann"), elsewhere.user("Ben")
        await ann.says("one")
        await ben.says("one")
        with sqlite3.connect(tmp_path / "bot.db", check_same_thread=False, isolation_level=None) as other:
            await anyio.to_thread.run_sync(other.execute, "BEGIN IMMEDIATE")
            with room.not_waiting():
                await ann.says("two")
                await ben.says("two")
                await room.advance(minutes=20)
            assert (room.replies, elsewhere.replies) == (["one"], ["one"])
            assert troubles(said, "store") == ["began"]
            await anyio.to_thread.run_sync(other.execute, "ROLLBACK")
        other.close()
        await room.settle()
        await room.advance(minutes=10)

        assert troubles(said, "store") == ["began", "ended"]
        assert (room.replies, elsewhere.replies) == (["one", "two"], ["one", "two"])


async def test_a_store_that_was_moved_away_is_said_once_and_used_again_when_it_is_back(
    said: Said, tmp_path: Path
) -> None:
    path, away = tmp_path / "bot.db", tmp_path / "away"
    async with chat(echo(), store=SqliteStore(path)) as room:
        ann = room.user("Ann")
        await ann.says("one")
        await anyio.to_thread.run_sync(path.rename, away)
        with room.not_waiting():
            await ann.says("two")
            await room.advance(minutes=20)
        assert room.replies == ["one"]
        assert troubles(said, "store") == ["began"]
        await anyio.to_thread.run_sync(away.rename, path)
        await room.settle()
        await room.advance(minutes=5)
        await room.restart()

        assert troubles(said, "store") == ["began", "ended"]
        assert room.replies == ["one", "two"]
