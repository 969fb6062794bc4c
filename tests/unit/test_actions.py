"""Texts that handlers give: what people read is repaired, what is compared is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
from structlog.testing import capture_logs

from chatbot.actions import expect_identifier, make_encodable, make_pieces_encodable


@pytest.mark.parametrize(
    ("given", "read", "is_repaired"),
    [
        ("plain", "plain", False),
        ("ä \U0001f600", "ä \U0001f600", False),
        ("a \ud83d\ude00 b", "a \U0001f600 b", False),
        ("a \ud83d", "a \ufffd", True),
        ("\ude00 b", "\ufffd b", True),
        ("a \ud83d b", "a \ufffd b", True),
        ("\ude00\ud83d", "\ufffd\ufffd", True),
        ("\ud83d\ud83d\ude00", "\ufffd\U0001f600", True),
        ("\ufffd", "\ufffd", False),
    ],
)
def test_halves_are_joined_or_replaced_with_a_warning(given: str, read: str, is_repaired: bool) -> None:
    with capture_logs() as logs:
        assert make_encodable(given, "plugin.handler") == read
    assert [line["event"] for line in logs] == ["text.repaired"] * is_repaired
    assert not any("plain" in f"{line}" or given in f"{line}" for line in logs)


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        (["Sure \ud83d", "\ude00 here"], "Sure \U0001f600 here"),
        (["\ud83d", "", "\ude00"], "\U0001f600"),
        (["\ud83d", "\ud83d", "\ude00"], "\ufffd\U0001f600"),
        (["a", "\ud83d"], "a\ufffd"),
        (["\ude00", "b"], "\ufffdb"),
    ],
)
async def test_halves_that_meet_over_pieces_are_joined(pieces: Sequence[str], whole: str) -> None:
    async def source() -> AsyncIterator[str]:
        for piece in pieces:
            yield piece

    shown = [piece async for piece in make_pieces_encodable(source(), "plugin.handler")]
    assert "".join(shown) == whole
    assert all(piece.encode() for piece in shown)


async def test_a_piece_that_is_no_text_is_refused() -> None:
    async def source() -> AsyncIterator[str]:
        yield b"bytes"  # type: ignore[misc]

    with pytest.raises(TypeError, match=r"stream\(\) takes a text, not bytes"):
        [piece async for piece in make_pieces_encodable(source(), "plugin.handler")]


def test_half_a_pair_is_refused_in_what_is_compared() -> None:
    assert expect_identifier("ä \U0001f600", "once()") == "ä \U0001f600"
    with pytest.raises(ValueError, match=r"once\(\) got a text with half"):
        expect_identifier("a \ud83d", "once()")
    with pytest.raises(TypeError, match=r"once\(\) takes a text, not int"):
        expect_identifier(7, "once()")
