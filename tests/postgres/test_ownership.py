"""One process at a time owns a store on PostgreSQL, and the server refuses what others write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from chatbot.errors import StoreError, StoreInUse
from chatbot.stores.base import EndableStore, OwnedStore
from chatbot.stores.postgres import PostgresStore
from chatbot.stores.writes import MarkSeen
from tests.contracts.records import BOT, HALL, begin, only_thread
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.postgres

OWNING = """
import sys, anyio
from chatbot.errors import StoreError
from chatbot.stores.postgres import PostgresStore
from chatbot.stores.writes import MarkSeen
from tests.contracts.records import BOT, HALL, begin

async def main():
    async with PostgresStore(sys.argv[1]) as store:
        await store.commit(BOT, [begin()])
        print("owns", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        try:
            await store.commit(BOT, [MarkSeen(HALL, {1: 1})])
        except StoreError as error:
            print(type(error).__name__, error, store.is_held, flush=True)
        else:
            print("written", flush=True)

anyio.run(main)
"""


LOGGING_ELSEWHERE = """\
import structlog, sys
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
"""
"""What the store logs, at any time, must not get between the lines of a script."""


def script_process(script: str, url: str) -> subprocess.Popen[str]:
    """Start a script that uses a store, and talks with its test line by line."""
    return subprocess.Popen(
        [sys.executable, "-c", LOGGING_ELSEWHERE + script, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def owner_process(url: str) -> subprocess.Popen[str]:
    process = script_process(OWNING, url)
    assert process.stdout is not None
    assert process.stdout.readline() == "owns\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    with process:  # closes its pipes
        pass


def test_a_store_is_one_that_can_be_lost_and_that_ends_with_its_process(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)

    assert isinstance(store, OwnedStore)
    assert isinstance(store, EndableStore)
    assert "swordfish" not in repr(store)


async def test_a_second_process_is_refused_and_told_who_owns_the_store(postgres_url: str) -> None:
    process = await anyio.to_thread.run_sync(owner_process, postgres_url)
    try:
        with pytest.raises(StoreInUse) as refused:
            await PostgresStore(postgres_url).__aenter__()
    finally:
        end(process)

    assert f"pid {process.pid}" in str(refused.value)
    assert "stop that one first" in str(refused.value)
    assert "swordfish" not in str(refused.value)


async def test_after_kill_9_the_next_process_owns_the_store_at_once_and_knows(postgres_url: str) -> None:
    process = await anyio.to_thread.run_sync(owner_process, postgres_url)
    end(process)

    async with PostgresStore(postgres_url) as store:
        assert store.was_killed
        assert store.is_held
        assert (await only_thread(store)).seen == {}
    async with PostgresStore(postgres_url) as store:
        assert not store.was_killed


async def test_what_a_paused_process_writes_after_another_took_over_is_refused(postgres_url: str) -> None:
    process = await anyio.to_thread.run_sync(owner_process, postgres_url)
    try:
        os.kill(process.pid, signal.SIGSTOP)
        async with PostgresStore(postgres_url) as store:  # once the server has ended the silent session
            os.kill(process.pid, signal.SIGCONT)
            answer, _ = await anyio.to_thread.run_sync(process.communicate, "\n")
            seen = (await only_thread(store)).seen
    finally:
        end(process)

    answer = answer.splitlines()[-1]
    assert answer.startswith("StoreInUse another chatbot has taken over the store"), answer
    assert answer.endswith(" False")
    assert seen == {}


async def test_a_store_that_is_taken_over_is_lost_for_good(postgres_server: PostgresServer, postgres_url: str) -> None:
    schema = postgres_url.rpartition("=")[2]
    async with PostgresStore(postgres_url) as store:
        await store.commit(BOT, [begin()])
        await anyio.to_thread.run_sync(
            postgres_server.psql, f"UPDATE {schema}.shard SET epoch = epoch + 1, owner = 'other'"
        )

        with pytest.raises(StoreInUse, match="another chatbot has taken over"):
            await store.commit(BOT, [MarkSeen(HALL, {1: 1})])
        problem = await store.lost()

        assert isinstance(problem, StoreInUse)
        assert not store.is_held
        with pytest.raises(StoreInUse, match="this process must end"):
            await store.commit(BOT, [MarkSeen(HALL, {2: 2})])
        assert (await only_thread(store)).seen == {}


async def test_the_owner_finds_out_by_itself_that_it_was_taken_over(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    schema = postgres_url.rpartition("=")[2]
    async with PostgresStore(postgres_url) as store:
        await anyio.to_thread.run_sync(
            postgres_server.psql, f"UPDATE {schema}.shard SET epoch = epoch + 1, owner = 'other'"
        )

        assert isinstance(await store.lost(), StoreInUse)


async def test_a_server_that_has_lost_commits_ends_its_owner(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """As a standby has that was behind when it took over, or a backup that was restored."""
    schema = postgres_url.rpartition("=")[2]
    async with PostgresStore(postgres_url) as store:
        await store.commit(BOT, [begin()])
        await store.commit(BOT, [MarkSeen(HALL, {1: 1})])
        rewind = f"UPDATE {schema}.replica SET commits = commits - 1; {ENDING_SESSIONS}"
        await anyio.to_thread.run_sync(postgres_server.psql, rewind)

        with pytest.raises(StoreError, match="has lost commits that it had confirmed"):
            await store.commit(BOT, [MarkSeen(HALL, {2: 2})])
        assert "has lost commits" in str(await store.lost())


ENDING_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'chatbot' AND pid <> "
    "pg_backend_pid()"
)
