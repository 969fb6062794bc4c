"""Parsing of request bodies and queries.

Everything invalid is a 400 with the service's text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chatbot.emulator import cursors
from chatbot.emulator.errors import bad_identifier, bad_message_id, bad_request, required, validation
from chatbot.emulator.messages import Draft
from chatbot.emulator.participants import Invited
from chatbot.emulator.quirks import Quirks
from chatbot.emulator.records import NO_METADATA, SYSTEM_TYPES, MessageAttachment
from chatbot.emulator.request import Request
from chatbot.emulator.serialization import IMAGES, has_metadata, has_retention
from chatbot.emulator.threads import Plan, ThreadChange

MIN_MINUTES, MAX_MINUTES = 60, 1440
MAX_PAGE = 200
_SYSTEM_TYPES = frozenset(type.lower() for type in SYSTEM_TYPES)
SCOPES = frozenset({"chat", "chat.join", "chat.join.limited", "voip", "voip.join"})


def message_id(text: str) -> int:
    """Parse a message id: up to 19 digits."""
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise bad_message_id(text)
    return int(text)


def text_of(body: Mapping[str, Any], key: str) -> str | None:
    """Return an optional string of a body."""
    value = body.get(key)
    if value is not None and not isinstance(value, str):
        raise bad_request()
    return value


def metadata_of(body: Mapping[str, Any]) -> dict[str, str] | None:
    """Return an optional map of strings."""
    value = body.get("metadata")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise bad_request()
    if not all(isinstance(item, str) or item is None for item in value.values()):
        raise bad_request()
    return {key: item or "" for key, item in value.items()}


def draft(request: Request, quirks: Quirks) -> Draft:
    """Parse the body of a send; without a type it is a text (recorded)."""
    body = request.json()
    content = text_of(body, "content")
    kind = (text_of(body, "type") or "text").lower()
    if kind in _SYSTEM_TYPES and quirks.system_type == "text":
        kind = "text"
    if content is None or kind not in {"text", "html"}:
        raise bad_request()
    name, attachments = text_of(body, "senderDisplayName") or "", attachments_of(body, request.version)
    return Draft(content, kind, name, metadata_of(body), attachments or ())


def attachments_of(body: Mapping[str, Any], version: str) -> tuple[MessageAttachment, ...] | None:
    """The attachments of a message, None where none are given or the version knows none."""
    listed = body.get("attachments") if version in IMAGES else None
    if listed is None:
        return None
    if not isinstance(listed, list) or not all(isinstance(attachment, dict) for attachment in listed):
        raise bad_request()
    return tuple(_attachment(attachment) for attachment in listed)


def _attachment(attachment: Mapping[str, Any]) -> MessageAttachment:
    fields = [text_of(attachment, key) or "" for key in ("id", "attachmentType", "name", "url", "previewUrl")]
    if not fields[0] or fields[1] not in {"image", "file"}:
        raise bad_request()
    return MessageAttachment(*fields)


def identifier(value: Any) -> str:
    """Return the raw id of an identifier model, from its rawId or from the kind that is set."""
    if not isinstance(value, dict):
        raise bad_request()
    raw = text_of(value, "rawId")
    for key, inner, prefix in (
        ("communicationUser", "id", ""),
        ("phoneNumber", "value", "4:"),
        ("microsoftTeamsUser", "userId", "8:orgid:"),
        ("microsoftTeamsApp", "appId", "28:orgid:"),
    ):
        model = value.get(key)
        if isinstance(model, dict):
            found = text_of(model, inner)
            raw = raw or (f"{prefix}{found}" if found else None)
        elif model is not None:
            raise bad_request()
    if not raw:
        raise bad_identifier(raw or "")
    return raw


def invited(body: Mapping[str, Any], request: Request) -> list[Invited]:
    """Parse the participants of a create or add."""
    listed = body.get("participants")
    if listed is None:
        listed = []
    if not isinstance(listed, list) or not all(isinstance(person, dict) for person in listed):
        raise bad_request()
    return [_invited(person, request) for person in listed]


def _invited(person: Mapping[str, Any], request: Request) -> Invited:
    share = text_of(person, "shareHistoryTime")
    metadata = metadata_of(person) if has_metadata(request.version) else None
    return Invited(
        user=identifier(person.get("communicationIdentifier")),
        display_name=text_of(person, "displayName"),
        share_history=_time(share) if share else 0,
        metadata=metadata or NO_METADATA,
    )


def plan(request: Request) -> Plan:
    """Parse the body of a thread's creation."""
    body = request.json()
    topic = text_of(body, "topic")
    if topic is None:
        raise bad_request()
    days, is_set = retention(body) if has_retention(request.version) else (None, False)
    metadata = metadata_of(body) if has_metadata(request.version) else None
    return Plan(
        topic=topic,
        participants=tuple(invited(body, request)),
        metadata=metadata or NO_METADATA,
        retention_days=days,
        retention_set=is_set,
        repeat_key=request.header(b"repeatability-request-id"),
        metadata_set=metadata is not None,
    )


def thread_change(request: Request) -> ThreadChange:
    """Parse the body of a thread's PATCH."""
    body = request.json()
    days, is_set = retention(body) if has_retention(request.version) else (None, False)
    metadata = metadata_of(body) if has_metadata(request.version) else None
    return ThreadChange(text_of(body, "topic"), metadata, days, is_set)


def retention(body: Mapping[str, Any]) -> tuple[int | None, bool]:
    """Days (or None) and whether a policy was given; documented are 30 to 90 days. A null takes the policy away."""
    policy = body.get("retentionPolicy")
    if policy is None:
        return None, "retentionPolicy" in body
    if not isinstance(policy, dict):
        raise bad_request()
    if policy.get("kind") == "none":
        return None, True
    days = policy.get("deleteThreadAfterDays")
    if policy.get("kind") != "threadCreationDate" or not isinstance(days, int) or isinstance(days, bool):
        raise bad_request()
    if not 30 <= days <= 90:
        raise bad_request()
    return days, True


def page_size(request: Request, default: int, quirks: Quirks, maximum: int = MAX_PAGE) -> int:
    """Return `maxPageSize`, or the default."""
    text = request.query.get("maxpagesize")
    if text is None or text == "":
        return default
    size = _integer(text)
    if size < 1:
        if quirks.page_size_below_one == "default":
            return default
        raise bad_request()
    if size > maximum and quirks.page_size_over_max == "reject":
        raise bad_request()
    return min(size, maximum)


def skip(request: Request, quirks: Quirks) -> int:
    """Return `skip`, which is not negative."""
    count = _integer(request.query.get("skip") or "0")
    if count < 0 and quirks.negative_skip == "reject":
        raise bad_request()
    return max(0, count)


def start_time(request: Request, quirks: Quirks) -> int | None:
    """Return `startTime` in milliseconds; None if absent."""
    text = request.query.get("starttime")
    if not text:
        return None
    try:
        return cursors.parse_time(text)
    except ValueError as error:
        if quirks.bad_start_time == "ignore":
            return None
        raise bad_request() from error


def _time(text: str) -> int:
    try:
        return cursors.parse_time(text)
    except ValueError as error:
        raise bad_request() from error


def _integer(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise bad_request()
    return int(text)


def token_request(body: Mapping[str, Any], key: str) -> tuple[list[str], int]:
    """Parse scopes and minutes of a token; the three errors about scopes were recorded."""
    scopes = body.get(key)
    if scopes is None:
        raise required("Scopes")  # noqa: EM101 -- a field name, not a message
    if scopes == []:
        message = "Invalid scopes - Scopes field is required."
        raise validation(message, "scopes")
    if not isinstance(scopes, list) or not all(isinstance(scope, str) and scope in SCOPES for scope in scopes):
        message = "Invalid scopes."
        raise validation(message, "scopes")
    return scopes, minutes(body)


def minutes(body: Mapping[str, Any]) -> int:
    """Return the requested lifetime of a token; 24 hours by default."""
    wanted = body.get("expiresInMinutes")
    if wanted is None:
        return MAX_MINUTES
    if not isinstance(wanted, int) or isinstance(wanted, bool) or not MIN_MINUTES <= wanted <= MAX_MINUTES:
        shown = wanted if isinstance(wanted, int) and abs(wanted) < 10**12 else "?"
        message = (
            f"ExpiresInMinutes value {shown} is invalid. "
            f"Value must be within the [{MIN_MINUTES}, {MAX_MINUTES}] interval."
        )
        raise validation(message, "ExpiresInMinutes")
    return wanted
