"""An own message with a row's key proves the send, and so does an own tombstone that may have lost its key."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.actions import ActionKey, SendMessage
from chatbot.model import REPLY_KEY, ChatMessage, MessageId, MessageType, ThreadId
from chatbot.outbox.proof import match_proofs
from chatbot.stores.records import OutboxRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def row(key: str, after: int = 100, created_ms: int = 1) -> OutboxRow:
    return OutboxRow(ActionKey(key), ThreadId("t"), SendMessage("hi"), after=after, created_ms=created_ms)


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


def test_the_older_of_two_duplicates_is_the_proof() -> None:
    assert match_proofs([own(105, "k1"), own(101, "k1")], [row("k1")]) == {"k1": "101"}


def test_a_reply_that_somebody_deleted_at_once_is_not_said_again() -> None:
    assert match_proofs([own(101, is_deleted=True)], [row("k1"), row("k2")]) == {"k1": "101"}


def test_a_tombstone_older_than_the_row_proves_nothing() -> None:
    assert match_proofs([own(99, is_deleted=True)], [row("k1")]) == {}


def test_a_tombstone_of_another_row_proves_nothing() -> None:
    graves = [own(101, is_deleted=True), own(102, is_deleted=True)]

    assert match_proofs(graves, [row("k1")], made={MessageId("101")}) == {"k1": "102"}
    assert match_proofs(graves, [row("k1")], made={MessageId("101"), MessageId("102")}) == {}


def test_a_tombstone_proves_no_row_that_was_journalled_after_its_message_was_made() -> None:
    assert match_proofs([own(150, is_deleted=True)], [row("k1", created_ms=200)]) == {}


def test_a_tombstone_proves_one_row_only() -> None:
    graves = [own(101, is_deleted=True)]

    assert match_proofs(graves, [row("k1"), row("k2"), row("k3")]) == {"k1": "101"}


def test_a_tombstone_proves_no_row_behind_one_that_was_not_sent() -> None:
    assert match_proofs([own(101, is_deleted=True)], [row("k1", after=102), row("k2")]) == {}


def test_a_tombstone_stands_among_the_proven_messages_where_its_row_stands_among_theirs() -> None:
    rows = [row("k1"), row("k2"), row("k3")]
    proven = [own(110, "k1"), own(130, "k3")]

    assert match_proofs([*proven, own(120, is_deleted=True)], rows) == {"k1": "110", "k2": "120", "k3": "130"}
    assert match_proofs([*proven, own(105, is_deleted=True)], rows) == {"k1": "110", "k3": "130"}
    assert match_proofs([*proven, own(140, is_deleted=True)], rows) == {"k1": "110", "k3": "130"}


@settings(deadline=None)
@given(
    sent=st.lists(st.sampled_from(["kept", "deleted"]), max_size=6),
    waiting=st.integers(0, 3),
    noise=st.sets(st.integers(0, 60), max_size=6),
)
def test_rows_that_were_never_sent_are_never_taken_for_done(sent: list[str], waiting: int, noise: set[int]) -> None:
    """Rows are journalled at 10, 20, …, and sent in this order a moment later; what we said meanwhile we delete."""
    rows = [row(f"k{place}", after=0, created_ms=10 * place + 10) for place in range(len(sent) + waiting)]
    messages = []
    for place, fate in enumerate(sent):
        number = 10 * place + 15
        messages.append(own(number, f"k{place}" if fate == "kept" else None, is_deleted=fate != "kept"))
    explained = {number for number in noise if number % 10 != 5}
    messages += [own(number, is_deleted=True) for number in explained]

    proofs = match_proofs(messages, rows, made={MessageId(str(number)) for number in explained})

    assert proofs.keys() <= {f"k{place}" for place in range(len(sent))}
    assert len(set(proofs.values())) == len(proofs)
    assert {key for key, id in proofs.items() if id != str(10 * int(key[1:]) + 15)} == set()
