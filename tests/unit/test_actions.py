"""Texts that handlers give: what people read is repaired, what is compared is refused. Actions are values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from copy import copy
from dataclasses import FrozenInstanceError, fields, make_dataclass, replace
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from chatbot.actions import EditMessage, SendMessage, expect_identifier, make_encodable, make_pieces_encodable
from chatbot.events import BotStarted, TimerFired
from chatbot.model import MessageId, ThreadId, UserId


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


def test_actions_and_events_compare_and_show_themselves_as_generated_dataclasses_do() -> None:
    edit = EditMessage(MessageId("1"), "hi")
    twin = make_dataclass(
        "EditMessage", [(one.name, one.type, one) for one in map(copy, fields(edit))], frozen=True, slots=True
    )
    same = twin(*(getattr(edit, one.name) for one in fields(edit)))

    assert repr(edit) == repr(same).replace(type(same).__qualname__, "EditMessage")
    assert edit == replace(edit)
    assert hash(edit) == hash(replace(edit))
    assert edit != replace(edit, content="ho")
    assert edit != same  # of another class


def test_what_is_not_hashed_is_compared_and_what_is_not_shown_too() -> None:
    plain, marked = SendMessage("hi"), SendMessage("hi", metadata={"a": "b"})
    assert plain != marked
    assert hash(plain) == hash(marked)

    now = datetime.now(UTC)
    thread, user = ThreadId("19:a@thread.v2"), UserId("8:acs:a")
    timer = TimerFired(bot=user, occurred_on=now, thread=thread, timer="t", id="1", due=now, payload='{"secret": 1}')
    assert "secret" not in repr(timer)
    assert timer != replace(timer, payload="{}")
    with pytest.raises(FrozenInstanceError):
        timer.id = "2"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        BotStarted(bot=user, occurred_on=now).occurred_on = now  # type: ignore[misc]
