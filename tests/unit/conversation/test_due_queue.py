from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatbot.conversation.due_queue import DueQueue

keys = st.sampled_from("abcd")
times = st.integers(0, 9)
steps = st.one_of(
    st.tuples(st.just("set"), keys, times), st.tuples(st.just("drop"), keys), st.tuples(st.just("take"), times)
)


@given(st.lists(steps))
def test_the_heap_returns_the_earliest_of_the_latest_entries(story: list[tuple]) -> None:
    agenda, known = DueQueue[str, int](), dict[str, int]()
    for verb, *arguments in story:
        if verb == "set":
            agenda.set(*arguments)
            known[arguments[0]] = arguments[1]
        elif verb == "drop":
            agenda.drop(*arguments)
            known.pop(arguments[0], None)
        else:
            now = arguments[0]
            taken = agenda.pop_due(now)
            earliest = min(known.values(), default=now + 1)
            assert (None if earliest > now else earliest) == (None if taken is None else known.pop(taken))

        assert agenda.next_due() == min(known.values(), default=None)
