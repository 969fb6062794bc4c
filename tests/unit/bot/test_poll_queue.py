"""Calls go first, and no beat starves behind them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatbot.bot.poll_queue import REQUESTS_IN_A_ROW, NextRun, PollQueue
from chatbot.model import ThreadId

A, B, C = ThreadId("a"), ThreadId("b"), ThreadId("c")


def test_a_called_thread_goes_before_one_whose_interval_is_overdue() -> None:
    rota = PollQueue(100, idle=30.0)
    rota.schedule(A, NextRun(poll_in=1.0), 0.0)
    rota.request(B, 5.0)

    assert [rota.pop(5.0), rota.pop(5.0), rota.pop(5.0)] == [B, A, None]


def test_one_poll_serves_the_call_and_the_interval_of_a_thread() -> None:
    rota = PollQueue(100, idle=30.0)
    rota.schedule(A, NextRun(due_in=1.0, poll_in=1.0), 0.0)

    assert rota.pop(2.0) == A
    assert rota.pop(2.0) is None
    assert A not in rota


def test_a_lane_that_needs_nothing_has_neither() -> None:
    rota = PollQueue(100, idle=30.0)
    rota.schedule(A, NextRun(poll_in=1.0), 0.0)
    rota.pop(1.0)
    rota.schedule(A, NextRun(), 1.0)

    assert rota.next_due() is None
    assert rota.stretch == 1


def test_the_next_poll_is_the_earlier_of_call_and_interval() -> None:
    rota = PollQueue(100, idle=30.0)
    rota.schedule(A, NextRun(poll_in=3.0), 0.0)
    rota.request(B, 7.0)

    assert rota.next_due() == 3.0
    assert rota.first() == (A, 3.0)


@given(st.lists(st.sampled_from([A, B]), min_size=1, max_size=60))
def test_an_interval_that_is_due_is_served_however_many_calls_come(callers: list[ThreadId]) -> None:
    rota, waited = PollQueue(100, idle=30.0), 0
    rota.schedule(C, NextRun(poll_in=1.0), 0.0)
    for caller in callers:
        rota.request(caller, 2.0)
        taken = rota.pop(2.0)
        assert taken is not None
        if taken == C:
            break
        waited += 1

    assert waited <= REQUESTS_IN_A_ROW


def test_active_threads_do_not_delay_the_polls_of_silent_ones() -> None:
    queue = PollQueue(1, idle=30.0)
    queue.schedule(A, NextRun(poll_in=30.0), 0.0)
    for number in range(50):
        queue.schedule(ThreadId(f"active {number}"), NextRun(poll_in=0.5), 0.0)

    now, polled = 0.0, list[ThreadId]()
    while now < 31:
        if (thread := queue.pop(now)) is not None:
            polled.append(thread)
            queue.schedule(thread, NextRun(poll_in=30.0 if thread == A else 0.5), now)
        now += 0.125

    assert queue.stretch == 1
    assert A in polled
    assert len(polled) <= 31 + 2
