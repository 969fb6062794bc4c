"""Which of two messages under one key stays, and what it reads then."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from chatbot.actions import Action, ActionKey, DeleteMessage, EditMessage
from chatbot.model import ChatMessage, MessageId, MessageType, UserId
from chatbot.outbox.proof import Healing, heal

KEY = ActionKey("k1")
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def message(id: int, content: str = "hi", *, edited_at: int | None = None, is_deleted: bool = False) -> ChatMessage:
    made = ChatMessage(
        id=MessageId(str(id)),
        type=MessageType.TEXT,
        version=edited_at or id,
        sender=UserId("8:acs:bot"),
        content=content,
        created_on=WHEN,
    )
    made = replace(made, edited_on=WHEN) if edited_at else made
    return replace(made, deleted_on=WHEN) if is_deleted else made


def actions(healing: Healing) -> list[Action]:
    return [action for _, action in healing.actions]


def test_the_older_duplicate_stays_whichever_is_seen_later() -> None:
    for seen, other in ((100, 200), (200, 100)):
        healing = heal(KEY, message(seen), message(other), is_edited_soon=False)

        assert (healing.kept, healing.deleted) == ("100", "200")
        assert actions(healing) == [DeleteMessage(MessageId("200"))]


def test_the_older_duplicate_gets_the_edits_of_the_newer_one() -> None:
    healing = heal(KEY, message(100), message(200, "hello", edited_at=300), is_edited_soon=False)

    assert actions(healing) == [EditMessage(MessageId("100"), "hello"), DeleteMessage(MessageId("200"))]


def test_an_edit_that_is_on_its_way_is_not_made_twice() -> None:
    healing = heal(KEY, message(100), message(200, "hello", edited_at=300), is_edited_soon=True)

    assert actions(healing) == [DeleteMessage(MessageId("200"))]


def test_the_newer_of_two_edits_is_what_stays() -> None:
    healing = heal(
        KEY, message(100, "newer", edited_at=400), message(200, "older", edited_at=300), is_edited_soon=False
    )

    assert actions(healing) == [DeleteMessage(MessageId("200"))]


def test_a_reply_that_was_taken_back_takes_its_double_with_it() -> None:
    healing = heal(KEY, message(100), message(200, is_deleted=True), is_edited_soon=False)

    assert (healing.kept, healing.deleted) == ("200", "100")
    assert actions(healing) == [DeleteMessage(MessageId("100"))]


def test_repairing_the_same_duplicate_again_is_the_same_action() -> None:
    first = heal(KEY, message(100), message(200), is_edited_soon=False)
    second = heal(KEY, message(200), message(100), is_edited_soon=False)

    assert first.actions == second.actions
