"""Checks and converts arguments for the SDK: ids, texts, times, people. Pure.

Ids become segments of a path, and paths are normalized on their way: `messages/..` is the thread itself, which a
deletion would then delete. So an id that could address something else is refused.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from azure.communication.chat import ChatParticipant, CommunicationIdentifier, identifier_from_raw_id

from chatbot.errors import Rejected
from chatbot.model import MessageId, Participant, UserId


def invited(person: Participant) -> ChatParticipant:
    """Return a person to add, as the SDK takes one."""
    return ChatParticipant(
        identifier=identifier(person.user),
        display_name=person.display_name,
        share_history_time=aware(person.share_history_time),
    )


def identifier(user: UserId) -> CommunicationIdentifier:
    """Return the identifier of a raw id, of whatever kind."""
    known = identifier_from_raw_id(user)
    # The SDK reads properties["id"] when it matches failures. Only communication users have it: for other kinds the
    # SDK would raise a KeyError although the addition is done.
    cast(Any, known).properties = _Properties(known.properties)
    return known


class _Properties(dict[str, Any]):
    """An identifier's properties, with an empty `id` when it is read but not sent."""

    def __missing__(self, key: str) -> str:
        return ""


def aware(moment: datetime | None) -> datetime | None:
    """Return an aware time; one without an offset is UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def required(text: str, what: str, operation: str) -> str:
    """Return a text that must not be empty; `operation` completes "cannot …" in the error."""
    if text:
        return text
    msg = f"cannot {operation}: {what} is needed, and it is empty"
    raise Rejected(msg)


def segment(text: str, what: str, operation: str) -> str:
    """Return an id as one segment of a path; an empty one, or dots, would address something else."""
    if text.strip("."):
        return text
    msg = f"cannot {operation}: {text!r} is no {what}"
    raise Rejected(msg)


def decimal(message: MessageId, operation: str) -> str:
    """Return a message id as one segment of a path."""
    if message.isascii() and message.isdigit():
        return message
    msg = f"cannot {operation}: {message[:40]!r} is no message id; expected decimal digits"
    raise Rejected(msg)
