"""What we hand to the SDK, checked and in its shapes: ids, texts, times, people. Pure.

The service's ids become segments of a path, and paths are normalised on their way: `messages/..` is the thread itself,
and deleting it is not what anyone meant. So nothing that could address another thing leaves here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from azure.communication.chat import ChatParticipant, CommunicationIdentifier, identifier_from_raw_id

from chatbot.errors import Rejected
from chatbot.model import MessageId, Participant, UserId


def invited(person: Participant) -> ChatParticipant:
    """Someone who is to come in."""
    return ChatParticipant(
        identifier=identifier(person.user),
        display_name=person.display_name,
        share_history_time=aware(person.share_history_time),
    )


def identifier(user: UserId) -> CommunicationIdentifier:
    """A raw id as the identifier it stands for, whatever kind that is."""
    known = identifier_from_raw_id(user)
    # The SDK looks for properties["id"] when it matches failures, which only its own users have: others would end
    # their addition, already done, in a KeyError.
    cast(Any, known).properties = _Properties(known.properties)
    return known


class _Properties(dict[str, Any]):
    """An identifier's properties as they are sent, with an empty `id` for whoever looks for one."""

    def __missing__(self, key: str) -> str:
        return ""


def aware(moment: datetime | None) -> datetime | None:
    """A time as the service's own clock shows it; one without an offset is UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def required(text: str, what: str, operation: str) -> str:
    """A text that may not be empty; `operation` completes "cannot …" in the refusal."""
    if text:
        return text
    msg = f"cannot {operation}: {what} is needed, and it is empty"
    raise Rejected(msg)


def segment(text: str, what: str, operation: str) -> str:
    """An id as one segment of a path: an empty one, or dots, would address something else."""
    if text.strip("."):
        return text
    msg = f"cannot {operation}: {text!r} is no {what}"
    raise Rejected(msg)


def decimal(message: MessageId, operation: str) -> str:
    """A message id as one segment of a path."""
    if message.isascii() and message.isdigit():
        return message
    msg = f"cannot {operation}: {message[:40]!r} is no message id; expected decimal digits"
    raise Rejected(msg)
