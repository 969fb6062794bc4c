"""Long texts are cut where a reader would pause, and lose nothing but white space."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatbot.message_size import MAX_MESSAGE_BYTES, split


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
