"""Shapes of the service's JSON (REST specification, api-version 2024-03-07), and their decoding.

msgspec decodes and validates in one pass: undeclared fields are dropped, and declared fields must have their type.
Otherwise a `ProtocolError` is raised, which names the place and the expected type, and never quotes message text.
`translate` converts the shapes to the types of `chatbot.model`.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Final, Generic, Self, TypeVar

import msgspec

from chatbot.errors import ProtocolError

T = TypeVar("T")


class Shape(msgspec.Struct, rename="camel", gc=False):
    """A JSON object; for optional fields `null` and absence mean the same."""


class WireUser(Shape):
    """The part of an identifier that repeats the raw id of a Communication Services user."""

    id: str | None = None


class Identifier(Shape):
    """A CommunicationIdentifierModel."""

    raw_id: str | None = None
    communication_user: WireUser | None = None


class WireParticipant(Shape):
    """A ChatParticipant."""

    communication_identifier: Identifier
    display_name: str | None = None
    share_history_time: str | None = None


class WireAttachment(Shape):
    """A ChatAttachment."""

    id: str
    attachment_type: str
    name: str | None = None
    url: str | None = None
    preview_url: str | None = None


class Content(Shape):
    """A ChatMessageContent."""

    message: str | None = None
    topic: str | None = None
    participants: list[WireParticipant] | None = None
    attachments: list[WireAttachment] | None = None
    initiator_communication_identifier: Identifier | None = None


class WireMessage(Shape):
    """A ChatMessage."""

    id: str
    type: str
    version: str
    created_on: str
    sequence_id: str | None = None
    content: Content | None = None
    sender_display_name: str | None = None
    sender_communication_identifier: Identifier | None = None
    metadata: dict[str, str | None] | None = None
    edited_on: str | None = None
    deleted_on: str | None = None


class Sent(Shape):
    """A SendChatMessageResult."""

    id: str


class WireThread(Shape):
    """A ChatThreadProperties."""

    id: str
    created_on: str
    topic: str | None = None
    created_by_communication_identifier: Identifier | None = None
    deleted_on: str | None = None


class WireThreadItem(Shape):
    """A ChatThreadItem."""

    id: str
    topic: str | None = None
    last_message_received_on: str | None = None
    deleted_on: str | None = None


class WireReceipt(Shape):
    """A ChatMessageReadReceipt."""

    sender_communication_identifier: Identifier
    chat_message_id: str
    read_on: str


class WirePage(Shape, Generic[T]):
    """One page of any listing."""

    value: list[T]
    next_link: str | None = None


class Added(Shape):
    """An AddChatParticipantsResult; its errors are spelled as in 2024-03-07 or as in recorded sessions."""

    invalid_participants: list[dict[str, Any]] | None = None


class Created(Shape):
    """A CreateChatThreadResult."""

    chat_thread: WireThread
    invalid_participants: list[dict[str, Any]] | None = None


class UnexpectedShape(ProtocolError):
    """A value in a response does not conform to the protocol.

    Args:
        place: the path of the value.
        expected: a description of a valid value.
        found: a description of the value; it must not quote message text.
    """

    def __init__(self, place: str, expected: str, found: str) -> None:
        super().__init__(f"the service's answer breaks its protocol: {place}: expected {expected}, found {found}")
        self.place = place
        self.expected = expected
        self.found = found

    def within(self, outer: str) -> Self:
        """Return the error with `outer` put before its place."""
        return type(self)(f"{outer}.{self.place}", self.expected, self.found)


def read(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode the body of a response.

    Raises:
        ProtocolError: the body is not JSON, or not of the decoder's shape.
    """
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError:
            raise
        except _UNREADABLE:  # msgspec accepts neither lone surrogates nor a byte order mark
            return decoder.decode(_repaired(body))
    except msgspec.ValidationError as error:
        raise _unexpected(error) from None
    except _UNREADABLE as error:
        raise _no_json(body) from error


def read_object(body: bytes | str) -> dict[str, Any]:
    """Decode a body without a declared shape, which must be a JSON object.

    Raises:
        ProtocolError: the body is not a JSON object.
    """
    try:
        value = _loads(body)
    except _UNREADABLE as error:
        raise _no_json(body) from error
    if isinstance(value, dict):
        return value
    place = "it"
    raise UnexpectedShape(place, "an object", "something else")


_UNREADABLE: Final = (msgspec.DecodeError, ValueError, RecursionError)


def _no_json(body: bytes | str) -> ProtocolError:
    length = len(body)
    return ProtocolError(
        f"the service's answer is not JSON ({length} bytes); a JSON object was expected; check the endpoint"
    )


def _repaired(body: bytes) -> bytes:
    """Return the JSON without lone surrogates, which neither stores nor terminals can write."""
    text = json.dumps(_loads(body), ensure_ascii=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _loads(body: bytes | str) -> Any:
    return json.loads(body, parse_constant=_refuse)


def _refuse(name: str) -> None:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


_MISMATCH: Final = re.compile(r"Expected `(?P<expected>\w+)[^`]*`, got `(?P<found>\w+)`(?: - at `\$\.?(?P<place>.+)`)?")
_MISSING: Final = re.compile(r"Object missing required field `(?P<name>\w+)`(?: - at `\$\.?(?P<place>.+)`)?")
_WORDS: Final = {
    "str": "text",
    "object": "an object",
    "array": "a list",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "null": "nothing",
}


def _unexpected(error: msgspec.ValidationError) -> UnexpectedShape:
    """Convert an error of msgspec to ours."""
    text = str(error)
    if known := _MISMATCH.fullmatch(text):
        expected, found = (_WORDS.get(known[part], known[part]) for part in ("expected", "found"))
        return UnexpectedShape(known["place"] or "it", expected, found)
    if known := _MISSING.fullmatch(text):
        place = f"{known['place']}.{known['name']}" if known["place"] else known["name"]
        return UnexpectedShape(place, "something", "nothing")
    return UnexpectedShape("it", "what the specification says", "something else")


@lru_cache(maxsize=64)
def read_http_date(text: str | None) -> datetime | None:
    """Parse an HTTP date as an aware time in UTC; return None if it is missing or invalid."""
    if not text:
        return None
    try:
        return parsedate_to_datetime(text).replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return None
