"""Beats keep to their rate whatever happens, and every thread gets its own."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.bot.poll_queue import BURST, TICK, RateLimitedPolls
from chatbot.model import ThreadId

A, B = ThreadId("a"), ThreadId("b")
RATE = 10.0


def threads(count: int) -> list[ThreadId]:
    return [ThreadId(str(number)) for number in range(count)]


def test_a_thread_is_looked_at_after_its_pause() -> None:
    beats = RateLimitedPolls(RATE)
    beats.set(A, 1.5, 0.0)

    assert beats.pop(1.4) is None
    assert beats.next_due() == 1.5
    assert beats.pop(1.5) == A
    assert beats.next_due() is None


def test_intervals_above_the_poll_rate_are_all_stretched_by_the_same_factor() -> None:
    beats = RateLimitedPolls(RATE)
    for thread in threads(600):
        beats.set(thread, 30.0, 0.0)  # 20 looks a second are wanted
    assert beats.stretch == pytest.approx(2)

    beats.set(A, 1.0, 0.0)

    assert beats.stretch == pytest.approx(2.1)
    assert beats.first() == (A, pytest.approx(2.1))


def test_threads_that_are_due_soon_after_each_other_pass_together_at_the_tick() -> None:
    beats = RateLimitedPolls(RATE, TICK)
    for thread, pause in ((A, 30.01), (B, 30.19)):
        beats.set(thread, pause, 0.0)

    due = beats.next_due()

    assert due == pytest.approx(30.2)
    assert [beats.pop(due), beats.pop(due)] == [A, B]


def test_a_thread_that_becomes_due_between_two_ticks_waits_for_the_next_one() -> None:
    beats = RateLimitedPolls(RATE, TICK)
    for thread, pause in ((A, 30.01), (B, 30.25)):
        beats.set(thread, pause, 0.0)

    assert [beats.pop(30.15), beats.pop(30.21), beats.pop(30.3), beats.pop(30.41)] == [None, A, None, B]


@pytest.mark.parametrize("late", [0.0, 0.1, 0.29])
def test_ticks_that_come_late_do_not_lower_the_rate(late: float) -> None:
    rate, threads_polled, now = 100.0, 0, 0.0
    beats = RateLimitedPolls(rate, TICK)
    for number, thread in enumerate(threads(3000)):
        beats.set(thread, 30.0, 0.0, phase=number / 3000)
    while (due := beats.next_due()) is not None and due < 60.0:
        now = due + late
        while (thread := beats.pop(now)) is not None:
            threads_polled += 1
            beats.set(thread, 30.0, now)

    assert threads_polled >= 0.97 * rate * now


@given(st.floats(0.0, 1e7), st.floats(0.3, 100))
def test_when_the_queue_says_that_a_thread_is_due_it_can_be_taken(now: float, pause: float) -> None:
    beats = RateLimitedPolls(RATE, TICK)
    beats.set(A, pause, now)

    due = beats.next_due()

    assert due is not None
    assert due <= now + pause + 0.2 + 1e-6
    assert beats.pop(due) == A


def test_dropped_threads_leave_their_rate_to_the_others() -> None:
    beats = RateLimitedPolls(RATE)
    for thread in threads(600):
        beats.set(thread, 30.0, 0.0)
    for thread in threads(600):
        beats.drop(thread)

    assert beats.stretch == 1
    assert len(beats) == 0


def test_a_suspended_process_does_not_poll_everything_at_once_when_it_continues() -> None:
    beats = RateLimitedPolls(RATE)
    for thread in threads(100):
        beats.set(thread, 30.0, 0.0)

    an_hour_later = 3600.0
    at_once = 0
    while beats.pop(an_hour_later) is not None:
        at_once += 1

    assert at_once <= RATE * BURST + 1
    assert beats.next_due() == pytest.approx(an_hour_later + 1 / RATE, abs=1 / RATE)


@given(
    st.lists(st.floats(0.3, 60), min_size=1, max_size=40),
    st.lists(st.one_of(st.floats(0, 0.5), st.sampled_from([7.0, 3600.0])), min_size=1, max_size=60),
)
def test_no_window_ever_holds_more_looks_than_the_rate_allows(pauses: list[float], steps: list[float]) -> None:
    beats, now, taken = RateLimitedPolls(RATE), 0.0, list[float]()
    for number, pause in enumerate(pauses):
        beats.set(ThreadId(str(number)), pause, now)
    for step in steps:
        now += step
        while (thread := beats.pop(now)) is not None:
            taken.append(now)
            beats.set(thread, pauses[int(thread)], now)

    for begin in set(taken):
        for end in set(taken):
            inside = sum(begin <= at <= end for at in taken)
            assert end < begin or inside <= RATE * (end - begin + BURST) + 1 + 1e-6


@given(st.lists(st.floats(0.3, 60), min_size=1, max_size=60))
def test_no_thread_waits_longer_than_its_stretched_pause_and_its_place_in_the_queue(pauses: list[float]) -> None:
    beats, now = RateLimitedPolls(RATE), 0.0
    last = dict.fromkeys(threads(len(pauses)), 0.0)
    for thread in last:
        beats.set(thread, pauses[int(thread)], now)
    stretch = max(1.0, sum(1 / pause for pause in pauses) / RATE)

    while now < 200:
        while (thread := beats.pop(now)) is not None:
            last[thread] = now
            beats.set(thread, pauses[int(thread)], now)
        now = beats.next_due() or now
        for thread, at in last.items():
            longest = pauses[int(thread)] * stretch + len(pauses) / RATE + 1e-6
            assert now - at <= longest


@given(st.integers(1, 400), st.randoms(use_true_random=False))
def test_threads_that_begin_together_begin_one_after_the_other(count: int, random: object) -> None:
    beats = RateLimitedPolls(RATE)
    for thread in threads(count):
        beats.set(thread, 30.0, 0.0, phase=random.random())  # type: ignore[attr-defined]

    now, taken = 0.0, list[float]()
    while (due := beats.next_due()) is not None:
        now = max(now, due)
        if beats.pop(now) is not None:
            taken.append(now)

    assert len(taken) == count
    for second in range(math.ceil(now)):
        assert sum(second <= at < second + 1 for at in taken) <= RATE * (1 + BURST) + 1
