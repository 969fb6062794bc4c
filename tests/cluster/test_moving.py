"""Threads move between replicas that leave, die, freeze or are cut off; nothing is lost, doubled or out of order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

import anyio
import pytest
from azure.core.pipeline.transport import HttpRequest

from chatbot.errors import StoreError
from chatbot.model import ThreadId
from chatbot.stores.records import Attempt, OutboxRow, Progress, ThreadRecord
from chatbot.stores.shards import shard_of
from chatbot.stores.writes import BeginAttempt, Write
from tests.cluster.cluster import Cluster, Replica
from tests.cluster.database import Database, Nobody
from tests.cluster.gate import is_send
from tests.cluster.plugins import Seen, echo, slow

pytestmark = pytest.mark.virtual_time


async def cut_from_database(replica: Replica) -> None:
    replica.gate.is_cut_from_database = True
    await anyio.sleep(20)
    replica.gate.is_cut_from_database = False


async def cut_from_everything(replica: Replica) -> None:
    replica.gate.is_cut_from_service = True
    await cut_from_database(replica)
    replica.gate.is_cut_from_service = False


async def freeze(replica: Replica) -> None:
    replica.pause()
    await anyio.sleep(20)
    replica.resume()


async def freeze_briefly(replica: Replica) -> None:
    replica.pause()
    await anyio.sleep(3)
    replica.resume()


@pytest.mark.parametrize(
    "trouble",
    [Replica.kill, Replica.leave, freeze, freeze_briefly, cut_from_database, cut_from_everything],
    ids=lambda trouble: trouble.__name__,
)
async def test_people_are_answered_in_order_whatever_happens_to_the_owner_of_their_threads(
    trouble: Callable[[Replica], Awaitable[None]],
) -> None:
    async with Cluster(echo) as cluster:
        one, two = await cluster.join(), await cluster.join()
        await cluster.balanced()
        threads = [cluster.thread_of(replica, "Ann") for replica in (one, two) for _ in "12"]
        said: list[str] = []

        async def talk(seconds: int) -> None:
            for _ in range(seconds * 2):
                said.append(f"{len(said)}")
                cluster.say_in(threads, "Ann", said[-1])
                await anyio.sleep(2)

        await talk(2)
        async with anyio.create_task_group() as group:
            group.start_soon(trouble, one)
            await talk(9)
        await cluster.until(lambda: all(len(cluster.replies(thread)) >= len(said) for thread in threads))
        await anyio.sleep(20)

        assert cluster.all_replies(threads) == dict.fromkeys(threads, said)


async def test_a_thread_that_nobody_talks_in_is_served_by_whoever_takes_it_over() -> None:
    async with Cluster(echo) as cluster:
        one, two = await cluster.join(), await cluster.join()
        await cluster.balanced()
        threads = [cluster.thread_of(one, "Ann") for _ in "12345"]
        cluster.say_in(threads, "Ann", "hi")
        await answered(cluster, threads, "hi")
        await anyio.sleep(120)
        await one.kill()
        await cluster.until(lambda: len(two.member.owned) == 256)
        cluster.say_in(threads, "Ann", "still there?")
        took = await answered(cluster, threads, "hi", "still there?")

        assert took < 2


@pytest.mark.parametrize("error", [StoreError("cannot reach the server"), ValueError("a row cannot be read")], ids=repr)
async def test_threads_are_given_up_although_others_cannot_be_taken_over(error: Exception) -> None:
    async with Cluster(echo) as cluster:
        one, two = await cluster.join(), await cluster.join()
        await cluster.balanced()
        threads = [cluster.thread_of(two, "Ann") for _ in range(16)]
        cluster.say_in(threads, "Ann", "hi")
        await answered(cluster, threads, "hi")
        broken = anyio.Event()

        async def threads_of(*_bot: object) -> list[ThreadRecord]:
            broken.set()
            raise error

        two.store.threads = threads_of
        await one.kill()
        await broken.wait()
        three = await cluster.join()
        took = await cluster.until(lambda: len(three.member.owned) == 128)
        moved = [thread for thread in threads if three.owns(thread)]
        cluster.say_in(threads, "Ann", "then")
        await answered(cluster, threads, "hi", "then")

        assert took < 3
        assert 0 < len(moved) < len(threads)

        del two.store.threads
        await cluster.until(lambda: two.bot.has_taken_all)


async def test_a_shard_is_given_up_although_the_database_is_away_when_its_handler_ends() -> None:
    seen = Seen()
    async with Cluster(slow(seen, seconds=10)) as cluster:
        one = await cluster.join()
        await cluster.balanced()
        threads = [cluster.thread("Ann") for _ in "1234"]
        cluster.say_in(threads, "Ann", "slow")
        await cluster.until(lambda: len(seen.of("slow")) == len(threads))
        await cluster.join()
        await anyio.sleep(7)
        one.gate.is_cut_from_database = True
        await anyio.sleep(4)
        one.gate.is_cut_from_database = False
        await cluster.balanced()
        cluster.say_in(threads, "Ann", "then")
        await answered(cluster, threads, "slow", "then")


async def test_what_was_sent_is_stored_soon_also_after_shards_were_given_up() -> None:
    async with Cluster(echo) as cluster:
        one = await cluster.join()
        await cluster.balanced()
        await cluster.join()
        await cluster.balanced()
        thread = cluster.thread_of(one, "Ann")
        cluster.say(thread, "Ann", "hi")
        await answered(cluster, [thread], "hi")
        await anyio.sleep(3)

        assert cluster.database.pending() == []


class Kills(Nobody):
    """Sees which kills are counted."""

    def __init__(self) -> None:
        self.threads: list[ThreadId] = []

    def committed(self, name: str, writes: Sequence[Write], connection: object) -> None:
        self.threads += [write.thread for write in writes if isinstance(write, BeginAttempt) and write.attempt.count]


async def test_a_kill_is_counted_although_its_thread_is_given_up_before_it_was_read() -> None:
    kills = Kills()
    async with Cluster(echo, witness=kills) as cluster:
        one, two = await cluster.join(), await cluster.join()
        await cluster.balanced()
        threads = [cluster.thread_of(one, "Ann") for _ in range(16)]
        for thread in threads:
            running = BeginAttempt(thread, Attempt("message 1", 0, progress=Progress.RUNNING))
            await one.store.commit(cluster.bot, [running], shards={shard_of(thread)})

        async def pending_of(*_bot: object) -> list[OutboxRow]:
            raise ValueError("a row cannot be read")

        two.store.pending = pending_of
        await one.kill()
        await cluster.until(lambda: len(two.member.owned) == 256)
        three = await cluster.join()
        await cluster.until(lambda: len(three.member.owned) == 128)
        moved = {thread for thread in threads if three.owns(thread)}

        assert moved
        assert moved.issubset(kills.threads)
        assert len(kills.threads) == len(set(kills.threads))


class Releases(Nobody):
    """Sees what is pending in shards that are given up."""

    database: Database
    pending: list[tuple[str, str]]

    def __init__(self) -> None:
        self.pending = []

    def moved(self, what: str, name: str, shards: Collection[int]) -> None:
        if what == "releases":
            self.pending += [
                (thread, key) for thread, key in self.database.pending() if shard_of(ThreadId(thread)) in shards
            ]


@pytest.mark.parametrize(("seconds", "is_stored"), [(4, True), (60, False)])
async def test_what_was_sent_is_stored_before_shards_are_given_up_unless_the_store_refuses_it_for_long(
    seconds: float, is_stored: bool
) -> None:
    seen = Releases()
    async with Cluster(echo, witness=seen) as cluster:
        seen.database = cluster.database
        one = await cluster.join()
        await cluster.balanced()
        threads = [cluster.thread("Ann") for _ in range(16)]
        await anyio.sleep(2)
        cluster.say_in(threads, "Ann", "hi")
        await answered(cluster, threads, "hi")
        one.gate.is_refusing = True
        await cluster.join()
        await anyio.sleep(seconds)
        has_moved = cluster.is_balanced()
        one.gate.is_refusing = False
        await cluster.balanced()
        await anyio.sleep(10)

        assert has_moved is not is_stored
        assert (seen.pending == []) is is_stored
        assert cluster.all_replies(threads) == {thread: ["hi"] for thread in threads}


async def test_what_was_sent_is_stored_before_shards_are_given_up_although_what_came_after_it_was_refused() -> None:
    async with Cluster(echo) as cluster:
        one = await cluster.join()
        await cluster.balanced()
        thread = cluster.thread("Ann")
        await anyio.sleep(2)

        def refuse(request: HttpRequest, _answer: object) -> None:
            one.gate.is_refusing = is_send(request)

        one.gate.on_answer = refuse
        cluster.say(thread, "Ann", "one")
        cluster.say(thread, "Ann", "two")
        await cluster.until(lambda: one.gate.refusals == 1, step=0.01)
        one.gate.on_answer, one.gate.is_refusing = lambda *_: None, False
        await one.bot.release(one.member.owned, lambda _shards: None)

        assert cluster.replies(thread) == ["one"]
        assert cluster.database.pending() == []


async def answered(cluster: Cluster, threads: list[ThreadId], *texts: str) -> float:
    """Wait until the bot has answered with exactly these texts in each of these threads."""
    return await cluster.until(lambda: all(replies == [*texts] for replies in cluster.all_replies(threads).values()))
