"""How long to wait before what has failed is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.errors import OutcomeUnknown, ServiceError, Throttled, Unreachable
from chatbot.service.back_off import BackOff, jittered
from chatbot.service.budget import Operation

WRITE = Operation.WRITE_MESSAGE


def exactly(pause: float, _at_least: float) -> float:
    return pause


@pytest.mark.parametrize(
    ("operation", "window"), [(WRITE, 60.05), (Operation.LIST_MESSAGES, 60.05), (Operation.LIST_THREADS, 10.05)]
)
def test_a_throttling_without_a_hint_waits_for_the_longest_window_of_the_operation(
    operation: Operation, window: float
) -> None:
    back_off = BackOff(exactly)

    assert [back_off.failed(Throttled("slow down"), 0.0, operation) for _ in range(4)] == [window] * 4


@pytest.mark.parametrize(("error", "longest"), [(OutcomeUnknown("lost"), 30.0), (Unreachable("down"), 30.0)])
def test_it_doubles_up_to_a_limit_however_long_an_outage_lasts(error: ServiceError, longest: float) -> None:
    back_off = BackOff(exactly)
    pauses = [back_off.failed(error, 0.0, WRITE) for _ in range(5_000)]

    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert set(pauses[6:]) == {longest}


def test_what_the_service_asks_for_is_done() -> None:
    back_off = BackOff(exactly)

    assert back_off.failed(Throttled("slow down", retry_after=25.0), 100.0, WRITE) == 25.0
    assert back_off.pause(110.0) == 15.0


@pytest.mark.parametrize("error", [Throttled("slow down", retry_after=1.0), OutcomeUnknown("lost", retry_after=1.0)])
def test_a_useless_retry_after_does_not_keep_the_pauses_short(error: ServiceError) -> None:
    back_off = BackOff(exactly)

    assert [back_off.failed(error, 0.0, WRITE) for _ in range(4)] == [1.0, 2.0, 4.0, 8.0]


def test_throttlings_do_not_make_the_first_pause_after_another_failure_longer() -> None:
    back_off = BackOff(exactly)
    for _ in range(3):
        back_off.failed(Throttled("slow down"), 0.0, WRITE)

    assert back_off.failed(Unreachable("down"), 0.0, WRITE) == 1.0


def test_what_succeeded_makes_the_next_failure_a_first_one() -> None:
    back_off = BackOff(exactly)
    for _ in range(3):
        back_off.failed(Unreachable("down"), 0.0, WRITE)

    assert back_off.succeeded()
    assert not back_off.succeeded()

    assert back_off.failed(Unreachable("down"), 0.0, WRITE) == 1.0


@given(st.floats(0.1, 3600.0))
def test_those_who_failed_together_return_one_after_another_and_none_before_the_service_wants_them(
    asked: float,
) -> None:
    returns = {BackOff().failed(Throttled("slow down", retry_after=asked), 0.0, WRITE) for _ in range(50)}

    assert len(returns) > 40
    assert asked <= min(returns)
    assert max(returns) <= 1.5 * max(asked, 1.0)


@given(st.floats(0.0, 3600.0))
def test_a_jittered_pause_is_about_as_long(pause: float) -> None:
    assert 0.74 * pause <= jittered(pause) <= 1.26 * pause
