"""How many answers a person gets in how much time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from chatbot.dispatch.access import Rate, RateUsage

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RATE = Rate(2, timedelta(minutes=1))


def answered(*seconds: float) -> RateUsage:
    share = RateUsage()
    for one in seconds:
        share = share.with_answer(RATE, NOON + timedelta(seconds=one))
    return share


@pytest.mark.parametrize(
    ("seconds", "is_used_up"),
    [((), False), ((59,), False), ((1, 59), True), ((0, 59), False), ((-5, -4, 59), False), ((61, 62), False)],
)
def test_what_counts_is_what_was_answered_within_the_time_before(seconds: tuple[float, ...], is_used_up: bool) -> None:
    assert answered(*seconds).is_used_up(RATE, NOON + timedelta(seconds=60)) is is_used_up


def test_answers_that_do_not_count_any_more_are_not_kept() -> None:
    assert len(answered(0, 1, 90, 91).answered_ms) == 2


def test_after_an_answer_the_next_refusal_is_announced_again() -> None:
    assert not RateUsage(is_told=True).with_answer(RATE, NOON).is_told


@pytest.mark.parametrize("wrong", [(0, timedelta(minutes=1)), (1, timedelta())])
def test_a_rate_that_lets_nobody_in_is_refused(wrong: tuple[int, timedelta]) -> None:
    with pytest.raises(ValueError, match="at least one message, in a time longer than zero"):
        Rate(*wrong)
