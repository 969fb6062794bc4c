"""The schedule gives each thread once, the earliest first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatbot.conversation.due_queue import DueQueue
from chatbot.model import ThreadId

A, B = ThreadId("a"), ThreadId("b")


def test_threads_come_when_they_are_due_and_not_before() -> None:
    schedule = DueQueue[ThreadId, float]()
    schedule.set_earlier(A, 2.0)
    schedule.set_earlier(B, 1.0)

    assert schedule.next_due() == 1.0
    assert schedule.pop_due(0.5) is None
    assert [schedule.pop_due(3.0), schedule.pop_due(3.0), schedule.pop_due(3.0)] == [B, A, None]


def test_an_earlier_time_replaces_a_later_one_and_not_the_other_way_round() -> None:
    schedule = DueQueue[ThreadId, float]()
    schedule.set_earlier(A, 5.0)
    schedule.set_earlier(A, 1.0)
    schedule.set_earlier(A, 9.0)

    assert schedule.pop_due(1.0) == A
    assert schedule.pop_due(10.0) is None


def test_a_dropped_thread_does_not_come() -> None:
    schedule = DueQueue[ThreadId, float]()
    schedule.set_earlier(A, 1.0)
    schedule.drop(A)

    assert schedule.next_due() is None
    assert A not in schedule
    assert len(schedule) == 0


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 20)), max_size=40))
def test_every_thread_comes_once_at_its_earliest_time(entries: list[tuple[str, int]]) -> None:
    schedule = DueQueue[ThreadId, float]()
    earliest: dict[str, int] = {}
    for name, due in entries:
        schedule.set_earlier(ThreadId(name), due)
        earliest[name] = min(due, earliest.get(name, due))

    taken = []
    while (due := schedule.next_due()) is not None:
        taken.append((schedule.pop_due(due), due))

    assert dict(taken) == earliest
    assert [due for _, due in taken] == sorted(earliest.values())
