"""The judge of the chaos tests and of the soak sees what it is there to see."""

from __future__ import annotations

import pytest

from tests.chaos.verdict import Said, Verdict, judge, longest_wait


def talk(*said: str) -> list[Said]:
    """`>` begins what the bot said."""
    return [Said(number, text.startswith(">"), text.removeprefix(">")) for number, text in enumerate(said)]


def test_a_thread_in_which_everything_was_answered_once_and_in_order_is_clean() -> None:
    said = talk("say 1", "/two 2", ">1", ">2 a", "/fix 3", ">2 b", ">3 fixed", "/poison 4", "/die 5 kill")
    more = talk("/count 6", ">6 is 1", "/tell 7", "/count 8", ">7 once upon a time", ">8 is 2")
    verdict = judge(said) + judge(more)

    assert verdict == Verdict(sent=8, buried=2, expected=7, visible=7)
    assert verdict.is_clean


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (["say 1", "say 2", ">2"], "missing"),
        (["/two 1", ">1 b"], "missing"),
        (["/fix 1", ">1 draft"], "missing"),
        (["say 1", ">1", ">1"], "doubled"),
        (["say 1", ">1", ">7"], "unexpected"),
        (["say 1", "say 2", ">2", ">1"], "disordered"),
        (["/count 1", ">1 is 1", "/count 2", ">2 is 1"], "missing"),
        (["/tell 1", ">1 once …"], "missing"),
        (["say 1 anew", ">1"], "missing"),
        (["say 1 anew", ">1", ">1 anew", ">1"], "doubled"),
    ],
)
def test_what_is_wrong_is_seen(said: list[str], found: str) -> None:
    verdict = judge(talk(*said))

    assert getattr(verdict, found) == 1
    assert not verdict.is_clean


def test_an_edited_message_may_be_answered_in_addition_or_in_its_place() -> None:
    assert judge(talk("say 1 anew", "say 2", ">1", ">2", ">1 anew")).is_clean
    assert judge(talk("say 1 anew", "say 2", ">1 anew", ">2")).is_clean


def test_order_is_not_asked_of_replies_where_the_service_showed_the_messages_out_of_order() -> None:
    assert judge(talk("say 1", "say 2", ">2", ">1"), has_order=False).is_clean
    assert judge(talk("/count 1", "/count 2", ">2 is 1", ">1 is 2"), has_order=False).is_clean


def test_the_longest_wait_is_that_of_the_reply_that_took_longest() -> None:
    said = [Said(0, False, "say 1"), Said(1_000, False, "/two 2"), Said(1_500, True, "1"), Said(4_000, True, "2 b")]

    assert longest_wait(said) == 3.0
    assert longest_wait([]) == 0.0


def test_verdicts_of_threads_add_up() -> None:
    assert Verdict(sent=1, missing=2) + Verdict(sent=3, doubled=1) == Verdict(sent=4, missing=2, doubled=1)


def test_deleted_and_system_messages_are_not_seen() -> None:
    transcript = [
        {"id": 3, "type": "text", "sender": "bot", "text": "2"},
        {"id": 2, "type": "text", "sender": "ann", "text": "say 2"},
        {"id": 1, "type": "text", "sender": "bot", "text": "", "deleted": 9},
        {"id": 0, "type": "topicUpdated", "sender": "ann", "text": ""},
    ]

    assert Said.living(transcript, "bot") == [Said(2, False, "say 2"), Said(3, True, "2")]
