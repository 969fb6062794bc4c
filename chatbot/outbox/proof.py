"""Proof by reading: `send_message` has no idempotency key, so an own message with the key is the proof of a send."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from chatbot.actions import ActionKey
from chatbot.model import ChatMessage, MessageId, ThreadId
from chatbot.service.base import ChatService
from chatbot.stores.base import OutboxRow

PAGE_SIZE = 200


async def read_own(
    service: ChatService, thread: ThreadId, rows: Sequence[OutboxRow], *, slack_ms: int
) -> list[ChatMessage]:
    """Read all own messages of a thread among which these sends must be, if they were made.

    Reads without `startTime` and without regard to any cursor, down to before the first of the rows was made.

    Raises:
        ServiceError: as `ChatService.list_messages` does; nothing is known then.
    """
    bound = min(row.after for row in rows) - slack_ms
    own: list[ChatMessage] = []
    link: str | None = None
    while True:
        page = await service.list_messages(thread, page_size=PAGE_SIZE, link=link)
        own += [message for message in page.messages if message.sender == service.user]
        if page.next_link is None or any(message.version <= bound for message in page.messages):
            return own
        link = page.next_link


def nameless_graves(own: Sequence[ChatMessage]) -> list[MessageId]:
    """Own tombstones that do not say any more which row they come of."""
    return [message.id for message in own if message.deleted_on and message.reply_key is None]


def match_proofs(
    own: Sequence[ChatMessage], rows: Sequence[OutboxRow], *, made: Collection[MessageId] = ()
) -> dict[ActionKey, MessageId]:
    """Pair rows with own messages: by key, else with a tombstone made since, which may have lost its key.

    Whether a deleted message keeps its metadata is not known; a reply that somebody deleted at once is not to be
    said again, so an own tombstone without a key counts for the eldest row that has no other proof.

    Args:
        own: from `read_own`.
        rows: the sends in question, eldest first.
        made: messages that come of other rows; a reply that we have taken back ourselves proves no other.
    """
    by_key: dict[str, MessageId] = {}
    for message in sorted(own, key=lambda message: message.number, reverse=True):
        if message.reply_key is not None:
            by_key[message.reply_key] = message.id  # the elder of a double comes last, and stays
    proofs: dict[ActionKey, MessageId] = {}
    graves = set(nameless_graves(own)).difference(made)
    tombstones = sorted((message for message in own if message.id in graves), key=lambda message: message.number)
    for row in rows:
        if row.key in by_key:
            proofs[row.key] = by_key[row.key]
            continue
        fitting = next((message for message in tombstones if message.number > row.after), None)
        if fitting is not None:
            tombstones.remove(fitting)
            proofs[row.key] = fitting.id
    return proofs
