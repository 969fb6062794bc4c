"""The rule of a canary in virtual time: many trials, with code that fails as often as the old code, and more often."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Final

import anyio
import pytest

from chatbot.cluster.admission import COUNT_SECONDS, Admission, Report
from chatbot.cluster.canary import Counted, EventComparison, chance, fails_more
from chatbot.errors import StateError
from chatbot.stores.base import ShardsWanted
from tests.cluster.database import Database
from tests.cluster.gate import Gate
from tests.cluster.store import ModelStore

HOUR: Final = 3600.0


def trial(seed: int, rate: float, other_rate: float, *, per_second: float, seconds: float) -> float | None:
    """Compare a canary of 5 % with two others until it is judged to fail more; return when it was, or None.

    Failures come in bursts, as those of a service that is away for a while: in one minute of ten, on both sides.
    """
    dice, comparison = random.Random(seed), EventComparison()
    own, others = Counted(), {"one": Counted(), "two": Counted()}

    def events(mean: float, failing: float) -> Counted:
        handled = int(mean) + (dice.random() < mean % 1)
        return Counted(handled, sum(dice.random() < failing for _ in range(handled)))

    now = 0.0
    while now < seconds:
        is_away = int(now // 60) % 10 == 0
        factor = 5.0 if is_away else 0.5
        own += events(0.05 * per_second * COUNT_SECONDS, min(1.0, rate * factor))
        for name in others:
            others[name] += events(0.475 * per_second * COUNT_SECONDS, min(1.0, other_rate * factor))
        comparison.add_own({"bot": own}, now)
        comparison.add_others({name: {"bot": counted} for name, counted in others.items()}, now)
        # Not as often as a process does, to save time: its window moves by a hundredth meanwhile.
        if now % 30 < COUNT_SECONDS and comparison.verdict() is not None:
            return now
        now += COUNT_SECONDS
    return None


def test_code_that_fails_as_often_as_the_old_code_is_never_given_back() -> None:
    for rate in (0.02, 0.1):
        assert not any(trial(seed, rate, rate, per_second=5, seconds=HOUR) for seed in range(2))


@pytest.mark.parametrize(
    ("rate", "other_rate", "minutes"),
    [(1.0, 0.0, 2), (0.5, 0.02, 4), (0.1, 0.01, 20)],
)
def test_code_that_fails_more_often_is_given_back_within_minutes(
    rate: float, other_rate: float, minutes: float
) -> None:
    for seed in range(3):
        found = trial(seed, rate, other_rate, per_second=10, seconds=HOUR)

        assert found is not None, seed
        assert found <= 60 * minutes, seed


@pytest.mark.parametrize(
    ("own", "others", "is_worse"),
    [
        (Counted(19, 19), Counted(10_000, 0), False),  # too few events
        (Counted(1_000, 4), Counted(100_000, 0), False),  # too few failures
        (Counted(20, 5), Counted(400, 0), True),
        (Counted(20, 5), Counted(20, 0), False),  # the others have too few to compare with
        (Counted(20, 20), Counted(20, 0), True),
        (Counted(20, 20), Counted(0, 0), False),
        (Counted(20, 20), Counted(400, 400), False),  # what they depend on is away
        (Counted(1_000, 20), Counted(20_000, 200), False),  # twice as often, and still not certain
        (Counted(10_000, 200), Counted(200_000, 2_000), True),
    ],
)
def test_small_samples_do_not_decide(own: Counted, others: Counted, is_worse: bool) -> None:
    assert fails_more(own, others) is is_worse


def test_the_chance_is_that_of_an_exact_test() -> None:
    assert chance(Counted(3, 2), Counted(3, 0)) == pytest.approx(3 / 15)
    assert chance(Counted(4, 0), Counted(4, 4)) == pytest.approx(1.0)
    assert chance(Counted(5, 5), Counted(0, 0)) == 1.0


def test_only_the_last_minutes_are_compared_and_only_what_a_process_handles_beside_the_canary() -> None:
    comparison = EventComparison()
    comparison.add_others({"one": {"bot": Counted(5_000, 5_000)}}, 0.0)
    comparison.add_own({"bot": Counted(10, 5)}, 0.0)
    comparison.add_others({"one": {"bot": Counted(5_100, 5_000)}}, 1.0)
    assert comparison.totals() == (Counted(10, 5), Counted(100, 0))
    comparison.add_others({"two": {"bot": Counted(7, 7)}}, 500.0)  # one has restarted under another name
    assert comparison.totals() == (Counted(10, 5), Counted(100, 0))
    comparison.add_own({"bot": Counted(12, 5)}, 601.0)
    assert comparison.totals() == (Counted(2, 0), Counted())


def test_a_report_that_this_version_cannot_read_says_nothing() -> None:
    report = Report(True, {"bot": Counted(3, 1)})

    assert Report.decode(report.encode()) == report
    for text in ("", "[]", '{"lacks": true}', '{"lacks": 1, "counts": {"bot": 3}}', "\0"):
        assert Report.decode(text) == Report()


class Process:
    """A process of the model that only reports and compares."""

    def __init__(self, database: Database, name: str, share: float | None = None, *, is_begun: bool = True) -> None:
        self.counted = Counted()
        self.problems: list[str] = []
        self.gate = Gate(anyio.current_time)
        self.store = ModelStore(database, name, self.gate, limit=share if is_begun else 0.0)
        self.admission = Admission(
            self.store, share, problems=self._problems, counts=lambda: {"bot": self.counted}, owned=lambda: self.owned
        )

    @property
    def owned(self) -> frozenset[int]:
        return self.store.owned

    async def _problems(self, _shards: frozenset[int]) -> list[str]:
        return self.problems

    async def run(self) -> None:
        async with self.store, anyio.create_task_group() as group:
            group.start_soon(self._give_up)
            await self.admission.run()

    async def _give_up(self) -> None:
        while True:
            change = await self.store.next_change()
            if isinstance(change, ShardsWanted):
                await self.store.release(change.shards)


@pytest.mark.virtual_time
async def test_shards_with_dialogs_that_the_code_lacks_are_left_to_others_while_one_of_them_can_continue_them() -> None:
    database = Database(anyio.current_time)
    old, new, newer = Process(database, "old"), Process(database, "new"), Process(database, "newer")
    new.problems = newer.problems = ["bot echo: 1 dialog is held by order, which is gone"]
    async with anyio.create_task_group() as group:
        for process in (old, new, newer):
            group.start_soon(process.run)
        await anyio.sleep(5)
        for process in (new, newer):
            await process.admission.consider(frozenset({7}))
            assert process.admission.refused == tuple(process.problems)
            assert process.store.limit == len(process.owned) / 256
        new.problems = []
        await until(lambda: not new.admission.refused)
        assert new.store.limit is None
        new.problems = newer.problems
        await new.admission.consider(frozenset({7}))
        assert new.admission.refused
        await old.admission.consider(frozenset({7}))
        old.problems = newer.problems  # and so nobody can continue them any more
        await old.admission.consider(frozenset({7}))
        await until(lambda: not new.admission.refused and not newer.admission.refused)

        assert [process.store.limit for process in (old, new, newer)] == [None, None, None]
        group.cancel_scope.cancel()
    database.close()


@pytest.mark.virtual_time
async def test_a_process_takes_no_threads_from_others_before_its_bots_run() -> None:
    database = Database(anyio.current_time)
    old, new = Process(database, "old"), Process(database, "new", is_begun=False)
    async with anyio.create_task_group() as group:
        for process in (old, new):
            group.start_soon(process.run)
        await anyio.sleep(30)
        assert (len(old.owned), len(new.owned)) == (256, 0)
        new.gate.is_cut_from_database = True
        group.start_soon(new.admission.begin)
        await anyio.sleep(3)
        new.gate.is_cut_from_database = False
        await until(lambda: len(new.owned) == 128)

        assert len(old.owned) == 128
        group.cancel_scope.cancel()
    database.close()


@pytest.mark.virtual_time
async def test_shards_that_are_offered_one_by_one_are_checked_together() -> None:
    database = Database(anyio.current_time)
    process = Process(database, "one")
    checked: list[frozenset[int]] = []

    async def check(shards: frozenset[int]) -> list[str]:
        checked.append(shards)
        await anyio.sleep(1)
        return []

    admission = Admission(process.store, None, problems=check, counts=dict, owned=lambda: process.owned)
    async with process.store, anyio.create_task_group() as group:
        for shard in range(100):
            group.start_soon(admission.consider, frozenset({shard}))
            await anyio.sleep(0.001)
    database.close()

    assert checked == [frozenset({0}), frozenset(range(1, 100))]


@pytest.mark.virtual_time
async def test_a_defect_of_the_check_leaves_no_threads_to_nobody() -> None:
    database = Database(anyio.current_time)
    process = Process(database, "one")
    accepted: list[frozenset[int]] = []

    async def fail(_shards: frozenset[int]) -> list[str]:
        raise ZeroDivisionError

    async def accept(shards: Collection[int]) -> None:
        accepted.append(frozenset(shards))

    process.store.accept = accept  # type: ignore[method-assign]
    admission = Admission(process.store, None, problems=fail, counts=dict, owned=lambda: process.owned)
    async with process.store:
        await admission.consider(frozenset({1, 2}))
    database.close()

    assert set(accepted) == {frozenset({1, 2})}


async def until(is_done: Callable[[], bool]) -> None:
    with anyio.fail_after(120):
        while not is_done():  # noqa: ASYNC110 what is waited for sets no event
            await anyio.sleep(0.5)


@pytest.mark.virtual_time
async def test_a_failing_canary_gives_all_its_shards_to_the_others() -> None:
    database = Database(anyio.current_time)
    old, canary = Process(database, "old"), Process(database, "canary", 0.05)
    async with anyio.create_task_group() as group:
        group.start_soon(old.run)
        group.start_soon(canary.run)
        await until(lambda: len(canary.owned) == 12)
        for _ in range(6):
            await anyio.sleep(COUNT_SECONDS)
            old.counted += Counted(100, 1)
            canary.counted += Counted(6, 4)
        await until(lambda: len(old.owned) == 256)

        assert canary.admission.verdict is not None
        assert "bot bot failed in" in str(canary.admission.verdict)
        group.cancel_scope.cancel()
    database.close()


@pytest.mark.virtual_time
async def test_a_canary_waits_for_another_process_and_then_refuses_to_begin() -> None:
    database = Database(anyio.current_time)
    canary, other = Process(database, "canary", 0.05), Process(database, "old")
    async with canary.store:
        with pytest.raises(StateError, match="no other process runs that serves the rest of the threads"):
            await canary.admission.check_beginning()
        async with other.store:
            await canary.admission.check_beginning()
    database.close()


@pytest.mark.virtual_time
async def test_a_canary_that_is_left_alone_says_so_and_goes_on() -> None:
    database = Database(anyio.current_time)
    canary = Process(database, "canary", 0.05)
    async with anyio.create_task_group() as group:
        group.start_soon(canary.run)
        canary.counted = Counted(100, 100)
        await until(lambda: canary.admission.is_alone)

        assert canary.admission.verdict is None
        assert len(canary.owned) == 12
        group.cancel_scope.cancel()
    database.close()
