"""Processes of two versions use one store: side by side where both can share it, in turn where one cannot.

`tests/upgrade/f35c191/store.sql` is what the version of that commit left when it was killed, with `EVERYTHING` in it.
It knew of no sharing: one process at a time held the store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from chatbot.actions import ActionKey
from chatbot.errors import StoreError, StoreInUse, StoreTooNew
from chatbot.stores import postgres_dialect
from chatbot.stores.memory import MemoryStore
from chatbot.stores.postgres import PostgresStore
from chatbot.stores.shards import ALL_SHARDS, SHARDS
from chatbot.stores.writes import MarkSeen
from tests.contracts.records import BOT, HALL, begin, only_thread
from tests.postgres.test_copying import EVERYTHING, contents
from tests.postgres.test_sharing import joined
from tests.support.postgres import PostgresServer, other_program

pytestmark = pytest.mark.postgres

OLD = Path(__file__).parents[1] / "upgrade" / "f35c191" / "store.sql"

# What the old version said to the server.
LOCK = "SELECT pg_try_advisory_lock(hashtext('chatbot ' || $1::text), 0)"
CLAIM = "UPDATE shard SET epoch = epoch + 1, owner = $1 WHERE id = 0 RETURNING epoch"
COMMIT = "UPDATE shard SET commits = commits + 1 WHERE id = 0 AND epoch = $1 RETURNING commits"
VERSION = "SELECT version FROM store_version WHERE application = 'chatbot'"


@pytest.fixture
async def old_store(postgres_server: PostgresServer, postgres_schema: str) -> None:
    text = (
        OLD.read_text("utf-8")
        .replace("chatbot.", f"{postgres_schema}.")
        .replace("SCHEMA chatbot;", f"SCHEMA {postgres_schema};")
    )
    await anyio.to_thread.run_sync(postgres_server.psql, text)


async def beat(connection: Any) -> None:
    while True:
        await connection.fetchval("SELECT 1")
        await anyio.sleep(0.5)


@pytest.mark.usefixtures("old_store")
async def test_a_store_that_knew_of_no_sharing_is_shared_with_all_that_is_in_it(postgres_url: str) -> None:
    async with MemoryStore() as memory:
        await memory.commit(BOT, EVERYTHING)
        expected = await contents(memory)

    async with joined(postgres_url) as one, joined(postgres_url) as two:
        await one.owns(SHARDS // 2)
        await two.owns(SHARDS // 2)
        assert await contents(one.store) == expected
        assert one.after_crash  # the old version was killed
        assert (await one.store.row(BOT, ActionKey("a"))) is not None


@pytest.mark.usefixtures("old_store")
async def test_an_older_version_and_those_who_share_exclude_each_other(postgres_url: str, postgres_schema: str) -> None:
    async with other_program(postgres_url) as old:
        assert await old.fetchval(LOCK, postgres_schema)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(beat, old)
            with pytest.raises(StoreInUse, match=r"another process \(old\.example\.com, pid 6500\)"):
                await PostgresStore(postgres_url, is_shared=True).__aenter__()
            tasks.cancel_scope.cancel()
    async with joined(postgres_url) as one, other_program(postgres_url) as old:
        await one.owns(SHARDS)
        assert not await old.fetchval(LOCK, postgres_schema)


@pytest.mark.usefixtures("old_store")
async def test_an_older_version_can_go_on_with_the_tables_of_this_one_and_this_one_after_it(
    postgres_url: str, postgres_schema: str
) -> None:
    epoch = 0
    for _ in range(2):
        async with joined(postgres_url) as one:
            await one.owns(SHARDS)
            await one.store.commit(BOT, [MarkSeen(HALL, {9: 9})], shards=ALL_SHARDS)
        async with other_program(postgres_url) as old:
            assert await old.fetchval(VERSION) == 8  # it compares it with its own
            assert await old.fetchval(LOCK, postgres_schema)
            epoch = await old.fetchval(CLAIM, "old")
            assert await old.fetchval(COMMIT, epoch)
    async with joined(postgres_url) as one, other_program(postgres_url) as old:
        await one.owns(SHARDS)
        assert await old.fetchval(COMMIT, epoch) is None  # it was paused, and wakes up


@pytest.mark.usefixtures("old_store")
async def test_a_process_that_an_older_version_has_replaced_ends(postgres_url: str, postgres_schema: str) -> None:
    async with joined(postgres_url) as one, other_program(postgres_url) as old:
        await one.owns(SHARDS)
        await old.fetchval(CLAIM, "old")
        with pytest.raises(StoreInUse, match="another chatbot has taken over"):
            await one.store.commit(BOT, [MarkSeen(HALL, {9: 9})], shards=ALL_SHARDS)
        assert isinstance(await one.store.lost(), StoreInUse)
        await one.owns(0)
        assert not one.store.is_held


@asynccontextmanager
async def newer_version(*, oldest_user: int) -> AsyncIterator[None]:
    """The next version of chatbot, in which a table has another column."""
    known, addition = postgres_dialect.migrations(), "ALTER TABLE thread ADD COLUMN mood BIGINT NOT NULL DEFAULT 0"
    with pytest.MonkeyPatch.context() as future:
        future.setattr(postgres_dialect, "migrations", lambda: [*known, [addition]])
        future.setattr(postgres_dialect, "OLDEST_USER", oldest_user)
        yield


async def test_a_newer_version_joins_while_this_one_writes_and_both_go_on_in_turn(
    postgres_server: PostgresServer, postgres_url: str, postgres_schema: str
) -> None:
    async with joined(postgres_url) as present:
        await present.owns(SHARDS)
        await present.store.commit(BOT, [begin()])
        is_over = False

        async def write() -> None:
            while not is_over:
                await present.store.commit(BOT, [MarkSeen(HALL, {6: 6})])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            async with newer_version(oldest_user=8), joined(postgres_url) as newer:
                await newer.owns(SHARDS // 2)
                await newer.store.commit(BOT, [MarkSeen(HALL, {7: 7})], shards=newer.owned)
            is_over = True
        async with joined(postgres_url) as again:
            await again.owns(SHARDS // 2)
            await again.store.commit(BOT, [MarkSeen(HALL, {8: 8})], shards=again.owned)
            assert (await only_thread(again.store)).seen == {6: 6, 7: 7, 8: 8}
    versions = f"SELECT version, reached FROM {postgres_schema}.store_version"
    assert await anyio.to_thread.run_sync(postgres_server.psql, versions) == "8|9"


async def test_a_version_that_the_tables_have_outgrown_is_refused(postgres_url: str) -> None:
    async with newer_version(oldest_user=9), PostgresStore(postgres_url):
        pass

    with pytest.raises(StoreTooNew, match="has version 9 of the store, and this chatbot knows up to 8"):
        await PostgresStore(postgres_url, is_shared=True).__aenter__()


async def test_a_table_that_is_locked_is_changed_when_it_is_free_again(postgres_url: str, postgres_schema: str) -> None:
    """Waiting for a lock keeps everybody else from the table, so each attempt is a short one."""
    async with joined(postgres_url) as present, other_program(postgres_url) as reader:
        await present.owns(SHARDS)
        await present.store.commit(BOT, [begin()])
        transaction = reader.transaction()
        await transaction.start()
        await reader.fetch("SELECT * FROM thread")
        async with anyio.create_task_group() as tasks:
            opened = anyio.Event()

            async def upgrade() -> None:
                async with newer_version(oldest_user=8), PostgresStore(postgres_url, is_shared=True):
                    opened.set()

            tasks.start_soon(upgrade)
            for number in range(5):
                await present.store.commit(BOT, [MarkSeen(HALL, {7 + number: 7})])
                await anyio.sleep(0.3)
            assert not opened.is_set()
            await transaction.rollback()


async def test_a_schema_of_another_program_is_refused_by_those_who_share_too(
    postgres_server: PostgresServer, postgres_url: str, postgres_schema: str
) -> None:
    sql = f"CREATE SCHEMA {postgres_schema}; CREATE TABLE {postgres_schema}.replica (id integer)"
    await anyio.to_thread.run_sync(postgres_server.psql, sql)

    with pytest.raises(StoreError, match="has tables of another program"):
        await PostgresStore(postgres_url, is_shared=True).__aenter__()
