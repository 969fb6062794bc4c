from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.conversation import journal
from chatbot.conversation.journal import Entry, JournalStep
from chatbot.errors import StoreError, StoreTooNew

values = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())
entries = st.builds(
    Entry,
    st.sampled_from(JournalStep),
    st.text(),
    values,
    st.dictionaries(st.text(), st.none() | st.text(), max_size=2),
)


@given(st.lists(entries))
def test_a_journal_comes_back_as_it_was(story: list[Entry]) -> None:
    stored = journal.dump(story)

    assert journal.load(stored) == story
    assert journal.steps(stored) == len(story)
    assert stored.isascii()
    assert "\0" not in stored


@given(st.text(), st.text())
def test_equal_marks_are_equal_questions(one: str, other: str) -> None:
    assert (journal.mark_of(one) == journal.mark_of(other)) is (one == other)


def test_what_comes_of_a_question_takes_its_place_and_begins_the_next_part() -> None:
    asked = [Entry(JournalStep.BEGAN), Entry(JournalStep.SAID), Entry(JournalStep.ASKED, "mark")]

    answered = journal.resolve_question(asked, JournalStep.ANSWERED, "red")

    assert answered == [*asked[:2], Entry(JournalStep.ANSWERED, "mark", "red")]
    assert journal.last_boundary(asked) == 0
    assert journal.last_boundary([*answered, Entry(JournalStep.RAN, "f")]) == 2


@pytest.mark.parametrize(
    "stored", ["", "[]", "{}", '{"v":1,"entries":[["sang","",null,{}]]}', '{"v":1,"entries":[[1]]}']
)
def test_damage_is_distinguished_from_a_journal(stored: str) -> None:
    with pytest.raises(StoreError, match="damaged"):
        journal.load(stored)


def test_a_newer_journal_is_not_read() -> None:
    with pytest.raises(StoreTooNew, match="form 3; this chatbot reads up to 2"):
        journal.load('{"v":3,"entries":[]}')


def test_a_journal_without_timers_is_written_for_older_chatbots_too() -> None:
    asked = [Entry(JournalStep.BEGAN), Entry(JournalStep.SAID), Entry(JournalStep.ASKED, "mark")]

    assert journal.dump(asked).endswith('"v":1}')
    assert journal.dump([*asked, Entry(JournalStep.SET_TIMER, "ring", 7)]).endswith('"v":2}')
