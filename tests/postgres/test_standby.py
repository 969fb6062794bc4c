"""A standby takes over: a synchronous one has every confirmed commit, an asynchronous one is refused."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from chatbot.errors import StoreError
from chatbot.stores.postgres import PostgresStore
from chatbot.stores.postgres_reading import cluster
from chatbot.stores.postgres_url import PostgresUrl
from chatbot.stores.probe import probe_store
from chatbot.stores.shards import ALL_SHARDS, SHARDS
from chatbot.stores.writes import MarkSeen
from tests.contracts.records import BOT, HALL, begin
from tests.postgres.test_lost_connections import counting, held, progress
from tests.postgres.test_sharing import joined
from tests.support.postgres import PostgresServer, running_server, standby_of, synchronous

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    with running_server() as server, ExitStack() as stack:
        yield server, stack.enter_context(standby_of(server))


async def test_an_asynchronous_standby_is_refused_unless_it_is_allowed(
    pair: tuple[PostgresServer, PostgresServer],
) -> None:
    server, _ = pair
    await anyio.to_thread.run_sync(synchronous, server, "")
    for is_shared in (True, False):
        with pytest.raises(StoreError, match="has a standby that is replicated asynchronously") as refused:
            await PostgresStore(f"{server.url}?schema=refused", is_shared=is_shared).__aenter__()
        assert "?allow_async_standby=1" in str(refused.value)
    probe = await anyio.to_thread.run_sync(lambda: probe_store(server.url, base_dir=Path()))
    assert "synchronous_standby_names" in (probe.problem or "")

    async with PostgresStore(f"{server.url}?schema=allowed&allow_async_standby=1", is_shared=True) as store:
        await store.commit(BOT, [begin()])


async def test_how_far_a_standby_is_behind_is_shown(pair: tuple[PostgresServer, PostgresServer]) -> None:
    server, _ = pair
    url = f"{server.url}?schema=lagging&allow_async_standby=1"
    async with PostgresStore(url, is_shared=True) as store:
        lag = await store.replication_lag()
        facts = await anyio.to_thread.run_sync(cluster, PostgresUrl.parse(url, Path()))

    assert lag is not None
    assert 0 <= lag < 60
    (standby,) = facts.standbys
    assert (standby.name, standby.state) == ("second", "streaming")


async def test_a_user_who_may_not_see_the_standbys_is_told_so(
    pair: tuple[PostgresServer, PostgresServer], capsys: pytest.CaptureFixture[str]
) -> None:
    server, _ = pair
    await anyio.to_thread.run_sync(synchronous, server, "")
    create = "CREATE ROLE clerk LOGIN PASSWORD 'swordfish'; GRANT CREATE ON DATABASE bots TO clerk"
    await anyio.to_thread.run_sync(server.psql, create)
    url = server.url.replace("//bots:", "//clerk:") + "?schema=hidden"
    async with PostgresStore(url, is_shared=True):
        pass

    assert "store.standby_unchecked" in capsys.readouterr().out
    probe = await anyio.to_thread.run_sync(lambda: probe_store(url, base_dir=Path()))
    assert probe.problem is None
    assert "GRANT pg_monitor" in (probe.notice or "")


async def test_a_failover_to_a_synchronous_standby_loses_and_doubles_no_commit_and_moves_no_shard(
    pair: tuple[PostgresServer, PostgresServer],
) -> None:
    server, standby = pair
    await anyio.to_thread.run_sync(synchronous, server, "second")
    url = server.url.replace(str(server.port), f"{server.port},127.0.0.1:{standby.port}")
    async with joined(url) as one:
        await one.owns(SHARDS)
        await one.store.commit(BOT, [begin()], shards=ALL_SHARDS)
        async with counting(one.store) as counters:
            await progress(counters)
            await anyio.to_thread.run_sync(server.stop, signal.SIGQUIT)
            await anyio.to_thread.run_sync(standby.psql, "SELECT pg_promote()")
            await progress(counters)
        await one.store.commit(BOT, [MarkSeen(HALL, {6: 6})], shards=ALL_SHARDS)

        await held(one.store)
        assert not one.lost
