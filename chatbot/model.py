"""The service's things in our words: threads, messages, people. Plain facts, no SDK types, no behaviour.

Identifiers are opaque text, except that message ids and versions are epoch milliseconds in decimal
(recorded sessions of the SDKs' live tests) and are compared as integers, never as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, NewType

ThreadId = NewType("ThreadId", str)
"""`19:…@thread.v2`; opaque."""

UserId = NewType("UserId", str)
"""The raw id of anyone in a thread: `8:acs:…` for a Communication Services user, `8:orgid:…` for Teams, …; opaque."""

MessageId = NewType("MessageId", str)
"""The service's id of a message: its creation in epoch milliseconds, as decimal text."""

TimerId = NewType("TimerId", str)
"""Names a timer that `later` has set."""

RESERVED_METADATA_PREFIX: Final = "chatbot."
"""Message metadata under this prefix is ours; handlers may read it but not write it."""

REPLY_KEY: Final = RESERVED_METADATA_PREFIX + "key"
"""The metadata key that carries a reply's key: its presence in the thread is the proof of the send."""


class MessageType(StrEnum):
    """What a row of `list_messages` is (REST spec: ChatMessageType). Unknown future types become `OTHER`."""

    TEXT = "text"
    HTML = "html"
    TOPIC_UPDATED = "topicUpdated"
    PARTICIPANT_ADDED = "participantAdded"
    PARTICIPANT_REMOVED = "participantRemoved"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Participant:
    """Someone in a thread.

    Args:
        user: who.
        display_name: the name the thread shows, where one was given.
        share_history_time: from when on they may read; None where the service did not say.
    """

    user: UserId
    display_name: str | None = None
    share_history_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that someone attached (from Teams); only links and names, never the bytes."""

    id: str
    type: str
    name: str | None = None
    url: str | None = None
    preview_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessage:
    """A message as one look at the thread showed it; a later edit is another `version` of the same `id`.

    Args:
        id: creation, epoch milliseconds as decimal text.
        version: last change, epoch milliseconds; equals the id while untouched.
        content: the text or html; empty for system messages and for deleted ones.
        sender: who wrote it; None for system messages.
        initiator: who caused a system message; None otherwise.
        topic: the new topic of a `TOPIC_UPDATED`.
        participants: who was added or removed.
        created_on, edited_on, deleted_on: whole seconds, UTC, floored by the service.
    """

    id: MessageId
    version: int
    type: MessageType
    created_on: datetime
    content: str = ""
    sequence_id: int = 0
    sender: UserId | None = None
    sender_display_name: str | None = None
    initiator: UserId | None = None
    topic: str | None = None
    participants: tuple[Participant, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    edited_on: datetime | None = None
    deleted_on: datetime | None = None

    @property
    def number(self) -> int:
        """The id as the integer it is compared by: creation, epoch milliseconds."""
        return int(self.id)

    @property
    def is_said(self) -> bool:
        """Whether a person or bot wrote it, as opposed to a system message."""
        return self.type in (MessageType.TEXT, MessageType.HTML)

    @property
    def reply_key(self) -> str | None:
        """The key under which a chatbot sent it; None when it is no chatbot's reply."""
        return self.metadata.get(REPLY_KEY)


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread's own properties."""

    id: ThreadId
    topic: str
    created_on: datetime
    created_by: UserId | None = None
    deleted_on: datetime | None = None


@dataclass(frozen=True, slots=True)
class ThreadItem:
    """A row of `list_chat_threads`.

    Deleted threads, and threads the user was removed from, stay listed for ever (GitHub issue
    Azure/Communication#345).

    Args:
        last_activity: when the last message came, floored to seconds; may lag by one second, and is missing on a
            thread that was created moments ago (recorded sessions).
    """

    id: ThreadId
    topic: str = ""
    last_activity: datetime | None = None
    deleted_on: datetime | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The latest message of a thread that someone has read."""

    reader: UserId
    message: MessageId
    read_on: datetime


def milliseconds(moment: datetime) -> int:
    """A moment as ids and versions count it: epoch milliseconds."""
    return round(moment.timestamp() * 1000)
