"""Proof by reading, and the healing of duplicates.

The service's `send_message` has no idempotency key. The outbox puts the action's key into the metadata of what it
sends, so an own message with that key proves the send. A send of unknown outcome is repeated only after the thread was
read and showed no proof.

A read may be stale: a message may become visible after the proof read that missed it. Then one key has two messages.
Healing keeps the older one, gives it the newest content, and deletes the younger one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec import Struct

from chatbot.actions import Action, ActionKey, DeleteMessage, EditMessage
from chatbot.model import ChatMessage, MessageId, ThreadId
from chatbot.service.base import ChatService
from chatbot.stores.records import OutboxRow

PAGE_SIZE = 200


async def read_own(
    service: ChatService, thread: ThreadId, rows: Sequence[OutboxRow], *, slack_ms: int
) -> list[ChatMessage]:
    """Read all own messages of a thread that may come from these rows.

    Raises:
        ServiceError: as `ChatService.list_messages` does; nothing is known then.
    """
    # No `startTime` (it is unknown whether the service compares creation or change), and no cursor: it may have passed
    # the message already. `after` is the highest version known when the row was made, so a send cannot lie below it.
    bound = min(row.after for row in rows) - slack_ms
    own: list[ChatMessage] = []
    link: str | None = None
    while True:
        page = await service.list_messages(thread, page_size=PAGE_SIZE, link=link)
        own += [message for message in page.messages if message.sender == service.user]
        if page.next_link is None or any(message.version <= bound for message in page.messages):
            return own
        link = page.next_link


def tombstones_without_key(own: Sequence[ChatMessage]) -> list[MessageId]:
    """Return the own deleted messages whose metadata, and so their key, is gone."""
    return [message.id for message in own if message.deleted_on and message.reply_key is None]


def match_proofs(
    own: Sequence[ChatMessage], rows: Sequence[OutboxRow], *, made: Collection[MessageId] = ()
) -> dict[ActionKey, MessageId]:
    """Pair rows with own messages: by key, or else with a tombstone that has lost its key.

    It is not known whether a deleted message keeps its metadata, and a reply that was deleted right after it was sent
    must not be sent again. But a tombstone that proves the wrong row is a reply that nobody ever sees. So a tombstone
    proves at most one row, and only if it fits: rows are sent in their order, so it must lie between the messages of
    the rows before and after, and it must be younger than the row.

    Args:
        own: from `read_own`.
        rows: the sends of unknown outcome, in the order in which they are sent.
        made: tombstones with another explanation, for example replies that the bot deleted itself.
    """
    by_key: dict[str, MessageId] = {}
    for message in sorted(own, key=lambda message: message.number, reverse=True):
        if message.reply_key is not None:
            by_key[message.reply_key] = message.id  # the older of two comes last, and stays
    numbers = sorted(int(id) for id in set(tombstones_without_key(own)).difference(made))
    proofs: dict[ActionKey, MessageId] = {}
    before = 0
    for place, row in enumerate(rows):
        found = by_key.get(row.key)
        later = [int(by_key[other.key]) for other in rows[place + 1 :] if other.key in by_key]
        if found is None and (
            later or len(proofs) == place
        ):  # else an earlier row was not sent, so this one was not either
            earliest = max(before, row.after, row.created_ms)
            fitting = [number for number in numbers if earliest < number < min(later, default=number + 1)]
            found = MessageId(str(fitting[0])) if fitting else None
        if found is not None:
            proofs[row.key] = found
            before = max(before, int(found))
    return proofs


class Healing(Struct, frozen=True):
    """How to heal two messages under one key.

    Args:
        kept: the message to keep.
        deleted: the message to delete.
        actions: what to do, each with the key under which it is journalled.
    """

    kept: MessageId
    deleted: MessageId
    actions: tuple[tuple[ActionKey, Action], ...]


def heal(key: ActionKey, seen: ChatMessage, other: ChatMessage, *, is_edited_soon: bool) -> Healing:
    """Decide which of two messages to keep, and with which content.

    Args:
        key: the key of both.
        seen: the message that was just read; it is not deleted.
        other: the other message, as the service shows it now.
        is_edited_soon: whether an edit of the message is pending; it will apply to the message that stays.
    """
    older, younger = sorted((seen, other), key=lambda message: message.number)
    actions: list[Action] = []
    if other.deleted_on is not None:  # the reply was deleted, so its double goes as well
        older, younger = other, seen
    elif _was_edited_last(younger, older) and not is_edited_soon:
        actions.append(EditMessage(older.id, younger.content))
    actions.append(DeleteMessage(younger.id))
    keyed = tuple((healing_key(key, younger.id, number), action) for number, action in enumerate(actions))
    return Healing(older.id, younger.id, keyed)


def healing_key(key: ActionKey, younger: MessageId, number: int = 0) -> ActionKey:
    """Return the key of a healing action; it depends on the messages alone, so that healing twice makes no new rows."""
    return ActionKey(f"{key}.double.{younger}.{number}")


def _was_edited_last(message: ChatMessage, other: ChatMessage) -> bool:
    """Return whether this one of two messages shows the newer content."""
    return message.edited_on is not None and (other.edited_on is None or message.version > other.version)
