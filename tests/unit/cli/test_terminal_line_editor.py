from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.cli.terminal import LineEditor


def typed(*chunks: bytes) -> tuple[list[str], str]:
    editor = LineEditor()
    return [line for chunk in chunks for line in editor.feed(chunk)], editor.text


@pytest.mark.parametrize(
    ("keys", "lines", "text"),
    [
        (b"hello\r", ["hello"], ""),
        (b"one\ntwo\nthr", ["one", "two"], "thr"),
        (b"helo\x7flo\r", ["hello"], ""),
        (b"\x7f\x7fa", [], "a"),
        (b"one two\x17", [], "one "),
        (b"one two\x15three", [], "three"),
        (b"a\x1b[A\x1b[1;5Cb\x1bOPc\x1bx", [], "abc"),  # arrows, function keys, Alt-x
        ("äß→名".encode(), [], "äß→名"),
        (b"a\x00\x01\x07b", [], "ab"),
        (b"\xff\xfe", [], "��"),
    ],
)
def test_keys_edit_the_line(keys: bytes, lines: list[str], text: str) -> None:
    assert typed(keys) == (lines, text)


def test_up_and_down_show_earlier_lines_and_bring_back_what_was_being_typed() -> None:
    earlier = ["one", "two"]
    editor = LineEditor(earlier)

    editor.feed(b"dra")
    shown = []
    for key in (b"\x1b[A", b"\x1bOA", b"\x1b[A", b"\x1b[B", b"\x1bOB", b"\x1b[B", b"ft"):
        editor.feed(key)
        shown.append(editor.text)
    assert shown == ["two", "one", "one", "two", "dra", "dra", "draft"]

    assert editor.feed(b"\x1b[A!\r") == ["two!"]
    earlier.append("two!")
    editor.feed(b"\x1b[A")
    assert editor.text == "two!"


def test_ctrl_d_ends_the_input_only_on_an_empty_line() -> None:
    editor = LineEditor()

    editor.feed(b"a\x04")
    assert not editor.is_done
    editor.feed(b"\x15\x04ignored")

    assert editor.is_done
    assert editor.text == ""


def test_a_terminal_that_is_gone_ends_the_input() -> None:
    editor = LineEditor()

    editor.feed(b"")

    assert editor.is_done


@given(st.text(alphabet=st.sampled_from("ab ä→\r\x7f\x15\x17\x1b[AO~1;")), st.lists(st.integers(0, 60)))
def test_it_does_not_matter_where_the_bytes_are_cut(text: str, cuts: list[int]) -> None:
    data = text.encode()
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    chunks = [data[start:end] for start, end in pairwise(edges)]

    assert typed(*chunks) == (typed(data) if data else ([], ""))
