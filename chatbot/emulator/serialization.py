"""Serialization of records to the service's JSON, for each api-version of Chat and Identity.

Key order as recorded; absent fields are omitted, never null. What a version knows comes from the published
specifications (stable and preview) and the recorded `api-supported-versions` headers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chatbot.emulator.cursors import wire_time
from chatbot.emulator.errors import ErrorResponse
from chatbot.emulator.participants import InvalidParticipant
from chatbot.emulator.quirks import Quirks
from chatbot.emulator.records import Listed, Member, Message, MessageAttachment, ReceiptEntry, ThreadEntry
from chatbot.emulator.state import ThreadContents

Json = dict[str, Any]


def dump(value: Any) -> bytes:
    """Return compact JSON as UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Dialect:
    """The JSON format of one api-version; created once per version."""

    version: str
    has_kind: bool
    attachments: frozenset[str]
    has_metadata: bool
    has_retention: bool
    always_retention: bool
    shows_no_retention: bool
    has_policy: bool
    omits_empty_name: bool

    @classmethod
    def of(cls, version: str, quirks: Quirks) -> Dialect:
        """Return the format of an api-version under these quirks."""
        recent = is_recent(version)
        return cls(
            version=version,
            has_kind=recent and quirks.identifier_kind,
            attachments=_attachments(version),
            has_metadata=has_metadata(version),
            has_retention=has_retention(version),
            always_retention=version in _ALWAYS_RETENTION,
            shows_no_retention=version in _ALWAYS_RETENTION and quirks.retention_none == "shown",
            has_policy=version == "2024-06-05-preview",
            omits_empty_name=version >= "2025",
        )

    def identifier(self, user: str) -> Json:
        """Return the identifier model of a user of the resource."""
        kind = {"kind": "communicationUser"} if self.has_kind else {}
        return {**kind, "rawId": user, "communicationUser": {"id": user}}

    def message(self, message: Message, base: str = "") -> Json:
        """A message, a person's or the system's; links to its images begin with `base`."""
        body: Json = {
            "id": str(message.id),
            "type": message.type,
            "sequenceId": str(message.sequence),
            "version": str(message.version),
            "content": self._content(message, base),
        }
        if not message.is_system and (message.display_name or not self.omits_empty_name):
            body["senderDisplayName"] = message.display_name
        body["createdOn"] = wire_time(message.id)
        if not message.is_system:
            body["senderCommunicationIdentifier"] = self.identifier(message.sender)
        if message.deleted is not None:
            body["deletedOn"] = wire_time(message.deleted)
        elif message.edited is not None:
            body["editedOn"] = wire_time(message.edited)
        if message.metadata:
            body["metadata"] = _in_order(message.metadata)
        return body

    def _content(self, message: Message, base: str) -> Json:
        if not message.is_system:
            state = message.type if message.deleted is None else "deleted"
            if state not in self.attachments:
                return {"message": message.text}
            links = f"?api-version={self.version}"
            return {
                "message": message.text,
                "attachments": [attachment_model(attachment, base, links) for attachment in message.attachments],
            }
        initiator: Json = {}
        if message.sender:
            initiator["initiatorCommunicationIdentifier"] = self.identifier(message.sender)
        if message.type == "topicUpdated":
            return {"topic": message.topic, **initiator}
        return {"participants": [self.participant(person) for person in message.participants], **initiator}

    def participant(self, person: Member | Listed) -> Json:
        """Return a participant of a thread's list or of a system message."""
        body: Json = {"communicationIdentifier": self.identifier(person.user)}
        if person.display_name is not None:
            body["displayName"] = person.display_name
        body["shareHistoryTime"] = wire_time(person.share_history)
        if self.has_metadata and isinstance(person, Member) and person.metadata:
            body["metadata"] = dict(person.metadata)
        return body

    def thread(self, head: ThreadEntry) -> Json:
        """Return a thread's properties."""
        body: Json = {
            "id": head.id,
            "topic": head.topic,
            "createdOn": wire_time(head.created),
            "createdByCommunicationIdentifier": self.identifier(head.creator),
        }
        if head.deleted is not None:
            body["deletedOn"] = wire_time(head.deleted)
        if self.has_metadata and (head.metadata or head.metadata_set):
            body["metadata"] = dict(head.metadata)
        days = head.retention_days
        if self.has_retention and days:
            body["retentionPolicy"] = {"kind": "threadCreationDate", "deleteThreadAfterDays": days}
        elif self.shows_no_retention or (self.has_retention and head.retention_set and not self.always_retention):
            body["retentionPolicy"] = {"kind": "none"}
        if self.has_policy:
            body["messagingPolicy"] = {"textOnlyChat": False}
        return body

    def receipt(self, receipt: ReceiptEntry) -> Json:
        """Return a read receipt."""
        return {
            "senderCommunicationIdentifier": self.identifier(receipt.user),
            "chatMessageId": str(receipt.message),
            "readOn": wire_time(receipt.read),
        }


def thread_item(room: ThreadContents, now: int, quirks: Quirks) -> Json:
    """Return a thread as an item of a list: four keys at most."""
    head = room.head
    body: Json = {"id": head.id, "topic": head.topic}
    if head.deleted is not None:
        body["deletedOn"] = wire_time(head.deleted)
    if now >= head.created + quirks.stampless_seconds * 1000:
        body["lastMessageReceivedOn"] = wire_time(room.activity() // 1000 - quirks.stamp_behind_seconds * 1000)
    return body


def attachment_model(attachment: MessageAttachment, base: str, query: str) -> Json:
    """An attachment; a link of the service's own is given the reader's host and api-version."""
    body: Json = {"id": attachment.id, "attachmentType": attachment.type}
    for name, value in (("name", attachment.name), ("url", attachment.url), ("previewUrl", attachment.preview_url)):
        if value:
            body[name] = f"{base}{value}{query}" if value.startswith("/chat/") else value
    return body


def rejected(people: Sequence[InvalidParticipant]) -> Json:
    """Return `invalidParticipants`, only if there are any."""
    if not people:
        return {}
    errors = [{"code": person.code, "message": person.message, "target": person.user} for person in people]
    return {"invalidParticipants": errors}


def chat_error(error: ErrorResponse, quirks: Quirks) -> bytes:
    """Return an error in chat's real envelope (pretty-printed, PascalCase, CRLF), or the specification's."""
    if quirks.error_envelope == "error":
        return identity_error(error)
    inner: Json = {"Code": error.code}
    if error.message is not None:
        inner["Message"] = error.message
    inner["Details"] = []
    return json.dumps({"CommunicationError": inner}, indent=2, ensure_ascii=False).replace("\n", "\r\n").encode()


def identity_error(error: ErrorResponse) -> bytes:
    """Return an error in identity's envelope, as recorded."""
    inner: Json = {"code": error.code, "message": error.message or error.code}
    if error.target is not None:
        inner["target"] = error.target
    return dump({"error": inner})


CHAT = (
    "2021-03-07",
    "2021-04-05-preview6",
    "2021-09-07",
    "2021-10-01-preview7",
    "2023-04-01-preview",
    "2023-07-01-preview",
    "2023-11-07",
    "2023-11-15-preview",
    "2024-03-01-preview",
    "2024-03-07",
    "2024-03-15-preview",
    "2024-06-05-preview",
    "2025-03-15",
)

IDENTITY = (
    "2020-07-20-preview2",
    "2021-02-22-preview1",
    "2021-03-07",
    "2021-03-31-preview1",
    "2021-10-31-preview",
    "2021-11-01",
    "2022-06-01",
    "2022-10-01",
    "2023-08-01",
    "2023-10-01",
    "2025-03-02-preview",
    "2025-06-30",
)

IMAGES = frozenset({"2024-03-15-preview", "2024-06-05-preview"})
"""These upload images and send attachments; every version since 2023-11-07 shows them (that one: html alone)."""

TEAMS_EXCHANGE = ("2021-10-31-preview", "2022-06-01", "2022-10-01", "2023-10-01", "2025-03-02-preview")

# What answers say, as recorded in June 2025: versions that work besides are not advertised.
_ADVERTISED = tuple(version for version in CHAT if version != "2021-10-01-preview7")
CHAT_HEADER = (b"api-supported-versions", ", ".join(_ADVERTISED).encode())
TYPING_HEADER = (b"api-supported-versions", ", ".join(_ADVERTISED[1:]).encode())
_QUIET = {"2021-02-22-preview1", "2021-03-31-preview1", "2023-08-01", "2025-04-01-preview"}
IDENTITY_HEADER = (
    b"api-supported-versions",
    ", ".join(version for version in IDENTITY if version not in _QUIET).encode(),
)
ISSUE_ERRORS_HEADER = (IDENTITY_HEADER[0], IDENTITY_HEADER[1].replace(b"2025-06-30", b"2025-03-31-preview, 2025-06-30"))
EXTENSION_HEADER = (b"api-supported-versions", b"2025-03-02-preview, 2025-06-30")
TEAMS_HEADER = (b"api-supported-versions", ", ".join(TEAMS_EXCHANGE).encode())

_METADATA = frozenset(
    {
        "2023-07-01-preview",
        "2023-11-15-preview",
        "2024-03-01-preview",
        "2024-03-15-preview",
        "2024-06-05-preview",
        "2025-03-15",
    }
)
_ALWAYS_RETENTION = frozenset({"2024-03-15-preview", "2024-06-05-preview", "2025-03-15"})
_RETENTION = _ALWAYS_RETENTION | {"2023-11-15-preview"}
_PREVIEW_ATTACHMENTS = frozenset({"2023-07-01-preview", "2023-11-15-preview", "2024-03-01-preview"})


def has_metadata(version: str) -> bool:
    """Return whether threads and participants have metadata."""
    return version in _METADATA


def has_retention(version: str) -> bool:
    """Return whether threads have a retention policy."""
    return version in _RETENTION


def is_recent(version: str) -> bool:
    """Whether identifiers may carry `kind`, which the specification promises since this version (a quirk)."""
    return version >= "2024-03-07"


def _attachments(version: str) -> frozenset[str]:
    """Which messages were recorded with an empty list of attachments: by type, and tombstones."""
    if version >= "2024-03-07":
        return frozenset({"text", "html", "deleted"})
    if version == "2023-11-07":
        return frozenset({"html"})
    return frozenset({"text", "html"}) if version in _PREVIEW_ATTACHMENTS else frozenset()


def _in_order(metadata: Mapping[str, str]) -> dict[str, str]:
    """As the client gave it, but for a list in `amsreferences`, which the service reads and writes last."""
    ordered = dict(metadata)
    references = ordered.get("amsreferences", "")
    try:
        is_list = isinstance(json.loads(references), list)
    except (ValueError, RecursionError):
        is_list = False
    if is_list:
        ordered["amsreferences"] = ordered.pop("amsreferences")
    return ordered
