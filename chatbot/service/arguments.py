"""Validation and conversion of arguments for the SDK: ids, texts, times, participants. Performs no I/O.

Ids become path segments, and paths are normalized in transit: `messages/..` is the thread itself, so deleting the
message `..` would delete the thread. Ids that could address another resource are therefore rejected.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from azure.communication.chat import ChatParticipant, CommunicationIdentifier, identifier_from_raw_id

from chatbot.errors import Rejected
from chatbot.model import MessageId, Participant, UserId


def invited(person: Participant) -> ChatParticipant:
    """Convert a participant to add to the SDK's type."""
    return ChatParticipant(
        identifier=identifier(person.user),
        display_name=person.display_name,
        share_history_time=aware(person.share_history_time),
    )


def identifier(user: UserId) -> CommunicationIdentifier:
    """Return the SDK's identifier for a raw id of any kind."""
    known = identifier_from_raw_id(user)
    # The SDK reads properties["id"] to match failures, but only communication users have it. For other kinds, the SDK
    # would raise a KeyError although the participant was added.
    cast(Any, known).properties = _IdentifierProperties(known.properties)
    return known


class _IdentifierProperties(dict[str, Any]):
    """An identifier's properties, with an empty `id` for readers that is not sent."""

    def __missing__(self, key: str) -> str:
        return ""


def aware(moment: datetime | None) -> datetime | None:
    """Return an aware time; a naive one is interpreted as UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def quoted_time(moment: datetime) -> str:
    """Return a time for a query, as the SDK writes it; a naive one is interpreted as UTC."""
    utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    timespec = "microseconds" if utc.microsecond % 1000 else "milliseconds"
    return utc.isoformat(timespec=timespec).removesuffix("+00:00").replace(":", "%3A") + "Z"


def required(text: str, what: str, operation: str) -> str:
    """Check that a text is not empty; `operation` completes "cannot …" in the error."""
    if text:
        return text
    msg = f"cannot {operation}: {what} is needed, and it is empty"
    raise Rejected(msg)


def segment(text: str, what: str, operation: str) -> str:
    """Encode an id as one path segment; reject empty ids and dots, which would address another resource."""
    if text.strip("."):
        return text
    msg = f"cannot {operation}: {text!r} is not a {what}"
    raise Rejected(msg)


def decimal(message: MessageId, operation: str) -> str:
    """Encode a message id as one path segment."""
    if message.isascii() and message.isdigit():
        return message
    msg = f"cannot {operation}: {message[:40]!r} is not a message id; expected decimal digits"
    raise Rejected(msg)
