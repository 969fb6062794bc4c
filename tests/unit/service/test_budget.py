"""The budget never lets more through than any window of the service's quotas holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatbot.service.budget import QUOTAS, Budget, Operation


def test_what_fits_the_window_goes_at_once_and_the_next_one_waits() -> None:
    budget = Budget()
    for _ in range(10):
        assert budget.delay(Operation.WRITE_MESSAGE, 0.0) == 0
        budget.spend(Operation.WRITE_MESSAGE, 0.0)

    assert 10 <= budget.delay(Operation.WRITE_MESSAGE, 0.0) < 10.5
    assert budget.delay(Operation.LIST_MESSAGES, 0.0) == 0


def test_a_throttled_operation_stays_closed_for_the_time_the_service_said() -> None:
    budget = Budget()

    budget.close(Operation.LIST_MESSAGES, 7.0)

    assert budget.delay(Operation.LIST_MESSAGES, 0.0) == 7.0
    assert budget.delay(Operation.LIST_MESSAGES, 7.0) == 0


def test_a_silent_thread_keeps_nothing() -> None:
    budget = Budget()
    budget.spend(Operation.WRITE_MESSAGE, 0.0)
    budget.close(Operation.WRITE_MESSAGE, 5.0)

    budget.forget(61.0)

    assert budget._spent == {}
    assert budget._closed_until == {}


@given(
    st.sampled_from(list(Operation)),
    st.lists(st.floats(0, 3, allow_nan=False), min_size=1, max_size=120),
)
def test_whoever_waits_as_told_is_never_above_any_quota(operation: Operation, pauses: list[float]) -> None:
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
    budget.close(Operation.LIST_THREADS, 10.0)

    assert budget.left(Operation.LIST_THREADS, 9.0) == 0
    assert budget.left(Operation.LIST_THREADS, 10.0) == 50
