"""The budget never lets more through than any window of the service's quotas holds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.emulator.quotas import TABLE
from chatbot.model import ThreadId
from chatbot.service.budget import QUOTAS, SHARED_QUOTAS, Budget, Operation, SharedQuotas


def test_what_fits_the_window_goes_at_once_and_the_next_one_waits() -> None:
    budget = Budget()
    for _ in range(10):
        assert budget.delay(Operation.WRITE_MESSAGE, 0.0) == 0
        budget.spend(Operation.WRITE_MESSAGE, 0.0)

    assert 10 <= budget.delay(Operation.WRITE_MESSAGE, 0.0) < 10.5
    assert budget.delay(Operation.LIST_MESSAGES, 0.0) == 0


def test_what_the_process_before_may_have_requested_is_told_from_what_this_one_has() -> None:
    budget = Budget()
    assert budget.assumed(0.0) == 0

    budget.assume_previous_process(100.0)

    assert budget.left(Operation.LIST_THREADS, 100.0) == 0
    assert 10 <= budget.assumed(100.0) < 10.5
    assert budget.assumed(111.0) == 0
    assert budget.left(Operation.LIST_THREADS, 111.0) == 50


def test_a_budget_whose_requests_have_expired_is_idle() -> None:
    shared = SharedQuotas()
    budget = Budget(shared=shared.of(ThreadId("hall")))
    budget.spend(Operation.LIST_MESSAGES, 0.0)
    budget.expire(59.0)
    assert not budget.is_idle

    budget.expire(61.0)

    assert budget.is_idle


def test_a_throttled_operation_stays_closed_for_the_time_the_service_said() -> None:
    budget = Budget()

    budget.block(Operation.LIST_MESSAGES, 7.0)

    assert budget.delay(Operation.LIST_MESSAGES, 0.0) == 7.0
    assert budget.delay(Operation.LIST_MESSAGES, 7.0) == 0


def test_what_the_service_refuses_to_one_bot_for_a_whole_thread_no_other_bot_of_the_process_asks_for() -> None:
    commons = SharedQuotas()
    one, two = (Budget(shared=commons.of(ThreadId("hall"))) for _ in range(2))
    one.block_throttled(Operation.WRITE_MESSAGE, 0.0, None)
    one.block_throttled(Operation.LIST_MESSAGES, 0.0, 7.0)  # may be the quota of this bot alone

    assert two.delay(Operation.WRITE_MESSAGE, 1.0) > 59.0
    assert two.delay(Operation.LIST_MESSAGES, 1.0) == 0
    assert one.delay(Operation.LIST_MESSAGES, 1.0) == 6.0
    assert Budget(shared=commons.of(ThreadId("yard"))).delay(Operation.WRITE_MESSAGE, 1.0) == 0


def test_a_silent_thread_keeps_nothing() -> None:
    budget = Budget()
    budget.spend(Operation.WRITE_MESSAGE, 0.0)
    budget.block(Operation.WRITE_MESSAGE, 5.0)

    assert not budget.is_empty

    budget.expire(61.0)

    assert budget.is_empty


def test_a_thread_that_the_service_has_closed_is_remembered_until_it_opens() -> None:
    budget = Budget()
    budget.block(Operation.WRITE_MESSAGE, 5.0)

    budget.expire(4.0)
    assert not budget.is_empty

    budget.expire(5.0)
    assert budget.is_empty


@given(
    st.sampled_from(list(Operation)),
    st.lists(st.floats(0, 3, allow_nan=False), min_size=1, max_size=120),
)
def test_a_caller_that_waits_as_told_never_exceeds_a_quota(operation: Operation, pauses: list[float]) -> None:
    budget, now, sent = Budget(), 0.0, list[float]()
    for pause in pauses:
        now += pause
        now += budget.delay(operation, now)
        budget.spend(operation, now)
        sent.append(now)

    for window in QUOTAS[operation]:
        for index, at in enumerate(sent):
            inside = [other for other in sent[: index + 1] if other > at - window.seconds]
            assert len(inside) <= window.limit


def test_what_is_left_is_the_least_that_any_window_leaves() -> None:
    budget = Budget()
    for at in range(8):
        budget.spend(Operation.WRITE_MESSAGE, float(at))

    assert budget.left(Operation.WRITE_MESSAGE, 8.0) == 2
    assert budget.left(Operation.WRITE_MESSAGE, 30.0) == 10
    assert budget.left(Operation.LIST_MESSAGES, 8.0) == 50


def test_nothing_is_left_of_what_the_service_has_closed() -> None:
    budget = Budget()
    budget.block(Operation.LIST_THREADS, 10.0)

    assert budget.left(Operation.LIST_THREADS, 9.0) == 0
    assert budget.left(Operation.LIST_THREADS, 10.0) == 50


@given(
    st.sampled_from(sorted(SHARED_QUOTAS, key=lambda operation: operation.value)),
    st.integers(2, 8),
    st.lists(st.tuples(st.integers(0, 7), st.floats(0, 0.4, allow_nan=False)), min_size=1, max_size=500),
)
@settings(max_examples=30)
def test_bots_of_one_process_are_together_never_above_the_quota_of_a_thread(
    operation: Operation, bots: int, turns: list[tuple[int, float]]
) -> None:
    commons = SharedQuotas()
    budgets = [Budget(shared=commons.of(ThreadId("hall"))) for _ in range(bots)]
    now, sent = 0.0, list[float]()
    for bot, pause in turns:
        now += pause
        budget = budgets[bot % bots]
        now += budget.delay(operation, now)
        budget.spend(operation, now)
        sent.append(now)

    for window in SHARED_QUOTAS[operation]:
        for index, at in enumerate(sent):
            assert sum(other > at - window.seconds for other in sent[: index + 1]) <= window.limit


def test_what_somebody_says_counts_once_although_every_bot_sees_it_and_what_a_bot_says_when_it_says_it() -> None:
    commons = SharedQuotas()
    one, two = (Budget(shared=commons.of(ThreadId("hall"))) for _ in range(2))
    for version in range(5):
        one.count_other(Operation.WRITE_MESSAGE, float(version), version)
        two.count_other(Operation.WRITE_MESSAGE, float(version), version)
    one.spend(Operation.WRITE_MESSAGE, 5.0)
    two.count_other(Operation.WRITE_MESSAGE, 5.0, None)  # as it sees what the other said

    assert (one.left(Operation.WRITE_MESSAGE, 6.0), two.left(Operation.WRITE_MESSAGE, 6.0)) == (4, 4)
    assert commons.of(ThreadId("yard")).left(Operation.WRITE_MESSAGE, 6.0) == 10


def test_a_silent_thread_keeps_nothing_of_what_is_shared() -> None:
    commons = SharedQuotas()
    budget = Budget(shared=commons.of(ThreadId("hall")))
    budget.count_other(Operation.WRITE_MESSAGE, 0.0, 7)
    budget.spend(Operation.LIST_MESSAGES, 0.0)
    assert not commons.of(ThreadId("hall")).is_empty

    budget.expire(61.0)

    assert commons.of(ThreadId("hall")).is_empty


def test_a_message_that_every_poll_shows_again_is_counted_once() -> None:
    thread = Budget(shared=Budget(SHARED_QUOTAS))
    alone = Budget()

    for budget in (thread, alone):
        for second in range(10):
            budget.count_other(Operation.WRITE_MESSAGE, float(second), change=7)

        assert budget.left(Operation.WRITE_MESSAGE, 9.0) == 9


@pytest.mark.parametrize("replicas", [1, 2, 3, 5, 7, 40])
def test_processes_together_keep_the_quota_of_requests_for_one_thread(replicas: int) -> None:
    budgets = [Budget() for _ in range(replicas)]
    made = 0
    for budget in budgets:
        budget.divide(replicas)
        budget.divide(replicas)
        for second in range(101):
            while not budget.delay(Operation.GET_THREAD, float(second)):
                budget.spend(Operation.GET_THREAD, float(second))
                made += 1

    (window,) = QUOTAS[Operation.GET_THREAD]
    assert made <= window.limit * (101 / window.seconds + 1) + replicas
    budgets[0].divide(1)
    assert budgets[0].left(Operation.POLL_THREADS, 500.0) == Budget().left(Operation.POLL_THREADS, 500.0)
    for _ in range(window.limit):
        assert not budgets[0].delay(Operation.GET_THREAD, 500.0)
        budgets[0].spend(Operation.GET_THREAD, 500.0)
    assert budgets[0].delay(Operation.GET_THREAD, 500.0) > 0


NAMES = {
    Operation.LIST_THREADS: "list_threads",
    Operation.LIST_MESSAGES: "list_messages",
    Operation.GET_MESSAGE: "get_message",
    Operation.WRITE_MESSAGE: "send_message update_message delete_message",
    Operation.SEND_RECEIPT: "send_read_receipt",
    Operation.LIST_RECEIPTS: "list_read_receipts",
    Operation.SEND_TYPING: "send_typing_notification",
    Operation.LIST_PARTICIPANTS: "list_participants",
    Operation.CHANGE_PARTICIPANTS: "add_participants remove_participant",
    Operation.UPDATE_THREAD: "update_thread",
}


@pytest.mark.parametrize("operation", NAMES, ids=lambda operation: operation.label)
def test_bots_keep_the_quotas_that_the_emulator_enforces(operation: Operation) -> None:
    for name in NAMES[operation].split():
        rows = [row for row in TABLE if name in row.operations]
        limits = {row.bucket: [(limit.count, limit.seconds) for limit in row.limits] for row in rows}
        own = [(window.limit, window.seconds) for window in QUOTAS[operation]]
        shared = [(window.limit, window.seconds) for window in SHARED_QUOTAS.get(operation, ())]
        assert shared == limits.get("thread", [])
        assert own == next((limits[bucket] for bucket in ("user+thread", "user") if bucket in limits), shared)
