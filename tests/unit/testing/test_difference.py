from __future__ import annotations

from chatbot.testing.difference import difference, first_difference
from chatbot.testing.script import parse_script
from chatbot.testing.step import Step, Verb

EXPECTED = parse_script("plugins: p\nAnn: a\nP: one\n  two\nAnn: b\nP: b\n", "a.chat").steps


def said(who: str, text: str) -> Step:
    return Step(Verb.SAYS, who, text)


def test_the_same_conversation_has_no_difference() -> None:
    actual = [said("Ann", "a"), said("P", "one\ntwo  \n"), said("Ann", "b"), said("P", "b")]

    assert difference(EXPECTED, actual) == []


def test_a_difference_is_shown_with_line_numbers_and_what_is_around_it() -> None:
    actual = [EXPECTED[0], said("P", "one\n2"), EXPECTED[2], EXPECTED[3], said("P", "more")]

    assert difference(EXPECTED, actual) == [
        "  2  Ann: a",
        "- 3  P: one",
        "-      two",
        "+    P: one",
        "+      2",
        "  5  Ann: b",
        "  6  P: b",
        "+    P: more",
    ]
    assert first_difference(EXPECTED, actual) == 3


def test_what_is_missing_or_too_much_at_the_end_has_a_line_too() -> None:
    assert first_difference(EXPECTED, EXPECTED[:3]) == 6
    assert first_difference(EXPECTED, [*EXPECTED, said("P", "more")]) == 6
    assert first_difference([], [said("P", "more")]) == 1
