from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.conversation.dialog import NO, NOT_UNDERSTOOD, YES, choose, complaint, is_cancel, is_yes


@given(
    st.lists(st.text(st.characters(categories=["Lu", "Ll"]), min_size=1), min_size=1, unique_by=str.casefold), st.data()
)
def test_every_choice_can_be_typed_in_any_case(choices: list[str], data: st.DataObject) -> None:
    wanted = data.draw(st.sampled_from(choices))

    assert choose(f" {wanted} ", choices) == wanted
    assert choose(wanted.casefold(), choices).casefold() == wanted.casefold()


@pytest.mark.parametrize("answer", ["", " ", "s", "small please", "medium"])
def test_what_means_no_single_choice_is_asked_for_again(answer: str) -> None:
    with pytest.raises(ValueError, match="one of these: small, smaller, large"):
        choose(answer, ["small", "smaller", "large"])


def test_a_choice_that_others_begin_with_can_be_chosen() -> None:
    assert choose("Small", ["small", "smaller"]) == "small"
    assert choose("smaller", ["small", "smaller"]) == "smaller"
    assert choose("l", ["small", "large"]) == "large"


@pytest.mark.parametrize(("answer", "expected"), [("Yes!", True), (" ok ", True), ("NOPE", False), ("no.", False)])
def test_people_agree_in_many_words(answer: str, expected: bool) -> None:
    assert is_yes(answer, YES, NO) is expected


def test_words_of_another_language_are_asked_for_in_it() -> None:
    with pytest.raises(ValueError, match="Please answer with oui or non"):
        is_yes("yes", ["oui"], ["non"])


def test_pythons_own_words_are_not_said_to_people_but_the_authors_are() -> None:
    def picky(text: str) -> str:
        return text

    error = ValueError("invalid literal for int() with base 10: 'x'")

    assert complaint(error, int) == NOT_UNDERSTOOD
    assert complaint(error, partial(int, base=2)) == NOT_UNDERSTOOD
    assert complaint(ValueError("Too long."), picky) == "Too long."
    assert complaint(ValueError(), picky) == NOT_UNDERSTOOD


def test_words_that_cancel_are_whole_answers() -> None:
    assert is_cancel(" Cancel. ", ["cancel"])
    assert is_cancel("/CANCEL", ["cancel", "/cancel"])
    assert not is_cancel("cancel my order", ["cancel"])
