"""Connections break, the server restarts, the network goes silent: no commit is lost, and none is made twice."""

from __future__ import annotations

import asyncio
import gc
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest

from chatbot.errors import CannotStore, StoreConflict, StoreError, StoreInUse
from chatbot.stores.postgres import PostgresStore
from chatbot.stores.postgres_commits import Commit, Transactions
from chatbot.stores.postgres_registry import StoreUser, Use
from chatbot.stores.postgres_server import Connection, Server
from chatbot.stores.postgres_session import StoreSession
from chatbot.stores.postgres_url import PostgresUrl
from chatbot.stores.records import StateKey
from chatbot.stores.statements import statements
from chatbot.stores.writer import Job
from chatbot.stores.writes import MarkSeen, SaveState, Write
from tests.contracts.records import BOT, HALL, begin
from tests.postgres.proxy import Proxy, proxied, served
from tests.postgres.test_ownership import ENDING_SESSIONS
from tests.support.postgres import PostgresServer, running_server

pytestmark = pytest.mark.postgres

COUNTERS = 5


class Counter:
    """A state that counts its own commits: a commit that is lost or doubled shows."""

    def __init__(self, store: PostgresStore, name: str) -> None:
        self.count = 0
        self.errors: list[StoreError] = []
        self._store = store
        self._key = StateKey(name)

    async def step(self) -> None:
        expected = self.count or None
        try:
            await self._store.commit(BOT, [SaveState(self._key, str(self.count + 1), expected, self.count + 1)])
        except (CannotStore, StoreConflict, StoreInUse):
            raise
        except StoreError as error:  # nothing was changed: the same again is right
            self.errors.append(error)
            await anyio.sleep(0.05)
        else:
            self.count += 1

    async def stored(self) -> int:
        state = await self._store.state(BOT, self._key)
        return 0 if state is None else int(state.value)


@asynccontextmanager
async def counting(store: PostgresStore) -> AsyncIterator[list[Counter]]:
    """Counts from many tasks while the block runs; afterwards, what is stored is what was acknowledged."""
    counters = [Counter(store, f"counter {number}") for number in range(COUNTERS)]
    is_over = False

    async def count(counter: Counter) -> None:
        while not is_over:
            await counter.step()

    async with anyio.create_task_group() as tasks:
        for counter in counters:
            tasks.start_soon(count, counter)
        yield counters
        is_over = True
    assert [await counter.stored() for counter in counters] == [counter.count for counter in counters]


@asynccontextmanager
async def through_proxy(server: PostgresServer, url: str) -> AsyncIterator[tuple[Proxy, PostgresStore]]:
    async with proxied(server.port) as proxy, PostgresStore(url.replace(str(server.port), str(proxy.port))) as store:
        yield proxy, store


async def held(store: PostgresStore) -> None:
    """Wait until the session is there again, too."""
    with anyio.fail_after(20):
        while not store.is_held:  # noqa: ASYNC110 time takes it away, too
            await anyio.sleep(0.02)


async def progress(counters: list[Counter], more: int = 5) -> None:
    """Wait until all counters have made some steps."""
    targets = [counter.count + more for counter in counters]
    while any(counter.count < target for counter, target in zip(counters, targets, strict=True)):  # noqa: ASYNC110
        await anyio.sleep(0.02)


async def test_connections_that_the_server_ends_lose_and_double_no_commit(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with PostgresStore(postgres_url) as store, counting(store) as counters:
        for _ in range(8):
            await progress(counters)
            await anyio.to_thread.run_sync(postgres_server.psql, ENDING_SESSIONS)
        await progress(counters)
        await held(store)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_a_restart_of_the_server_under_load_loses_and_doubles_no_commit(how: signal.Signals) -> None:
    with running_server() as server:
        async with PostgresStore(server.url) as store, counting(store) as counters:
            await progress(counters)
            await anyio.to_thread.run_sync(server.stop, how)
            await anyio.sleep(random.uniform(0, 2))
            await anyio.to_thread.run_sync(server.start)
            await progress(counters)
        async with PostgresStore(server.url) as store:
            assert not store.was_killed


async def test_a_commit_whose_answer_is_lost_is_made_once(postgres_server: PostgresServer, postgres_url: str) -> None:
    async with through_proxy(postgres_server, postgres_url) as (proxy, store):
        counter = Counter(store, "unusual name")
        for number in range(5):
            proxy.cuts_answer_to = b"unusual name" if number else None
            await counter.step()

        assert proxy.cuts == 4
        assert counter.errors == []
        assert await counter.stored() == counter.count == 5


async def test_a_partition_stops_the_owner_before_the_server_can_have_another(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with through_proxy(postgres_server, postgres_url) as (proxy, store):
        async with counting(store) as counters:
            await progress(counters)
            proxy.is_silent = True
            while store.is_held:  # noqa: ASYNC110 time takes it away
                await anyio.sleep(0.05)
            proxy.cut()
            proxy.is_silent = False
            await progress(counters)

        await held(store)


async def test_an_owner_that_was_partitioned_while_another_took_over_ends(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with through_proxy(postgres_server, postgres_url) as (proxy, store):
        await store.commit(BOT, [begin()])
        proxy.is_silent = True
        async with PostgresStore(postgres_url) as other:
            assert not store.is_held
            proxy.cut()
            proxy.is_silent = False
            assert "another chatbot has taken over" in str(await store.lost())
            await other.commit(BOT, [MarkSeen(HALL, {1: 1})])
            with pytest.raises(StoreError):
                await store.commit(BOT, [MarkSeen(HALL, {2: 2})])
            assert [thread.seen for thread in await other.threads(BOT)] == [{1: 1}]


async def test_while_the_server_is_away_commits_that_were_not_sent_fail_and_later_ones_succeed() -> None:
    with running_server() as server:
        async with PostgresStore(server.url) as store:
            await store.commit(BOT, [begin()])
            await anyio.to_thread.run_sync(server.stop)
            failed = 0
            while not failed:  # the first one may have been under way, and waits
                with anyio.move_on_after(5):
                    with suppress(StoreError):
                        await store.commit(BOT, [MarkSeen(HALL, {1: 1})])
                        continue
                    failed += 1
                    continue
                break
            with pytest.raises(StoreError, match=r"cannot connect to the store postgresql://127\.0\.0\.1"):
                await store.threads(BOT)
            await anyio.to_thread.run_sync(server.start)
            await store.commit(BOT, [MarkSeen(HALL, {2: 2})])

            assert 2 in (await store.threads(BOT))[0].seen


class SilentFrom(Proxy):
    """A proxy that passes a number of messages of the client, and then nothing to it any more.

    Attributes:
        left: the number; None for no limit.
        is_reached: none of them is left.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.left: int | None = None

    @property
    def is_reached(self) -> bool:
        return self.left == 0

    def noted(self, data: bytes) -> None:
        if self.left:
            self.left -= 1
            self.is_silent = self.is_reached


def _job(write: Write) -> Job[None]:
    commit = Commit(statements(BOT, [write]))
    return Job(lambda _: commit, None)  # type: ignore[arg-type]  # what the writer takes, too


class Terminating(Proxy):
    """A proxy that terminates a connection some turns of the event loop after it has passed on an answer.

    Attributes:
        connection: the client's connection.
        answers: the number of answers until then; None for no limit.
        turns: the number of turns after the last one.
    """

    def __init__(self, port: int, turns: int) -> None:
        super().__init__(port)
        self.connection: Connection = None
        self.answers: int | None = None
        self.turns = turns

    def answered(self) -> None:
        if self.answers:
            self.answers -= 1
            if not self.answers:
                self._terminate(self.turns)

    def _terminate(self, turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self._terminate, turns - 1)
        else:
            self.connection.terminate()


@pytest.mark.parametrize("turns", range(4))
async def test_a_commit_whose_connection_is_terminated_at_any_step_is_made_once(
    postgres_server: PostgresServer, postgres_url: str, turns: int
) -> None:
    """As the session does when it breaks: in the middle of an operation, asyncpg then raises an AttributeError."""
    steps = 0
    async with served(Terminating(postgres_server.port, turns)) as proxy:

        class Session(StoreSession):
            async def reconnect(self) -> tuple[Connection, int]:
                proxy.connection, last = await super().reconnect()
                if proxy.answers is None:
                    proxy.answers = steps
                return proxy.connection, last

        place = postgres_url.replace(str(postgres_server.port), str(proxy.port))
        server = Server(PostgresUrl.parse(place, Path()))
        user = StoreUser(Use.ALONE, is_marked=False)
        session = Session(server, user, on_lost=lambda _: None, on_note=lambda _: None, shards=None)
        transactions = Transactions(server, session)
        await transactions.open()
        await transactions.write([_job(begin())])
        while not proxy.answers:
            steps += 1
            await session.reconnect()
            proxy.connection.terminate()
            proxy.answers = None
            job = _job(MarkSeen(HALL, {steps: steps}))
            await transactions.write([job])
            assert job.error is None
        await transactions.close(is_orderly=True, untouched=[])
    async with PostgresStore(postgres_url) as store:
        assert steps > 4
        assert set((await store.threads(BOT))[0].seen) == set(range(1, steps + 1))


async def test_a_store_that_is_closed_while_it_restores_its_session_leaves_no_connection_open(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with served(SilentFrom(postgres_server.port)) as proxy:
        url, number, is_reached = postgres_url.replace(str(postgres_server.port), str(proxy.port)), 0, True
        while is_reached:
            number += 1 + number // 8
            async with PostgresStore(url, is_shared=True) as store:
                proxy.left = number
                proxy.cut()
                with anyio.fail_after(20):
                    while store.is_held:  # noqa: ASYNC110 as in `held`
                        await anyio.sleep(0.002)
                    while not (proxy.is_reached or store.is_held):  # noqa: ASYNC110 as in `held`
                        await anyio.sleep(0.002)
                is_reached = proxy.is_reached
            proxy.left, proxy.is_silent = None, False
            gc.collect()  # of an open connection, this makes a warning, and so an error
    assert number > 8  # the first steps, of which each has a connection that is not yet kept, one by one


async def test_a_commit_takes_one_round_trip(postgres_server: PostgresServer, postgres_url: str) -> None:
    """At most four are promised. Beats go over another connection, which is counted, too: so there may be one more."""
    async with through_proxy(postgres_server, postgres_url) as (proxy, store):
        await store.commit(BOT, [begin()])
        await store.commit(BOT, [MarkSeen(HALL, {1: 1})])
        before = proxy.round_trips
        for number in range(10):
            await store.commit(BOT, [MarkSeen(HALL, {number: 1}), MarkSeen(HALL, {number: 2}), begin()])

        assert 10 <= proxy.round_trips - before < 40
