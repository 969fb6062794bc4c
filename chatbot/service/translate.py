"""Conversion of the service's responses to the types of `chatbot.model`. Performs no I/O; every value is checked.

The SDK makes the calls, but its models are not used: decoding them takes twenty times as long as the call itself, loses
errors about participants that it cannot match, and fails in many ways on unexpected shapes. `wire` declares the shapes;
this module parses ids and times, and treats "" as absent. A value that cannot be parsed raises a `ProtocolError`, which
names its place and never quotes message text.

Creating messages is the hot path of a poll. The constructor of a frozen dataclass sets each field through
`object.__setattr__`; for the fifteen fields of a `ChatMessage` this takes 2 µs, more than all other steps of reading a
message. A *draft* is the same dataclass without `frozen`. It is filled three times as fast and then converted to the
frozen class by assigning `__class__`, which CPython allows between classes with the same slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import fields, make_dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, overload

from msgspec.json import Decoder

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
from chatbot.service import wire
from chatbot.service.base import CreatedThread, FailedParticipant
from chatbot.service.wire import UnexpectedShape

T = TypeVar("T")


def draft_of(kind: type[T]) -> type[T]:
    """Return a mutable class with the fields of `kind`; its objects must be passed to `finished`.

    Args:
        kind: a frozen, slotted, keyword-only dataclass.
    """
    known: Any = kind
    parts = [(part.name, part.type, copy(part)) for part in fields(known)]
    draft: Any = make_dataclass(f"{kind.__name__}Draft", parts, bases=kind.__bases__, slots=True, kw_only=True)
    return draft  # type: ignore[no-any-return]  # not of that type yet; `finished` makes it so


def freeze(draft: T, kind: type[T]) -> T:
    """Turn a draft into an object of its frozen class."""
    draft.__class__ = kind
    return draft


S = TypeVar("S")


MAX_DIGITS: Final = 18
"""The maximum number of digits of ids and versions, so that they fit a 64-bit integer column."""

_TYPES: Final = {kind.value: kind for kind in MessageType}
_DECIMAL: Final = f"a decimal number of at most {MAX_DIGITS} digits, as text"
_TIME: Final = "an ISO 8601 time"
_NO_CONTENT: Final = wire.Content()
_MessageDraft: Final = draft_of(ChatMessage)

_MESSAGES: Final = Decoder(wire.WirePage[wire.WireMessage])
_MESSAGE: Final = Decoder(wire.WireMessage)
_THREADS: Final = Decoder(wire.WirePage[wire.WireThreadItem])
_THREAD: Final = Decoder(wire.WireThread)
_CREATED: Final = Decoder(wire.Created)
_PARTICIPANTS: Final = Decoder(wire.WirePage[wire.WireParticipant])
_ADDED: Final = Decoder(wire.Added)
_RECEIPTS: Final = Decoder(wire.WirePage[wire.WireReceipt])
_SENT: Final = Decoder(wire.Sent)

Page = tuple[tuple[T, ...], str | None]
"""The elements of one page in the service's order, and the link to the next page or None on the last."""


def messages(body: bytes) -> Page[ChatMessage]:
    """Read one page of messages; unknown types become `MessageType.OTHER`."""
    page = wire.read(body, _MESSAGES)
    return _each(page.value, "value", _message), page.next_link or None


def message(body: bytes) -> ChatMessage:
    """Read one message."""
    return _message(wire.read(body, _MESSAGE))


def sent(body: bytes) -> MessageId:
    """Read the id of a sent message."""
    return _message_id(wire.read(body, _SENT).id, "id")


def threads(body: bytes) -> Page[ThreadItem]:
    """Read one page of a user's threads."""
    page = wire.read(body, _THREADS)
    return _each(page.value, "value", _thread_item), page.next_link or None


def thread(body: bytes) -> Thread:
    """Read a thread's properties."""
    return _thread(wire.read(body, _THREAD))


def created(body: bytes, asked: Sequence[Participant]) -> CreatedThread:
    """Read a created thread, and the participants who could not be added (see `failed`)."""
    raw = wire.read(body, _CREATED)
    return CreatedThread(_within("chatThread", _thread, raw.chat_thread), _failed(raw.invalid_participants, asked))


def participants(body: bytes) -> Page[Participant]:
    """Read one page of participants."""
    page = wire.read(body, _PARTICIPANTS)
    return _each(page.value, "value", _participant), page.next_link or None


def failed(body: bytes, asked: Sequence[Participant]) -> tuple[FailedParticipant, ...]:
    """Read the participants who could not be added.

    Args:
        body: the response to an addition.
        asked: the participants to add; if there is only one, errors without a target refer to it.

    Returns:
        One entry per error; its `user` is empty if the service does not name one.
    """
    return _failed(wire.read(body, _ADDED).invalid_participants, asked)


def receipts(body: bytes) -> Page[Receipt]:
    """Read one page of receipts."""
    page = wire.read(body, _RECEIPTS)
    return _each(page.value, "value", _receipt), page.next_link or None


@overload
def time(text: str, place: str) -> datetime: ...
@overload
def time(text: None, place: str) -> None: ...
def time(text: str | None, place: str) -> datetime | None:
    """Parse an ISO 8601 time as an aware time in UTC; one without an offset is UTC. None stays None."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is UTC:
            return moment
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UnexpectedShape(place, _TIME, repr(text[:40])) from None


def _message(raw: wire.WireMessage) -> ChatMessage:
    content = raw.content or _NO_CONTENT
    draft = _MessageDraft(
        id=_message_id(raw.id, "id"),
        version=_number(raw.version, "version"),
        type=_TYPES.get(raw.type, MessageType.OTHER),
        created_on=time(raw.created_on, "createdOn"),
        content=content.message or "",
        sequence_id=_number(raw.sequence_id, "sequenceId") if raw.sequence_id is not None else 0,
        sender=_user(raw.sender_communication_identifier, "senderCommunicationIdentifier"),
        sender_display_name=raw.sender_display_name or None,
        initiator=_user(content.initiator_communication_identifier, "content.initiatorCommunicationIdentifier"),
        topic=content.topic or None,
        participants=_each(content.participants, "content.participants", _participant),
        attachments=_each(content.attachments, "content.attachments", _attachment),
        metadata={name: value or "" for name, value in raw.metadata.items()} if raw.metadata else {},
        edited_on=time(raw.edited_on, "editedOn"),
        deleted_on=time(raw.deleted_on, "deletedOn"),
    )
    return freeze(draft, ChatMessage)


def _participant(raw: wire.WireParticipant) -> Participant:
    return Participant(
        user=_known_user(raw.communication_identifier, "communicationIdentifier"),
        display_name=raw.display_name or None,
        share_history_time=time(raw.share_history_time, "shareHistoryTime"),
    )


def _attachment(raw: wire.WireAttachment) -> Attachment:
    return Attachment(
        id=raw.id,
        type=raw.attachment_type,
        name=raw.name or None,
        url=raw.url or None,
        preview_url=raw.preview_url or None,
    )


def _thread(raw: wire.WireThread) -> Thread:
    return Thread(
        id=_thread_id(raw.id),
        topic=raw.topic or "",
        created_on=time(raw.created_on, "createdOn"),
        created_by=_user(raw.created_by_communication_identifier, "createdByCommunicationIdentifier"),
        deleted_on=time(raw.deleted_on, "deletedOn"),
    )


def _thread_item(raw: wire.WireThreadItem) -> ThreadItem:
    return ThreadItem(
        id=_thread_id(raw.id),
        topic=raw.topic or "",
        last_activity=time(raw.last_message_received_on, "lastMessageReceivedOn"),
        deleted_on=time(raw.deleted_on, "deletedOn"),
    )


def _receipt(raw: wire.WireReceipt) -> Receipt:
    return Receipt(
        reader=_known_user(raw.sender_communication_identifier, "senderCommunicationIdentifier"),
        message=_message_id(raw.chat_message_id, "chatMessageId"),
        read_on=time(raw.read_on, "readOn"),
    )


def _failed(errors: list[dict[str, Any]] | None, asked: Sequence[Participant]) -> tuple[FailedParticipant, ...]:
    only = asked[0].user if len(asked) == 1 else UserId("")

    def read(error: dict[str, Any]) -> FailedParticipant:
        known = {name.lower(): value for name, value in error.items()}
        target, code, reason = (_text(known.get(name), name) for name in ("target", "code", "message"))
        return FailedParticipant(UserId(target) if target else only, code=code, message=reason)

    return _each(errors, "invalidParticipants", read)


def _each(values: Iterable[S] | None, place: str, item: Callable[[S], T]) -> tuple[T, ...]:
    if not values:
        return ()
    items: list[T] = []
    try:
        for value in values:
            items.append(item(value))  # noqa: PERF401 - the length of the list is the index of an invalid item
    except UnexpectedShape as error:
        inner = f"{place}[{len(items)}]"
        raise error.within(inner) from None
    return tuple(items)


def _within(place: str, item: Callable[[S], T], value: S) -> T:
    try:
        return item(value)
    except UnexpectedShape as error:
        raise error.within(place) from None


def _number(text: str, place: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
        return int(text)
    raise UnexpectedShape(place, _DECIMAL, repr(text[:40]))


def _message_id(text: str, place: str) -> MessageId:
    _number(text, place)
    return MessageId(text)


def _thread_id(text: str) -> ThreadId:
    if text:
        return ThreadId(text)
    place = "id"
    raise UnexpectedShape(place, "text", "nothing")


def _user(raw: wire.Identifier | None, place: str) -> UserId | None:
    return None if raw is None else _known_user(raw, place)


def _known_user(raw: wire.Identifier, place: str) -> UserId:
    known = raw.raw_id or (raw.communication_user.id if raw.communication_user else None)
    if known:
        return UserId(known)
    inner = f"{place}.rawId"
    raise UnexpectedShape(inner, "text", "nothing")


def _text(value: Any, place: str) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    raise UnexpectedShape(place, "text", "something else")
