"""An own message with a row's key proves the send, and so does an own tombstone that may have lost its key."""

from __future__ import annotations

from datetime import UTC, datetime

from chatbot.actions import ActionKey, SendMessage
from chatbot.model import REPLY_KEY, ChatMessage, MessageId, MessageType, ThreadId
from chatbot.outbox.proof import match_proofs
from chatbot.stores.base import OutboxRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def row(key: str, after: int = 100) -> OutboxRow:
    return OutboxRow(ActionKey(key), ThreadId("t"), SendMessage("hi"), after=after, created_ms=0)


def own(identifier: int, key: str | None = None, *, is_deleted: bool = False) -> ChatMessage:
    return ChatMessage(
        id=MessageId(str(identifier)),
        version=identifier,
        type=MessageType.TEXT,
        created_on=NOW,
        metadata={REPLY_KEY: key} if key else {},
        deleted_on=NOW if is_deleted else None,
    )


def test_a_message_with_the_key_proves_its_row_and_no_other() -> None:
    assert match_proofs([own(101, "k1")], [row("k1"), row("k2")]) == {"k1": "101"}


def test_of_a_double_the_elder_is_the_proof() -> None:
    assert match_proofs([own(105, "k1"), own(101, "k1")], [row("k1")]) == {"k1": "101"}


def test_a_reply_that_somebody_deleted_at_once_is_not_said_again() -> None:
    assert match_proofs([own(101, is_deleted=True)], [row("k1"), row("k2")]) == {"k1": "101"}


def test_a_tombstone_older_than_the_row_proves_nothing() -> None:
    assert match_proofs([own(99, is_deleted=True)], [row("k1")]) == {}


def test_a_tombstone_of_another_row_proves_nothing() -> None:
    graves = [own(101, is_deleted=True), own(102, is_deleted=True)]

    assert match_proofs(graves, [row("k1")], made={MessageId("101")}) == {"k1": "102"}
    assert match_proofs(graves, [row("k1")], made={MessageId("101"), MessageId("102")}) == {}
