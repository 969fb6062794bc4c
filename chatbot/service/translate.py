"""The service's JSON in our words. Pure, and suspicious of every shape.

Why JSON and not the SDK's models: the SDK makes the call, but its decoding costs ten times what the call's own work
costs, loses the errors of participants it cannot match, and breaks in many ways on shapes it does not expect. The
names here are those of the REST specification (api-version 2024-03-07). Whatever is not as the specification has it
ends as a `ProtocolError` that names the place and what was expected there; message text is never quoted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from chatbot.errors import ProtocolError
from chatbot.model import (
    Attachment,
    ChatMessage,
    MessageId,
    MessageType,
    Participant,
    Receipt,
    Thread,
    ThreadId,
    ThreadItem,
    UserId,
)
from chatbot.service.base import FailedParticipant

T = TypeVar("T")
Json = dict[str, Any]

_MAX_DIGITS: Final = 18
"""Ids and versions fit a signed 64-bit integer, as stores need them."""

_TYPES: Final = {kind.value: kind for kind in MessageType}


def read_json(body: bytes | str) -> Json:
    """Read an answer's body, which must be a JSON object.

    Raises:
        ProtocolError: it is not JSON, or not an object.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        msg = f"the service's answer is not JSON ({len(body)} bytes); a JSON object was expected; is this the service?"
        raise ProtocolError(msg) from error
    return _object(value, "answer")


def page(body: Json, item: Callable[[Any, str], T]) -> tuple[tuple[T, ...], str | None]:
    """Read one page of any listing.

    Args:
        body: the page.
        item: reads one element; gets it and its place.

    Returns:
        The elements in the service's order, and the link to the next page or None on the last.
    """
    values = _list(body.get("value"), "value")
    link = _text(body.get("nextLink"), "nextLink")
    return tuple([item(value, f"value[{number}]") for number, value in enumerate(values)]), link


def message(value: Any, place: str = "message") -> ChatMessage:
    """Read a ChatMessage; unknown types become `MessageType.OTHER`."""
    raw = _object(value, place)
    kind = _required_text(raw.get("type"), place, "type")
    content = _object(raw.get("content") or {}, place, "content")
    version = _number(raw.get("version"), place, "version")
    people = content.get("participants")
    files = content.get("attachments")
    sequence = raw.get("sequenceId")
    return ChatMessage(
        id=_message_id(raw.get("id"), place, "id"),
        version=version,
        type=_TYPES.get(kind, MessageType.OTHER),
        created_on=_required_time(raw.get("createdOn"), place, "createdOn"),
        content=_text(content.get("message"), place, "content.message") or "",
        sequence_id=_number(sequence, place, "sequenceId") if sequence is not None else 0,
        sender=_user(raw.get("senderCommunicationIdentifier"), place, "senderCommunicationIdentifier"),
        sender_display_name=_text(raw.get("senderDisplayName"), place, "senderDisplayName"),
        initiator=_user(content.get("initiatorCommunicationIdentifier"), place, "initiatorCommunicationIdentifier"),
        topic=_text(content.get("topic"), place, "content.topic"),
        participants=_each(people, participant, f"{place}.content.participants") if people else (),
        attachments=_each(files, attachment, f"{place}.content.attachments") if files else (),
        metadata=_metadata(raw.get("metadata"), place),
        edited_on=_time(raw.get("editedOn"), place, "editedOn"),
        deleted_on=_time(raw.get("deletedOn"), place, "deletedOn"),
    )


def participant(value: Any, place: str = "participant") -> Participant:
    """Read a ChatParticipant."""
    raw = _object(value, place)
    return Participant(
        user=_required_user(raw.get("communicationIdentifier"), place, "communicationIdentifier"),
        display_name=_text(raw.get("displayName"), place, "displayName"),
        share_history_time=_time(raw.get("shareHistoryTime"), place, "shareHistoryTime"),
    )


def attachment(value: Any, place: str = "attachment") -> Attachment:
    """Read a ChatAttachment."""
    raw = _object(value, place)
    return Attachment(
        id=_required_text(raw.get("id"), place, "id"),
        type=_required_text(raw.get("attachmentType"), place, "attachmentType"),
        name=_text(raw.get("name"), place, "name"),
        url=_text(raw.get("url"), place, "url"),
        preview_url=_text(raw.get("previewUrl"), place, "previewUrl"),
    )


def thread(value: Any, place: str = "thread") -> Thread:
    """Read a ChatThreadProperties."""
    raw = _object(value, place)
    return Thread(
        id=ThreadId(_required_text(raw.get("id"), place, "id")),
        topic=_text(raw.get("topic"), place, "topic") or "",
        created_on=_required_time(raw.get("createdOn"), place, "createdOn"),
        created_by=_user(raw.get("createdByCommunicationIdentifier"), place, "createdByCommunicationIdentifier"),
        deleted_on=_time(raw.get("deletedOn"), place, "deletedOn"),
    )


def thread_item(value: Any, place: str = "thread") -> ThreadItem:
    """Read a ChatThreadItem."""
    raw = _object(value, place)
    return ThreadItem(
        id=ThreadId(_required_text(raw.get("id"), place, "id")),
        topic=_text(raw.get("topic"), place, "topic") or "",
        last_activity=_time(raw.get("lastMessageReceivedOn"), place, "lastMessageReceivedOn"),
        deleted_on=_time(raw.get("deletedOn"), place, "deletedOn"),
    )


def receipt(value: Any, place: str = "receipt") -> Receipt:
    """Read a ChatMessageReadReceipt."""
    raw = _object(value, place)
    return Receipt(
        reader=_required_user(raw.get("senderCommunicationIdentifier"), place, "senderCommunicationIdentifier"),
        message=_message_id(raw.get("chatMessageId"), place, "chatMessageId"),
        read_on=_required_time(raw.get("readOn"), place, "readOn"),
    )


def sent(body: Json) -> MessageId:
    """Read the answer to a send: the new message's id."""
    return _message_id(body.get("id"), "answer", "id")


def failed(body: Json, asked: Sequence[Participant]) -> tuple[FailedParticipant, ...]:
    """Read whom the service did not take in.

    Args:
        body: the answer to a creation or an addition.
        asked: who was meant to come in; an error without a target means the only one asked.

    Returns:
        One entry per error; its `user` is empty where the service did not say whom it meant.
    """
    only = asked[0].user if len(asked) == 1 else UserId("")

    def read(value: Any, place: str) -> FailedParticipant:
        raw = {name.lower(): item for name, item in _object(value, place).items()}
        target = _text(raw.get("target"), place, "target")
        return FailedParticipant(
            user=UserId(target) if target else only,
            code=_text(raw.get("code"), place, "code") or "",
            message=_text(raw.get("message"), place, "message") or "",
        )

    errors = body.get("invalidParticipants")
    return _each(errors, read, "invalidParticipants") if errors else ()


def time(value: Any, place: str) -> datetime:
    """Read an ISO 8601 time as an aware one in UTC; one without an offset is UTC."""
    return _required_time(value, place)


def _object(value: Any, *place: str) -> Json:
    if isinstance(value, dict):
        return value
    raise _unexpected(value, place, "an object")


def _list(value: Any, *place: str) -> list[Any]:
    if isinstance(value, list):
        return value
    raise _unexpected(value, place, "a list")


def _each(value: Any, item: Callable[[Any, str], T], place: str) -> tuple[T, ...]:
    return tuple([item(element, f"{place}[{number}]") for number, element in enumerate(_list(value, place))])


def _text(value: Any, *place: str) -> str | None:
    """A string, with "" read as absent; half surrogate pairs, which no store and no terminal can write, replaced."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _unexpected(value, place, "text")
    return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _required_text(value: Any, *place: str) -> str:
    text = _text(value, *place)
    if text is None:
        raise _unexpected(value, place, "text")
    return text


def _number(value: Any, *place: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        return int(value)
    raise _unexpected(value, place, f"a decimal number of at most {_MAX_DIGITS} digits, as text", quote=True)


def _message_id(value: Any, *place: str) -> MessageId:
    _number(value, *place)
    return MessageId(value)


def _time(value: Any, *place: str) -> datetime | None:
    return None if value is None else _required_time(value, *place)


def _required_time(value: Any, *place: str) -> datetime:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise _unexpected(value, place, "an ISO 8601 time", quote=True)


def _user(value: Any, *place: str) -> UserId | None:
    return None if value is None else _required_user(value, *place)


def _required_user(value: Any, *place: str) -> UserId:
    raw = _object(value, *place)
    known = raw.get("rawId")
    if not known and isinstance(communication_user := raw.get("communicationUser"), dict):
        known = communication_user.get("id")
    return UserId(_required_text(known, *place, "rawId"))


def _metadata(value: Any, place: str) -> dict[str, str]:
    if not value:
        return {}
    entries = _object(value, place, "metadata")
    return {
        _text(name, place, "metadata") or "": _text(entry, place, "metadata") or "" for name, entry in entries.items()
    }


def _unexpected(value: Any, place: tuple[str, ...], expected: str, *, quote: bool = False) -> ProtocolError:
    where = ".".join(place)
    found = "nothing" if value is None else type(value).__name__
    if quote and isinstance(value, str):
        found = repr(value[:40])
    return ProtocolError(f"the service's answer is not its protocol: {where}: expected {expected}, found {found}")
