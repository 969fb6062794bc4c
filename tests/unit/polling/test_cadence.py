"""A thread's beat decays as it falls silent, within the quotas."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatbot.polling.cadence import Cadence
from chatbot.service.budget import QUOTAS, Operation


def test_an_active_thread_is_polled_at_the_fast_interval_and_a_silent_one_at_the_slow_one() -> None:
    cadence = Cadence(interval=1, idle=30)

    assert [cadence.pause(silent) for silent in (0, 4, 8, 40, 120, 1e6)] == [1, 1, 2, 10, 30, 30]


@given(st.floats(0, 10), st.floats(0, 100), st.lists(st.floats(0, 600), min_size=1))
def test_no_interval_is_shorter_than_the_quotas_of_a_thread_allow(
    interval: float, idle: float, silences: list[float]
) -> None:
    cadence = Cadence(interval=interval, idle=max(idle, interval, 0.3))

    for silence in silences:
        for window in QUOTAS[Operation.LIST_MESSAGES]:
            assert window.seconds / cadence.pause(silence) <= window.limit


@given(st.floats(0, 1e5), st.floats(0, 1e5))
def test_the_longer_the_silence_the_longer_the_pause(a: float, b: float) -> None:
    shorter, longer = sorted((a, b))

    assert Cadence().pause(shorter) <= Cadence().pause(longer)


def test_a_poll_is_full_when_the_last_full_one_is_a_slow_interval_ago() -> None:
    cadence = Cadence(idle=30)

    assert cadence.is_full_poll_due(None)
    assert not cadence.is_full_poll_due(29)
    assert cadence.is_full_poll_due(30)
