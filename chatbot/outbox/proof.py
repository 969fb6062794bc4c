"""Proof by reading: `send_message` has no idempotency key, so an own message with the key is the proof of a send.

Heals a double: of two messages under one key the elder stays, with the newest content. Pure.

A double becomes visible when a wish was repeated because a stale read had not shown that it was done already.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from chatbot.actions import Action, ActionKey, DeleteMessage, EditMessage
from chatbot.model import ChatMessage, MessageId, ThreadId
from chatbot.service.base import ChatService
from chatbot.stores.records import OutboxRow

PAGE_SIZE = 200


async def read_own(
    service: ChatService, thread: ThreadId, rows: Sequence[OutboxRow], *, slack_ms: int
) -> list[ChatMessage]:
    """Read all own messages of a thread among which these sends must be, if they were made.

    Reads without `startTime` and without regard to any cursor, down to before the first of the rows was made.

    Raises:
        ErrorResponse: as `ChatService.list_messages` does; nothing is known then.
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


def tombstones_without_key(own: Sequence[ChatMessage]) -> list[MessageId]:
    """Own tombstones that do not say any more which row they come of."""
    return [message.id for message in own if message.deleted_on and message.reply_key is None]


def match_proofs(
    own: Sequence[ChatMessage], rows: Sequence[OutboxRow], *, made: Collection[MessageId] = ()
) -> dict[ActionKey, MessageId]:
    """Pair rows with own messages: by key, else with a tombstone made since, which may have lost its key.

    Whether a deleted message keeps its metadata is not known, and a reply that somebody deleted at once is not to be
    said again. But what a tombstone without a key proves by mistake is a reply that nobody ever sees. So it proves one
    row at most, and only where nothing speaks against it: rows are sent in their order, so its place among the proven
    messages must be that of the row; and no row was journalled after the message that it sent.

    Args:
        own: from `read_own`.
        rows: the sends in question, in the order in which they are sent.
        made: tombstones that are explained otherwise; a reply that we have taken back ourselves proves no other.
    """
    by_key: dict[str, MessageId] = {}
    for message in sorted(own, key=lambda message: message.number, reverse=True):
        if message.reply_key is not None:
            by_key[message.reply_key] = message.id  # the elder of a double comes last, and stays
    numbers = sorted(int(id) for id in set(tombstones_without_key(own)).difference(made))
    proofs: dict[ActionKey, MessageId] = {}
    before = 0
    for place, row in enumerate(rows):
        found = by_key.get(row.key)
        later = [int(by_key[other.key]) for other in rows[place + 1 :] if other.key in by_key]
        if found is None and (later or len(proofs) == place):  # else one before it was not sent, so it was not either
            earliest = max(before, row.after, row.created_ms)
            fitting = [number for number in numbers if earliest < number < min(later, default=number + 1)]
            found = MessageId(str(fitting[0])) if fitting else None
        if found is not None:
            proofs[row.key] = found
            before = max(before, int(found))
    return proofs


@dataclass(frozen=True, slots=True)
class Healing:
    """What is to be done about a double.

    Args:
        kept: the message that stays.
        deleted: the one that goes.
        wishes: what brings this about, each under the key it is journalled with.
    """

    kept: MessageId
    deleted: MessageId
    actions: tuple[tuple[ActionKey, Action], ...]


def heal(key: ActionKey, seen: ChatMessage, other: ChatMessage, *, is_edited_soon: bool) -> Healing:
    """Decide which of two messages stays, and what it is to read.

    Args:
        key: what both were sent under.
        seen: the one that was just seen; it is not deleted.
        other: the other one, as the service shows it now.
        is_edited_soon: whether an edit of the message is on its way already; it will find the one that stays.
    """
    elder, younger = sorted((seen, other), key=lambda message: message.number)
    wishes: list[Action] = []
    if other.deleted_on is not None:  # the reply was taken back, this one with it
        elder, younger = other, seen
    elif _was_edited_last(younger, elder) and not is_edited_soon:
        wishes.append(EditMessage(elder.id, younger.content))
    wishes.append(DeleteMessage(younger.id))
    keyed = tuple((healing_key(key, younger.id, number), wish) for number, wish in enumerate(wishes))
    return Healing(elder.id, younger.id, keyed)


def healing_key(key: ActionKey, younger: MessageId, number: int = 0) -> ActionKey:
    """What the wishes that heal a double are journalled under: done twice, they are the same wishes."""
    return ActionKey(f"{key}.double.{younger}.{number}")


def _was_edited_last(message: ChatMessage, other: ChatMessage) -> bool:
    """Whether of two doubles this one shows the newer content."""
    return message.edited_on is not None and (other.edited_on is None or message.version > other.version)
