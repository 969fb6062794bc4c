from __future__ import annotations

import sys
from pathlib import Path

import pytest

from chatbot.testing.chat_files.difference import difference, first_difference, other_replies, perform
from chatbot.testing.chat_files.script import ScriptStep, Verb, final_replies, parse_script

EXPECTED = parse_script("plugins: p\nAnn: a\nP: one\n  two\nAnn: b\nP: b\n", "a.chat").steps


def said(who: str, text: str) -> ScriptStep:
    return ScriptStep(Verb.SAYS, who, text)


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


RECORDED = parse_script("plugins: p\ncompare: replies\nAnn: a\nAnn: b\nP: one\nP: two\nAnn: c\nP: three\n", "a.chat")
ANN = [step for step in RECORDED.steps if step.who == "Ann"]


def shown(*done: ScriptStep) -> list[tuple[str, list[str]]]:
    return list(other_replies(RECORDED, done))


def test_replies_in_other_places_are_no_difference() -> None:
    assert shown(ANN[0], said("P", "one"), ANN[1], said("P", "two"), ANN[2], said("P", "three")) == []
    assert shown(*ANN, said("P", "one"), said("P", "two"), said("P", "three")) == []


def test_another_reply_is_shown_where_it_is_given_now() -> None:
    assert shown(ANN[0], said("P", "1"), ANN[1], said("P", "two"), ANN[2], said("P", "three")) == [
        ("P", ["  3  Ann: a", "- 5  P: one", "+    P: 1", "  4  Ann: b", "  6  P: two", "  7  Ann: c"])
    ]


def test_a_reply_that_is_missing_or_new_is_shown_with_its_neighbours() -> None:
    assert shown(ANN[0], said("P", "one"), ANN[1], ANN[2], said("P", "three")) == [
        ("P", ["  5  P: one", "  4  Ann: b", "  7  Ann: c", "- 6  P: two", "  8  P: three"])
    ]
    assert shown(ANN[0], said("P", "one"), ANN[1], said("P", "two"), ANN[2], said("P", "three"), said("P", "four")) == [
        ("P", ["  6  P: two", "  7  Ann: c", "  8  P: three", "+    P: four"])
    ]


def test_a_bot_that_is_silent_now_misses_all_its_replies() -> None:
    assert shown(*ANN) == [
        ("P", ["  3  Ann: a", "  4  Ann: b", "  7  Ann: c", "- 5  P: one", "- 6  P: two", "- 8  P: three"])
    ]


LONG_PLUGIN = """
from chatbot import Context, Plugin

plugin = Plugin("long")


@plugin.message()
async def answer(ctx: Context) -> str:
    return ctx.text
"""


def test_a_long_conversation_of_one_person_is_not_stopped_as_a_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "long_talk.py").write_text(LONG_PLUGIN)
    script = parse_script("bot: Bo\nplugins: long_talk\n" + "Ann: a\n" * 210, "long.chat")

    try:
        done = perform(script, near=tmp_path, root=tmp_path)
    finally:
        sys.modules.pop("long_talk", None)

    assert len(final_replies(done.steps, "Bo")) == 210
