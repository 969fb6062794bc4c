"""What health checks, the status and metrics say of a replica: its shards, its database, and the others."""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest

from chatbot.cli.status_report import status_lines
from chatbot.runtime.connection import Connection
from chatbot.runtime.observe.counters import BotCounters
from chatbot.runtime.observe.metrics import render
from chatbot.runtime.observe.sharing import SharingMonitor
from chatbot.runtime.observe.status import StatusMonitor, as_json
from tests.cluster.cluster import Cluster, Replica
from tests.cluster.plugins import echo

pytestmark = pytest.mark.virtual_time


def monitored(replica: Replica) -> StatusMonitor:
    """Watch a replica as the daemon does."""
    counters = BotCounters()
    counters.token_expires_on = 1e12
    connection = Connection("https://model.invalid", "model")
    monitor = StatusMonitor([replica.bot], {"bot": counters}, replica.store, connection)
    monitor.sharing = SharingMonitor(replica.member, replica.store)
    return monitor


async def test_a_replica_that_owns_nothing_is_ready() -> None:
    async with Cluster(echo) as cluster:
        await cluster.join()
        await cluster.balanced()
        canary = await cluster.join(limit=0.0)
        await anyio.sleep(15)
        monitor = monitored(canary)
        found = as_json(await monitor.read_status())

        assert found["is_ready"], found["unready"]
        assert found["sharing"]["shards"] == {"owned": 0, "all": 256, "without_owner": 0}
        assert [one["shards"] for one in found["sharing"]["replicas"]] == [256, 0]
        assert "owns 0 of 256 shards of the store; beside it: model, pid 1 (256)" in status_lines(found)


async def test_a_replica_without_its_database_is_not_ready_but_healthy_so_that_nothing_restarts_it() -> None:
    async with Cluster(echo) as cluster:
        joined = [await cluster.join() for _ in "12"]
        await cluster.balanced()
        threads = [cluster.thread("Ann") for _ in range(4)]
        cluster.say_in(threads, "Ann", "hi")
        await cluster.until(lambda: all(cluster.replies(thread) == ["hi"] for thread in threads))
        monitor = monitored(joined[0])
        for replica in joined:
            replica.gate.is_cut_from_database = True
        for _ in range(17):
            await anyio.sleep(20)
            assert monitor.missed() == {}
        assert await monitor.unready() == ("the store cannot be written: the session with its server is broken",)

        for replica in joined:
            replica.gate.is_cut_from_database = False
        for _ in range(17):
            await anyio.sleep(20)
            assert monitor.missed() == {}
        assert await monitor.unready() == ()


async def test_a_poller_that_hangs_long_after_the_database_is_back_is_reported() -> None:
    async with Cluster(echo) as cluster:
        one = await cluster.join()
        await cluster.balanced()
        await anyio.sleep(5)
        monitor = monitored(one)
        one.gate.is_cut_from_database = True
        await anyio.sleep(10)
        assert monitor.missed() == {}
        one.gate.is_cut_from_database = False
        await anyio.sleep(400)
        one.bot.context.monitor.heartbeats.set_deadline("thread list", anyio.current_time() - 301)

        assert monitor.missed() == {"bot": {"thread list": pytest.approx(301)}}


async def test_shards_that_nobody_takes_are_counted_after_ten_seconds() -> None:
    async with Cluster(echo) as cluster:
        one = await cluster.join(limit=0.5)
        await anyio.sleep(5)
        assert one.member.ownerless == 0
        await anyio.sleep(25)
        assert one.member.ownerless == 128
        await cluster.join()
        await cluster.until(lambda: one.member.ownerless == 0)


async def test_moves_are_counted_by_how_the_shards_came_and_went() -> None:
    async with Cluster(echo) as cluster:
        one, two = await cluster.join(), await cluster.join()
        await cluster.balanced()
        await two.kill()
        await cluster.until(lambda: len(one.member.owned) == 256)
        moves = one.member.moves
        assert (moves.gained, moves.after_crash, moves.released, moves.lost) == (256 + 128, 128, 128, 0)

        one.gate.is_cut_from_database = True
        three = await cluster.join()
        await cluster.until(lambda: len(three.member.owned) == 256)
        one.gate.is_cut_from_database = False
        await cluster.until(lambda: one.member.moves.lost == 256)
        text = (await anyio.to_thread.run_sync(render, await monitored(one).read_status())).decode()

        assert "chatbot_shards_lost_total 256.0" in text
        assert "chatbot_replicas 2.0" in text
