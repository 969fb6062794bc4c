"""Long texts are cut where a reader would pause, and lose nothing but white space."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.message_size import (
    MAX_MESSAGE_BYTES,
    MAX_METADATA_BYTES,
    MAX_TOTAL_BYTES,
    check_message,
    metadata_size,
    pieces_of_edit,
    split,
    split_message,
)


def test_a_text_that_fits_is_not_touched() -> None:
    assert split("  hi \n") == ["  hi \n"]


def test_paragraphs_are_preferred_to_lines_and_lines_to_words() -> None:
    assert split("aaaa bbbb\n\ncccc dddd", limit=14) == ["aaaa bbbb", "cccc dddd"]
    assert split("aaaa bbbb\ncccc dddd", limit=14) == ["aaaa bbbb", "cccc dddd"]
    assert split("aaaa bbbb cccc", limit=10) == ["aaaa bbbb", "cccc"]


def test_a_text_without_any_boundary_is_cut_all_the_same() -> None:
    assert split("x" * (MAX_MESSAGE_BYTES + 1)) == ["x" * MAX_MESSAGE_BYTES, "x"]


@given(st.text(alphabet="ab \n.é€😀", max_size=200), st.integers(4, 40))
def test_every_piece_fits_and_together_they_say_the_same(text: str, limit: int) -> None:
    pieces = split(text, limit)

    assert all(len(piece.encode()) <= limit for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert len(pieces) == 1 or all(piece.strip() for piece in pieces)


FULL = "x" * MAX_MESSAGE_BYTES


@pytest.mark.parametrize(
    ("content", "is_html"),
    [("{" + FULL, False), ("[a] " + FULL, False), (FULL, True), (f'["{FULL[:-4]}"]', False), (FULL + "!", False)],
)
def test_text_of_any_length_can_be_sent_and_html_and_json_that_fit(content: str, is_html: bool) -> None:
    check_message("reply()", content, is_html=is_html)


@pytest.mark.parametrize(
    ("content", "is_html"),
    [
        (FULL + "!", True),
        ("é" * 14_000, True),
        (f' ["{FULL}"]', False),
        (f'{{"a": "{FULL}"}}\n', False),
        ("[" * 99_999, False),
    ],
)
def test_html_and_json_that_are_too_large_are_refused_without_being_quoted(content: str, is_html: bool) -> None:
    with pytest.raises(ValueError, match="a message takes at most 27,000") as caught:
        check_message("reply()", content, is_html=is_html)

    assert content[:5] not in str(caught.value)


def test_content_and_metadata_share_what_a_message_takes() -> None:
    metadata = {"é": "x" * (MAX_METADATA_BYTES - 2)}

    check_message("reply()", FULL, metadata)
    assert all(len(piece) + metadata_size(metadata) <= MAX_TOTAL_BYTES for piece in split_message(FULL, metadata))
    with pytest.raises(ValueError, match="html of 27,000 bytes; a message takes at most 8,000"):
        check_message("reply()", FULL, metadata, is_html=True)
    with pytest.raises(ValueError, match="metadata of 20,001 bytes"):
        check_message("reply()", "hi", {**metadata, "y": ""})


def test_an_edit_takes_no_more_pieces_than_there_are() -> None:
    assert pieces_of_edit("edit()", "short", 3) == ["short"]
    assert len(pieces_of_edit("edit()", FULL + "!", 2)) == 2
    with pytest.raises(ValueError, match="got 27,001 bytes, which need 2 messages; this one takes at most 27,000"):
        pieces_of_edit("edit()", FULL + "!", 1)
    with pytest.raises(ValueError, match="which need 2 messages"):
        pieces_of_edit("edit()", f'["{FULL}"]', 2)
