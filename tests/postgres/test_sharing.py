"""Several processes share a store on PostgreSQL: each shard has one owner, who alone writes for it."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from chatbot.errors import NotOwner, StoreInUse
from chatbot.stores.base import EndableStore, ShardsGained, ShardsLost, ShardsWanted, SharedStore
from chatbot.stores.postgres import PostgresStore
from chatbot.stores.postgres_members import Shards
from chatbot.stores.postgres_registry import StoreUser, Use
from chatbot.stores.postgres_server import Server
from chatbot.stores.postgres_session import StoreSession
from chatbot.stores.postgres_url import PostgresUrl
from chatbot.stores.records import StateKey, StoredState
from chatbot.stores.shards import ALL_SHARDS, SHARDS
from chatbot.stores.writes import MarkSeen, SaveState
from tests.contracts.records import ANN, BOT, HALL, YARD, begin, only_thread
from tests.postgres.proxy import Proxy, proxied
from tests.postgres.test_ownership import ENDING_SESSIONS, end, script_process
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.postgres


class Member:
    """A replica: follows its shards as bots do, and gives up at once what others want."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store
        self.owned: set[int] = set()
        self.after_crash: set[int] = set()
        self.lost: set[int] = set()
        self.notes: list[str] = []
        self.changed = anyio.Event()

    async def follow(self) -> None:
        while True:
            match await self.store.next_change():
                case ShardsGained(shards, after_crash):
                    assert not self.owned & shards
                    self.owned |= shards
                    self.after_crash |= after_crash
                case ShardsWanted(shards):
                    self.owned -= shards
                    await self.store.release(shards)
                case ShardsLost(shards):
                    self.owned -= shards
                    self.lost |= shards
            self._change()

    async def hear(self) -> None:
        while True:
            self.notes.append(await self.store.next_note())
            self._change()

    async def owns(self, count: int) -> None:
        await self.until(lambda: len(self.owned) == count)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what comes with changes and notes."""
        with anyio.fail_after(20):
            while not condition():
                await self.changed.wait()

    def _change(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


@asynccontextmanager
async def joined(url: str, *, share: float | None = None) -> AsyncIterator[Member]:
    async with PostgresStore(url, is_shared=True, share=share) as store, anyio.create_task_group() as tasks:
        member = Member(store)
        tasks.start_soon(member.follow)
        tasks.start_soon(member.hear)
        yield member
        tasks.cancel_scope.cancel()


SHARING = """
import sys, anyio
from chatbot.errors import StoreError
from chatbot.stores.base import ShardsGained
from chatbot.stores.postgres import PostgresStore
from chatbot.stores.records import StateKey, StoredState
from chatbot.stores.writes import MarkSeen, SaveState
from tests.contracts.records import BOT, HALL, begin

async def main():
    async with PostgresStore(sys.argv[1], is_shared=True) as store:
        gained = await store.next_change()
        await store.commit(BOT, [begin()], shards=gained.shards)
        print("owns", *gained.shards, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        held = store.is_held
        try:
            await store.commit(BOT, [MarkSeen(HALL, {1: 1})], shards=gained.shards)
        except StoreError as error:
            result = type(error).__name__
        else:
            result = "written"
        print(result, held, type(await store.next_change()).__name__)

anyio.run(main)
"""


@asynccontextmanager
async def other_process(url: str, script: str = SHARING) -> AsyncIterator[tuple[subprocess.Popen[str], frozenset[int]]]:
    """A replica in a process of its own, and what it owns."""
    process = await anyio.to_thread.run_sync(script_process, script, url)
    assert process.stdout is not None
    try:
        while not (line := await anyio.to_thread.run_sync(process.stdout.readline)).startswith("owns"):
            assert line, "it has ended"
        yield process, frozenset(map(int, line.split()[1:]))
    finally:
        end(process)


@asynccontextmanager
async def joined_through_proxy(server: PostgresServer, url: str) -> AsyncIterator[tuple[Proxy, Member]]:
    async with proxied(server.port) as proxy, joined(url.replace(str(server.port), str(proxy.port))) as member:
        yield proxy, member


def test_a_store_that_is_shared_is_a_shared_store(postgres_url: str) -> None:
    store = PostgresStore(postgres_url, is_shared=True)

    assert isinstance(store, SharedStore)
    assert isinstance(store, EndableStore)


async def test_the_first_process_owns_everything_and_gives_half_to_the_second(postgres_url: str) -> None:
    async with joined(postgres_url) as one:
        await one.owns(SHARDS)
        async with joined(postgres_url) as two:
            await two.owns(SHARDS // 2)
            await one.owns(SHARDS // 2)
            assert one.owned | two.owned == ALL_SHARDS
            assert not two.after_crash
            known = {replica.is_oneself: replica.shards for replica in await two.store.replicas()}
            assert known == {True: two.owned, False: one.owned}
        await one.owns(SHARDS)
        assert not one.after_crash


async def test_a_commit_for_shards_of_another_process_changes_nothing(postgres_url: str) -> None:
    async with joined(postgres_url) as one:
        await one.owns(SHARDS)
        await one.store.commit(BOT, [begin()], shards=ALL_SHARDS)
        async with joined(postgres_url) as two:
            await two.owns(SHARDS // 2)
            await one.owns(SHARDS // 2)
            mine, other = min(one.owned), min(two.owned)
            await one.store.commit(BOT, [MarkSeen(HALL, {6: 6})], shards={mine})
            await two.store.commit(BOT, [MarkSeen(HALL, {7: 7})], shards={other})
            with pytest.raises(NotOwner, match=f"another process owns the shards {other} "):
                await one.store.commit(BOT, [MarkSeen(HALL, {8: 8})], shards={mine, other})
            assert (await only_thread(two.store)).seen == {6: 6, 7: 7}


async def test_of_commits_that_are_written_together_only_those_for_lost_shards_fail(
    postgres_server: PostgresServer, postgres_url: str, postgres_schema: str
) -> None:
    async with joined(postgres_url) as one:
        await one.owns(SHARDS)
        await one.store.commit(BOT, [begin()], shards=ALL_SHARDS)
        # of the shards 3 and 5
        taken = f"UPDATE {postgres_schema}.shard SET epoch = epoch + 1, owner = 'other' WHERE id IN (4, 6)"
        await anyio.to_thread.run_sync(postgres_server.psql, taken)
        refused: set[int] = set()

        async def write(shard: int) -> None:
            try:
                await one.store.commit(BOT, [MarkSeen(HALL, {6 + shard: 1})], shards={shard}, notes=[str(shard)])
            except NotOwner:
                refused.add(shard)

        async with anyio.create_task_group() as tasks:
            for shard in range(20):
                tasks.start_soon(write, shard)
        assert refused == {3, 5}
        assert (await only_thread(one.store)).seen.keys() == {6 + shard for shard in range(20)} - {9, 11}


async def test_a_commit_for_many_shards_with_notes_takes_one_round_trip(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """Beats go over another connection, which is counted, too."""
    async with joined_through_proxy(postgres_server, postgres_url) as (proxy, one):
        await one.owns(SHARDS)
        await one.store.commit(BOT, [begin()], shards=ALL_SHARDS)
        before = proxy.round_trips
        for number in range(20):
            await one.store.commit(BOT, [MarkSeen(HALL, {6: number})], shards=ALL_SHARDS, notes=["a", "b"])

        assert 20 <= proxy.round_trips - before < 40


async def test_a_commit_whose_answer_is_lost_is_made_once_while_another_takes_the_shards(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with joined_through_proxy(postgres_server, postgres_url) as (proxy, one), joined(postgres_url) as two:
        await one.owns(SHARDS // 2)
        await two.owns(SHARDS // 2)
        await one.store.commit(BOT, [begin()])
        proxy.cuts_answer_to = b"unusual name"
        state = SaveState(StateKey("unusual name"), "1", None, 1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: one.store.commit(BOT, [state], shards=one.owned.copy()))
            with anyio.fail_after(20):
                while not proxy.cuts:  # noqa: ASYNC110 the proxy says when
                    await anyio.sleep(0.01)
            proxy.is_silent = True
            await two.owns(SHARDS)
            proxy.is_silent = False
        assert await two.store.state(BOT, state.key) == StoredState("1", 1)


async def test_notes_of_a_commit_reach_all_others_after_it(postgres_url: str) -> None:
    async with AsyncExitStack() as all_of_them:
        one, two, three = [await all_of_them.enter_async_context(joined(postgres_url)) for _ in range(3)]
        await one.until(lambda: 80 < len(one.owned) < 90)
        await one.store.commit(BOT, [begin()], notes=["a", "b"])
        with pytest.raises(NotOwner):
            await one.store.commit(BOT, [begin()], shards={next(iter(ALL_SHARDS - one.owned))}, notes=["never"])
        await one.store.tell(["c"])
        await two.until(lambda: len(two.notes) == 3)
        await three.until(lambda: len(three.notes) == 3)

        assert two.notes == three.notes == ["a", "b", "c"]
        assert one.notes == []


async def test_one_process_alone_and_several_exclude_each_other(postgres_url: str) -> None:
    async with joined(postgres_url) as one:
        await one.owns(SHARDS)
        with pytest.raises(StoreInUse, match="is in use by another process"):
            await PostgresStore(postgres_url).__aenter__()
    async with PostgresStore(postgres_url) as alone:
        with pytest.raises(StoreInUse, match="is in use by another process"):
            await PostgresStore(postgres_url, is_shared=True).__aenter__()
        assert await alone.next_change() == ShardsGained(ALL_SHARDS)


async def test_after_kill_9_the_others_own_its_shards_and_know(postgres_url: str) -> None:
    async with other_process(postgres_url) as (process, shards):
        assert shards == ALL_SHARDS
        process.kill()
        async with joined(postgres_url) as one:
            await one.owns(SHARDS)
            assert one.after_crash == shards
    async with joined(postgres_url) as one:
        await one.owns(SHARDS)
        assert not one.after_crash


async def test_a_paused_process_loses_its_shards_and_what_it_writes_then_is_refused(postgres_url: str) -> None:
    async with other_process(postgres_url) as (process, shards):
        os.kill(process.pid, signal.SIGSTOP)
        async with joined(postgres_url) as one:
            await one.owns(SHARDS)  # once the server has ended the silent session
            assert one.after_crash == shards
            os.kill(process.pid, signal.SIGCONT)
            said, _ = await anyio.to_thread.run_sync(process.communicate, "\n")
            assert said.splitlines()[-1] == "NotOwner False ShardsLost"
            assert (await only_thread(one.store)).seen == {}


async def test_a_process_whose_sessions_break_keeps_its_shards(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with joined(postgres_url) as one, joined(postgres_url) as two:
        await one.owns(SHARDS // 2)
        await two.owns(SHARDS // 2)
        before = set(one.owned)
        await one.store.commit(BOT, [begin()], shards=before)
        for number in range(3):
            await anyio.to_thread.run_sync(postgres_server.psql, ENDING_SESSIONS)
            await one.store.commit(BOT, [MarkSeen(HALL, {6 + number: 6})], shards=before)
        with anyio.fail_after(20):
            while not (one.store.is_held and two.store.is_held):  # noqa: ASYNC110 time takes it away, too
                await anyio.sleep(0.01)

        assert one.owned == before
        assert not one.lost | two.lost


async def test_a_session_with_the_number_of_a_dead_one_is_not_taken_for_it(
    postgres_server: PostgresServer, postgres_url: str, postgres_schema: str
) -> None:
    """A server that was restarted uses the numbers of sessions again."""
    async with joined(postgres_url) as one:
        await one.owns(SHARDS)
        ghosts = (
            f"INSERT INTO {postgres_schema}.replica (id, host, pid, version, started_ms, is_member, backend)"
            " SELECT 'ghost ' || number, '', 1, '', 1, true, number FROM generate_series(1, 3000) AS offset_,"
            " LATERAL (SELECT pg_backend_pid() + offset_ AS number) AS numbers"
        )
        await anyio.to_thread.run_sync(postgres_server.psql, ghosts)
        async with joined(postgres_url) as two:
            await two.owns(SHARDS // 2)
            await anyio.to_thread.run_sync(postgres_server.psql, ENDING_SESSIONS)
            with anyio.fail_after(20):
                while len(await two.store.replicas()) != 2 or not two.store.is_held:  # noqa: ASYNC110 beats tell
                    await anyio.sleep(0.05)
            assert not one.lost | two.lost


async def test_a_partitioned_process_hands_over_and_comes_back_empty_handed(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with joined_through_proxy(postgres_server, postgres_url) as (proxy, one), joined(postgres_url) as two:
        await one.owns(SHARDS // 2)
        await two.owns(SHARDS // 2)
        before = set(one.owned)
        proxy.is_silent = True
        await two.owns(SHARDS)
        assert not one.store.is_held
        proxy.is_silent = False
        await one.until(lambda: one.lost == before)
        await one.owns(SHARDS // 2)
        assert two.after_crash == before


async def test_what_a_process_was_asked_to_stop_is_no_crash_and_moves_while_it_drains(postgres_url: str) -> None:
    async with joined(postgres_url) as one:
        await one.owns(SHARDS)
        async with joined(postgres_url) as two:
            await one.owns(SHARDS // 2)
            one.store.stop_began()
            one.store.stay_marked()
            await two.owns(SHARDS)
            assert one.owned == set()
            assert two.after_crash == set()


async def test_a_session_that_is_woken_and_closed_at_the_same_time_ends(postgres_url: str) -> None:
    """As when a note of another process arrives while this one stops."""
    url, user, gained = PostgresUrl.parse(postgres_url, Path()), StoreUser(Use.MEMBER), anyio.Event()
    shards = Shards(url.schema, user.id, None, lambda _change, _epochs: gained.set())
    session = StoreSession(Server(url), user, on_lost=lambda _: None, on_note=lambda _: None, shards=shards)
    await session.open()
    with anyio.fail_after(20):
        await gained.wait()
        await anyio.sleep(0.3)  # by now, it waits for its next beat
        await session.accept(())  # which wakes it
        await session.close(is_orderly=True, untouched=[])

    assert not session.is_held


async def test_a_share_limits_what_a_process_takes(postgres_url: str) -> None:
    async with joined(postgres_url, share=0.05) as canary:
        await canary.owns(12)
        async with joined(postgres_url) as other:
            await other.owns(SHARDS - 12)


async def test_a_command_reads_and_writes_beside_those_who_share_and_owns_nothing(postgres_url: str) -> None:
    async with joined(postgres_url) as one:
        await one.owns(SHARDS)
        async with PostgresStore(postgres_url, is_shared=True, is_between_runs=True) as visitor:
            for change in (visitor.commit(BOT, [begin()]), visitor.forget(ANN)):
                with pytest.raises(StoreInUse, match=r"is in use by running bots \(.*\), which would not notice"):
                    await change
            await visitor.commit(BOT, [begin()], notes=["look"])
            assert [replica.is_oneself for replica in await visitor.replicas()] == [False]
            assert len(await one.store.threads(BOT)) == 1
        await one.until(lambda: one.notes == ["look"])
        assert one.owned == ALL_SHARDS
    async with PostgresStore(postgres_url, is_shared=True, is_between_runs=True) as visitor:
        await visitor.commit(BOT, [begin(YARD)])
        await visitor.forget(ANN)


async def test_one_process_at_a_time_is_in_an_exclusive_block(postgres_url: str) -> None:
    inside: list[str] = []
    async with AsyncExitStack() as stores:
        one, two = [await stores.enter_async_context(PostgresStore(postgres_url, is_shared=True)) for _ in range(2)]

        async def enter(store: PostgresStore, name: str) -> None:
            async with store.exclusive("identity desk"):
                inside.append(name)
                async with store.exclusive("identity bell"):
                    await anyio.sleep(0.1)
                inside.append(name)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(enter, one, "one")
            tasks.start_soon(enter, two, "two")
    assert inside in (["one", "one", "two", "two"], ["two", "two", "one", "one"])


async def test_an_exclusive_block_that_is_cancelled_anywhere_lets_others_enter(postgres_url: str) -> None:
    async with PostgresStore(postgres_url, is_shared=True) as store:
        begun = anyio.current_time()
        async with store.exclusive("identity bell"):
            taken = anyio.current_time() - begun
        for part in range(24):
            with anyio.move_on_after(taken * part / 20):
                async with store.exclusive("identity bell"):
                    pass
        gc.collect()

        with anyio.fail_after(20):
            async with store.exclusive("identity bell"):
                pass
