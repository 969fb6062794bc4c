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
from typing import Any, Final, Self, TypeVar

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

MAX_DIGITS: Final = 18
"""Ids and versions fit a signed 64-bit integer, as stores need them."""

_TYPES: Final = {kind.value: kind for kind in MessageType}
_DECIMAL: Final = f"a decimal number of at most {MAX_DIGITS} digits, as text"
_TIME: Final = "an ISO 8601 time"


class UnexpectedShape(ProtocolError):
    """Something in an answer is not what the protocol says.

    Args:
        place: where, as a path.
        expected: what should be there.
        found: what is there, in words that give nothing away.
    """

    def __init__(self, place: str, expected: str, found: str) -> None:
        super().__init__(f"the service's answer is not its protocol: {place}: expected {expected}, found {found}")
        self.place = place
        self.expected = expected
        self.found = found

    def within(self, outer: str) -> Self:
        """The same, seen from one level further out."""
        return type(self)(f"{outer}.{self.place}", self.expected, self.found)


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
    return _object(value)


def page(body: Json, item: Callable[[Any], T]) -> tuple[tuple[T, ...], str | None]:
    """Read one page of any listing.

    Args:
        body: the page.
        item: reads one element.

    Returns:
        The elements in the service's order, and the link to the next page or None on the last.
    """
    if "value" not in body:
        place = "value"
        raise UnexpectedShape(place, "a list", "nothing")
    return _each(body, "value", item), _text(body, "nextLink")


def message(value: Any) -> ChatMessage:
    """Read a ChatMessage; unknown types become `MessageType.OTHER`."""
    raw = _object(value)
    content = _inner(raw, "content") or {}
    return ChatMessage(
        id=message_id(raw, "id"),
        version=_number(raw, "version"),
        type=_TYPES.get(_required(raw, "type"), MessageType.OTHER),
        created_on=time(raw, "createdOn"),
        content=_text(content, "message") or "",
        sequence_id=_number(raw, "sequenceId") if "sequenceId" in raw else 0,
        sender=_user(raw, "senderCommunicationIdentifier"),
        sender_display_name=_text(raw, "senderDisplayName"),
        initiator=_user(content, "initiatorCommunicationIdentifier"),
        topic=_text(content, "topic"),
        participants=_each(content, "participants", participant),
        attachments=_each(content, "attachments", attachment),
        metadata=_metadata(raw),
        edited_on=_time(raw, "editedOn"),
        deleted_on=_time(raw, "deletedOn"),
    )


def participant(value: Any) -> Participant:
    """Read a ChatParticipant."""
    raw = _object(value)
    return Participant(
        user=_required_user(raw, "communicationIdentifier"),
        display_name=_text(raw, "displayName"),
        share_history_time=_time(raw, "shareHistoryTime"),
    )


def attachment(value: Any) -> Attachment:
    """Read a ChatAttachment."""
    raw = _object(value)
    return Attachment(
        id=_required(raw, "id"),
        type=_required(raw, "attachmentType"),
        name=_text(raw, "name"),
        url=_text(raw, "url"),
        preview_url=_text(raw, "previewUrl"),
    )


def thread(value: Any) -> Thread:
    """Read a ChatThreadProperties."""
    raw = _object(value)
    return Thread(
        id=ThreadId(_required(raw, "id")),
        topic=_text(raw, "topic") or "",
        created_on=time(raw, "createdOn"),
        created_by=_user(raw, "createdByCommunicationIdentifier"),
        deleted_on=_time(raw, "deletedOn"),
    )


def thread_item(value: Any) -> ThreadItem:
    """Read a ChatThreadItem."""
    raw = _object(value)
    return ThreadItem(
        id=ThreadId(_required(raw, "id")),
        topic=_text(raw, "topic") or "",
        last_activity=_time(raw, "lastMessageReceivedOn"),
        deleted_on=_time(raw, "deletedOn"),
    )


def receipt(value: Any) -> Receipt:
    """Read a ChatMessageReadReceipt."""
    raw = _object(value)
    return Receipt(
        reader=_required_user(raw, "senderCommunicationIdentifier"),
        message=message_id(raw, "chatMessageId"),
        read_on=time(raw, "readOn"),
    )


def failed(body: Json, asked: Sequence[Participant]) -> tuple[FailedParticipant, ...]:
    """Read whom the service did not take in.

    Args:
        body: the answer to a creation or an addition.
        asked: who was meant to come in; an error without a target means the only one asked.

    Returns:
        One entry per error; its `user` is empty where the service did not say whom it meant.
    """
    only = asked[0].user if len(asked) == 1 else UserId("")

    def read(value: Any) -> FailedParticipant:
        raw = {name.lower(): item for name, item in _object(value).items()}
        target = _text(raw, "target")
        user = UserId(target) if target else only
        return FailedParticipant(user, code=_text(raw, "code") or "", message=_text(raw, "message") or "")

    return _each(body, "invalidParticipants", read)


def message_id(raw: Json, name: str) -> MessageId:
    """Read a message id: decimal text."""
    _number(raw, name)
    return MessageId(raw[name])


def time(raw: Json, name: str) -> datetime:
    """Read an ISO 8601 time as an aware one in UTC; one without an offset is UTC."""
    value = raw.get(name)
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is UTC:
                return moment
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise UnexpectedShape(name, _TIME, _quoted(value))


def _time(raw: Json, name: str) -> datetime | None:
    return None if raw.get(name) is None else time(raw, name)


def _object(value: Any) -> Json:
    if isinstance(value, dict):
        return value
    place = "it"
    raise UnexpectedShape(place, "an object", _kind(value))


def _inner(raw: Json, name: str) -> Json | None:
    value = raw.get(name)
    if value is None or isinstance(value, dict):
        return value
    raise UnexpectedShape(name, "an object", _kind(value))


def _each(raw: Json, name: str, item: Callable[[Any], T]) -> tuple[T, ...]:
    values = raw.get(name)
    if not values and (values is None or isinstance(values, list)):
        return ()
    if not isinstance(values, list):
        raise UnexpectedShape(name, "a list", _kind(values))
    items = []
    for value in values:
        try:
            items.append(item(value))
        except UnexpectedShape as error:
            place = f"{name}[{len(items)}]"
            raise error.within(place) from None
    return tuple(items)


def _text(raw: Json, name: str) -> str | None:
    """A string, with "" read as absent."""
    value = raw.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise UnexpectedShape(name, "text", _kind(value))
    return _whole(value)


def _required(raw: Json, name: str) -> str:
    text = _text(raw, name)
    if text is None:
        raise UnexpectedShape(name, "text", "nothing")
    return text


def _number(raw: Json, name: str) -> int:
    value = raw.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS:
        return int(value)
    raise UnexpectedShape(name, _DECIMAL, _quoted(value))


def _user(raw: Json, name: str) -> UserId | None:
    return None if raw.get(name) is None else _required_user(raw, name)


def _required_user(raw: Json, name: str) -> UserId:
    inner = _inner(raw, name) or {}
    known = inner.get("rawId")
    if not known and isinstance(user := inner.get("communicationUser"), dict):
        known = user.get("id")
    if isinstance(known, str) and known:
        return UserId(_whole(known))
    place = f"{name}.rawId"
    raise UnexpectedShape(place, "text", _kind(known))


def _metadata(raw: Json) -> dict[str, str]:
    entries = _inner(raw, "metadata")
    if not entries:
        return {}
    try:
        return {_whole(name): _text(entries, name) or "" for name in entries}
    except UnexpectedShape as error:
        place = "metadata"
        raise error.within(place) from None


def _whole(text: str) -> str:
    """The same text without halves of surrogate pairs, which no store and no terminal can write."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__


def _quoted(value: Any) -> str:
    return repr(value[:40]) if isinstance(value, str) else _kind(value)
