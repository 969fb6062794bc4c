"""Several replicas of a bot: each thread is served by one of them, wherever it goes."""

from __future__ import annotations

import pytest

from chatbot.model import ThreadId
from tests.cluster.cluster import Cluster
from tests.cluster.plugins import echo

pytestmark = pytest.mark.virtual_time


async def answered(cluster: Cluster, threads: list[ThreadId], *texts: str) -> None:
    """Wait until the bot has answered with exactly these texts in each of these threads."""
    await cluster.until(lambda: all(replies == [*texts] for replies in cluster.all_replies(threads).values()))


async def test_one_replica_answers_in_all_threads() -> None:
    async with Cluster(echo) as cluster:
        await cluster.join()
        threads = [cluster.thread("Ann") for _ in range(5)]
        for thread in threads:
            cluster.say(thread, "Ann", "hi")
        await answered(cluster, threads, "hi")


async def test_two_replicas_divide_the_threads_and_each_answers_in_its_own() -> None:
    async with Cluster(echo) as cluster:
        one, two = await cluster.join(), await cluster.join()
        await cluster.balanced()
        threads = [
            cluster.thread_of(one, "Ann"),
            cluster.thread_of(two, "Ann"),
            *(cluster.thread("Ann") for _ in "1234"),
        ]
        cluster.say_in(threads, "Ann", "one")
        await answered(cluster, threads, "one")
        cluster.say_in(threads, "Ann", "two")
        await answered(cluster, threads, "one", "two")

        assert len(one.bot.scheduler.lanes) + len(two.bot.scheduler.lanes) == len(cluster.emulator.threads())
