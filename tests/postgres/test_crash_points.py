"""A bot on a real PostgreSQL that is killed at points of a conversation, and nobody can tell.

Virtual time stands still while the store works, so that a run is the same each time although server and store are
real. What the store does by itself (its session and its deadline) goes by real time: kills of real processes, broken
connections and restarts of the server are in the other files of this directory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import count

import pytest

from chatbot.model import UserId
from chatbot.stores.postgres import PostgresStore
from chatbot.stores.writes import Enqueue, Write
from chatbot.testing.crash_points import crash_points
from tests.flow.test_crash_points import evening, order, waiter
from tests.support.postgres import PostgresServer

pytestmark = [pytest.mark.postgres, pytest.mark.virtual_time, pytest.mark.timeout(300)]

OneOf = Callable[[type["KillableStore"]], "KillableStore"]


class KillableStore(PostgresStore):
    """Is left as a killed process leaves it: nothing says that it ended in order.

    Args:
        url: See `PostgresStore`.
        kills: Counts the openings after a kill.
    """

    def __init__(self, url: str, kills: list[str]) -> None:
        super().__init__(url)
        self._name = url
        self._kills = kills

    async def __aenter__(self) -> PostgresStore:
        store = await super().__aenter__()
        self._kills += [self._name] * self.was_killed
        return store

    def kill(self) -> None:
        self.stay_marked()


class CarelessStore(KillableStore):
    """Acknowledge every action and forget it at once."""

    async def commit(
        self, bot: UserId, writes: Sequence[Write], *, shards: Collection[int] = (), notes: Sequence[str] = ()
    ) -> None:
        kept = [write for write in writes if not isinstance(write, Enqueue)]
        await super().commit(bot, kept, shards=shards, notes=notes)


@pytest.fixture
def kills() -> list[str]:
    """The URLs of stores that were opened after a kill."""
    return []


@pytest.fixture
def new_store(postgres_server: PostgresServer, kills: list[str]) -> Iterator[OneOf]:
    """Make stores of their own, one for each run of a conversation."""
    numbers = count(1)

    def new(kind: type[KillableStore]) -> KillableStore:
        return kind(f"{postgres_server.url}?schema=crash{next(numbers)}", kills)

    yield new
    for number in range(1, next(numbers)):  # one by one: each holds many locks
        postgres_server.psql(f"DROP SCHEMA IF EXISTS crash{number} CASCADE")


async def test_a_kill_at_a_point_of_a_message_and_its_reply_leaves_no_trace(new_store: OneOf, kills: list[str]) -> None:
    report = await crash_points(order, waiter, store=partial(new_store, KillableStore), every=6)

    print(f"\n{report}")
    assert report.is_clean, report
    assert not report.unreached
    assert len(kills) == len(set(kills)) == report.runs - 1  # each run but the first opens its store after a kill


async def test_a_kill_at_a_point_of_a_long_conversation_leaves_no_trace(new_store: OneOf) -> None:
    report = await crash_points(evening, waiter, store=partial(new_store, KillableStore), every=30)

    print(f"\n{report}")
    assert report.is_clean, report
    assert not report.unreached


async def test_a_bot_passes_the_same_points_on_postgresql_as_in_memory(new_store: OneOf) -> None:
    here = await crash_points(order, waiter, every=1_000)
    there = await crash_points(order, waiter, store=partial(new_store, KillableStore), every=1_000)

    assert here.points == there.points


async def test_a_store_on_postgresql_that_acknowledges_and_forgets_is_found_out(new_store: OneOf) -> None:
    report = await crash_points(order, waiter, store=partial(new_store, CarelessStore), every=16)

    assert any(sentence.startswith("missing: ") for violation in report.violations for sentence in violation.wrong)
