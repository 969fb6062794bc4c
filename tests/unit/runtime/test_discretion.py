from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.events import Event
from chatbot.runtime.discretion import traceback_of, without_words
from chatbot.testing import EventStream


def event(text: str) -> Event:
    return EventStream().user("Ann").said(text)


def told(error: BaseException, said: Event | None) -> str:
    try:
        raise error
    except BaseException:
        return traceback_of(sys.exc_info(), said)


def test_what_an_exception_quotes_of_the_message_is_left_out_and_the_rest_stays() -> None:
    text = told(ValueError("no such city: 'Zurich' (of 12)"), event("Take me to zurich"))

    assert text.endswith("ValueError: no such city: '…' (of 12)")
    assert text.startswith("Traceback (most recent call last):")
    assert "raise error" in text


def test_without_an_event_nothing_is_left_out() -> None:
    assert told(ValueError("Zurich"), None).endswith("ValueError: Zurich")


def test_causes_groups_notes_and_further_lines_keep_the_words_too() -> None:
    inner = KeyError("hunter2")
    inner.add_note("while hunter2 was read")
    outer = ValueError("first line\nhunter2 in the second")
    outer.__cause__ = inner
    group = ExceptionGroup("several about hunter2", [outer, LookupError("and hunter2")])

    text = told(group, event("my password is hunter2"))

    assert "hunter2" not in text
    assert text.count("…") >= 5


def test_an_exception_that_cannot_say_what_it_is_does_no_harm() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert "Mute" in told(Mute(), event("hello"))


@pytest.mark.parametrize(
    ("line", "said", "left"),
    [
        ("invalid literal: '4'", "/roll 4", "invalid literal: '…'"),
        ("a b c", "a b c", "a b c"),  # words of one letter tell nothing where they are not quoted
        ("Äpfel und Birnen", "ÄPFEL", "… und Birnen"),
        ("找不到：我的秘密密码", "我的秘密密码是什么", "找不到：…"),
        ("path C:\\temp\\x was wrong", "temp", "path C:\\…\\x was wrong"),
    ],
)
def test_words_are_left_out_whatever_their_case_and_script(line: str, said: str, left: str) -> None:
    assert without_words(line, said) == left


@given(st.text(), st.text())
def test_no_word_of_three_letters_that_was_said_is_left(line: str, said: str) -> None:
    kept = {word.casefold() for word in re.findall(r"\w+", without_words(line, said))}

    assert not {word.casefold() for word in re.findall(r"\w{3,}", said)} & kept


def test_an_event_without_a_message_leaves_the_exception_as_it_is() -> None:
    assert told(ValueError("as it is"), EventStream().bot_started()).endswith("ValueError: as it is")
