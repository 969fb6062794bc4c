"""The server undoes a commit, or ends what takes too long: the same again is tried, or one sentence says why not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import anyio
import anyio.to_thread
import asyncpg
import pytest

from chatbot.errors import StoreError
from chatbot.stores import postgres_server
from chatbot.stores.postgres import PostgresStore
from chatbot.stores.records import StateKey
from chatbot.stores.shards import ALL_SHARDS, SHARDS
from chatbot.stores.sql import Statement
from chatbot.stores.writes import MarkSeen, SaveState
from tests.contracts.records import BOT, HALL, begin, only_thread
from tests.postgres.test_sharing import joined, other_process
from tests.support.postgres import PostgresServer, other_program

pytestmark = pytest.mark.postgres


async def fail(server: PostgresServer, schema: str, code: str, times: int) -> None:
    """Let the server undo the next changes of `seen`, as it does by itself with this code."""
    sql = f"""
        CREATE SEQUENCE IF NOT EXISTS {schema}.failures;
        CREATE OR REPLACE FUNCTION {schema}.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('{schema}.failures') <= {times} THEN
                RAISE EXCEPTION USING ERRCODE = '{code}', MESSAGE = 'provoked';
            END IF;
            RETURN NEW;
        END $$;
        DROP TRIGGER IF EXISTS fail ON {schema}.seen;
        CREATE TRIGGER fail BEFORE INSERT ON {schema}.seen FOR EACH ROW EXECUTE FUNCTION {schema}.fail();"""
    await anyio.to_thread.run_sync(server.psql, sql)


@pytest.mark.parametrize("code", ["40001", "40P01", "55P03", "57014"])
async def test_what_the_server_undoes_because_of_others_is_tried_again(
    postgres_server: PostgresServer, postgres_url: str, postgres_schema: str, code: str
) -> None:
    async with joined(postgres_url) as one:
        await one.owns(SHARDS)
        await one.store.commit(BOT, [begin()])
        await fail(postgres_server, postgres_schema, code, 2)
        await one.store.commit(BOT, [MarkSeen(HALL, {6: 6})], shards=ALL_SHARDS)

        assert (await only_thread(one.store)).seen == {6: 6}
        assert one.store.is_held


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("40001", "other programs change the same rows: end them"),
        ("53100", "its disk is full: free some space"),
        ("53200", "it is out of memory"),
        ("25006", "it only reads, as a standby does"),
    ],
)
async def test_what_does_not_go_away_is_explained_and_changes_nothing_and_ends_nothing(
    postgres_server: PostgresServer, postgres_url: str, postgres_schema: str, code: str, remedy: str
) -> None:
    async with joined(postgres_url) as one:
        await one.owns(SHARDS)
        await one.store.commit(BOT, [begin()])
        await fail(postgres_server, postgres_schema, code, 4)
        with pytest.raises(StoreError, match=remedy):
            await one.store.commit(BOT, [MarkSeen(HALL, {6: 6})], shards=ALL_SHARDS)
        assert (await only_thread(one.store)).seen == {}
        await fail(postgres_server, postgres_schema, code, 0)
        await one.store.commit(BOT, [MarkSeen(HALL, {7: 7})], shards=ALL_SHARDS)

        assert (await only_thread(one.store)).seen == {7: 7}
        assert one.owned == ALL_SHARDS


@pytest.fixture(params=["LOCK_SECONDS", "STATEMENT_SECONDS"])
def short(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What is short: the server's patience with locks, or with statements."""
    monkeypatch.setattr(postgres_server, request.param, 0.4)
    return request.param


@pytest.mark.usefixtures("short")
async def test_a_commit_that_waits_for_another_program_is_made_when_that_ends(
    postgres_url: str, postgres_schema: str
) -> None:
    async with joined(postgres_url) as one, other_program(postgres_url) as other:
        await one.owns(SHARDS)
        await one.store.commit(BOT, [begin()])
        transaction = other.transaction()
        await transaction.start()
        await other.execute("LOCK TABLE seen")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.store.commit, BOT, [MarkSeen(HALL, {6: 6})])
            await anyio.sleep(0.6)
            await transaction.rollback()

        assert (await only_thread(one.store)).seen == {6: 6}
        assert one.store.is_held


async def test_a_deadlock_with_another_program_ends_and_the_commit_is_made_once(
    postgres_url: str, postgres_schema: str
) -> None:
    first, second = StateKey("a"), StateKey("b")
    async with PostgresStore(postgres_url) as store, other_program(postgres_url) as other:
        await store.commit(BOT, [SaveState(first, "1", None, 1), SaveState(second, "1", None, 1)])
        transaction = other.transaction()
        await transaction.start()
        await other.execute("UPDATE state SET value = '2' WHERE name = 'b'")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.commit, BOT, [SaveState(first, "3", 1, 2), SaveState(second, "3", 1, 2)])
            while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110
                await anyio.sleep(0.02)
            try:
                await other.execute("UPDATE state SET value = '2' WHERE name = 'a'")
                await transaction.commit()
            except asyncpg.DeadlockDetectedError:
                await transaction.rollback()

        states = [await store.state(BOT, key) for key in (first, second)]
        assert [(state.value, state.version) for state in states if state] == [("3", 2), ("3", 2)]


PAUSING = """
import os, signal, sys, time, anyio
from chatbot.stores.postgres import PostgresStore
from chatbot.stores.sql import Statement
from tests.contracts.records import BOT, begin

tries = 0

def pausing():
    global tries
    tries += 1
    yield Statement("UPDATE owner SET horizon_ms = ?", (tries,))
    if tries == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(1)  # another thread may take the signal: this one must not go on before all have stopped
    yield Statement("UPDATE owner SET horizon_ms = horizon_ms + ?", (10,))

async def main():
    async with PostgresStore(sys.argv[1], is_shared=True) as store:
        gained = await store.next_change()
        await store.commit(BOT, [begin()])
        print("owns", *gained.shards, flush=True)
        await store._open_writer().submit(lambda _: pausing())
        print("horizon", await store.horizon(BOT), type(await store.next_change()).__name__)

anyio.run(main)
"""


async def test_a_process_that_is_paused_within_a_transaction_blocks_nobody(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with other_process(postgres_url, PAUSING) as (process, shards), joined(postgres_url) as one:
        await one.owns(SHARDS)
        assert one.after_crash == shards
        # The transaction was begun after the last sign of life of the session, so it may end a little later.
        idle = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
        while await anyio.to_thread.run_sync(postgres_server.psql, idle) != "0":
            pass
        os.kill(process.pid, signal.SIGCONT)
        said, _ = await anyio.to_thread.run_sync(process.communicate)

        assert "horizon 12 ShardsLost" in said.splitlines()  # undone, and made again; logs may follow


async def test_a_mistake_in_what_runs_within_a_transaction_fails_it_alone_and_once(postgres_url: str) -> None:
    async with PostgresStore(postgres_url) as store:
        await store.commit(BOT, [begin()])
        tries = 0

        def broken() -> Iterator[Statement]:
            nonlocal tries
            tries += 1
            yield Statement("UPDATE owner SET horizon_ms = ?", (7,))
            raise ZeroDivisionError

        with anyio.fail_after(20), pytest.raises(ZeroDivisionError):
            await store._open_writer().submit(lambda _: broken())  # noqa: SLF001
        assert tries == 1
        assert await store.horizon(BOT) is None
        await store.commit(BOT, [MarkSeen(HALL, {6: 6})])
