from __future__ import annotations

from dataclasses import asdict
from typing import Any

from chatbot.testing.chat_files.script import ScriptStep, Verb, parse_script
from chatbot.testing.replays.comparison import Comparison, Mark, as_json, compare, repeatable_steps
from chatbot.testing.replays.recording import Reply
from tests.support.recordings import BEGIN_MS, BOT, recorded, said

FIRST_MS = BEGIN_MS + 10_000


def reply(text: str, key: str | None = None, *, at: int = 0, is_html: bool = False) -> Reply:
    """Return a reply to the line of this number, a moment after it."""
    return Reply(FIRST_MS + at * 3_000 + 500, BOT, text, is_html, key)


def result(*replies: Reply, stories: list[dict[str, Any]] | None = None, refused: Any = ()) -> dict[str, Any]:
    return {
        "replies": [asdict(one) for one in replies],
        "stories": stories or [],
        "refused": list(refused),
        "problems": [],
    }


def compared(old: list[Reply], first: dict[str, Any], second: dict[str, Any] | None = None) -> Comparison:
    return compare(recorded(said("a", "b", "c"), old), [first, second or first])


def marks(comparison: Comparison) -> list[Mark]:
    return [pair.mark for pair in comparison.pairs]


def test_replies_are_paired_by_their_keys_wherever_they_come() -> None:
    done = compared([reply("x", "k1"), reply("y", "k2", at=1)], result(reply("y", "k2", at=1), reply("X", "k1", at=2)))

    assert [(pair.old and pair.old.text, pair.new and pair.new.text) for pair in done.pairs] == [("x", "X"), ("y", "y")]
    assert marks(done) == [Mark.DIFFERENT, Mark.SAME]


def test_replies_with_other_keys_are_paired_between_the_same_lines() -> None:
    done = compared(
        [reply("one"), reply("two", at=1)],
        result(reply("ONE", "k3"), reply("two", "k4", at=1), reply("more", "k5", at=2)),
    )

    assert marks(done) == [Mark.DIFFERENT, Mark.SAME, Mark.NEW]


def test_what_is_missing_now_is_a_difference() -> None:
    assert marks(compared([reply("x", "k1")], result())) == [Mark.MISSING]


def test_what_two_runs_do_otherwise_is_not_repeatable() -> None:
    old = [reply("x", "k1"), reply("y", "k2", at=1)]

    other_text = compared(old, result(reply("1", "k1"), old[1]), result(reply("2", "k1"), old[1]))
    only_second = compared(old, result(old[1]), result(*old))
    only_first = compared(old, result(*old, reply("z", "k3", at=2)), result(*old))
    none_before = compared(old, result(*old), result(*old, reply("z", "k3", at=2)))

    assert marks(other_text) == [Mark.NOT_REPEATABLE, Mark.SAME]
    assert marks(only_second) == [Mark.NOT_REPEATABLE, Mark.SAME]
    assert marks(only_first) == [Mark.SAME, Mark.SAME, Mark.NOT_REPEATABLE]
    assert marks(none_before) == [Mark.SAME, Mark.SAME, Mark.NOT_REPEATABLE]


def test_what_was_drawn_by_chance_is_not_repeatable_even_if_both_runs_drew_alike() -> None:
    noted = [{"what": "random numbers", "place": "dice.py:3"}]
    story = {
        "bot": "bo",
        "message": str(FIRST_MS),
        "unrepeatable": noted,
        "steps": [{"kind": "action", "key": "k1"}, {"kind": "sent", "key": "k1"}],
    }

    drawn = compared([reply("4", "k1")], result(reply("6", "k1"), stories=[story]))
    silent = compared([reply("4", "k1")], result(stories=[{**story, "steps": []}]))
    same = compared([reply("4", "k1")], result(reply("4", "k1"), stories=[story]))

    assert marks(drawn) == marks(silent) == [Mark.NOT_REPEATABLE]
    assert drawn.pairs[0].reasons == ("random numbers, read at dice.py:3",)
    assert marks(same) == [Mark.SAME]


def test_html_and_text_are_different_answers() -> None:
    assert marks(compared([reply("x", "k1")], result(reply("x", "k1", is_html=True)))) == [Mark.DIFFERENT]


def test_the_page_gets_lines_and_pairs_in_order_and_each_refusal_once() -> None:
    refusal = {"what": "look up host", "place": "a.py:1"}
    story = {"bot": "bo", "message": str(FIRST_MS), "steps": [{"kind": "action", "key": "k1"}]}
    found = result(reply("y", "k1"), stories=[story], refused=[refusal, refusal])

    shown = as_json(compared([reply("x", "k1")], found))

    assert [row["kind"] for row in shown["rows"]] == ["adds", "says", "reply", "says", "says"]
    assert shown["rows"][2]["answers"] == shown["rows"][1]["id"]
    assert shown["rows"][2]["old"] == {"text": "x", "is_html": False}
    assert shown["refused"] == [refusal]
    assert shown["counts"]["different"] == 1


TALK = "bot: Bo\nplugins: played.old\nAnn: a\nBo: 1\nAnn: b\nBo: 2\n"


def steps(*replies: str) -> list[ScriptStep]:
    lines = [ScriptStep(Verb.SAYS, "Ann", text) for text in ("a", "b")]
    answers = [ScriptStep(Verb.SAYS, "Bo", text) for text in replies]
    return [lines[0], answers[0], lines[1], *answers[1:]]


def test_steps_of_a_file_that_two_runs_take_otherwise_are_as_in_the_file() -> None:
    script = parse_script(TALK, "talk.chat")

    kept, found = repeatable_steps(script, steps("7", "3"), steps("8", "3"), {})

    assert [step.text for step in kept] == ["a", "1", "b", "3"]
    assert [(one.step.text, one.number, one.reasons) for one in found] == [("7", 4, ())]


def test_an_answer_of_a_file_that_comes_only_sometimes_is_left_out() -> None:
    script = parse_script(TALK, "talk.chat")

    kept, found = repeatable_steps(script, steps("1", "2", "more"), steps("1", "2"), {})

    assert [step.text for step in kept] == ["a", "1", "b", "2"]
    assert [one.step.text for one in found] == ["more"]


def test_an_edit_that_is_not_repeatable_makes_its_message_so() -> None:
    script = parse_script(TALK, "talk.chat")
    edit, other = (ScriptStep(Verb.EDITS, "Bo", text) for text in ("5", "6"))

    kept, found = repeatable_steps(script, [*steps("1", "draft"), edit], [*steps("1", "draft"), other], {})

    assert [step.text for step in kept if step.verb is Verb.SAYS] == ["a", "1", "b", "2"]
    assert [one.number for one in found] == [6]
