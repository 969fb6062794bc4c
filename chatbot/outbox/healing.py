"""Heals a double: of two messages under one key the elder stays, with the newest content. Pure.

A double becomes visible when a wish was repeated because a stale read had not shown that it was done already.
"""

from __future__ import annotations

from dataclasses import dataclass

from chatbot.actions import Action, ActionKey, DeleteMessage, EditMessage
from chatbot.model import ChatMessage, MessageId


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
    wishes: tuple[tuple[ActionKey, Action], ...]


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
