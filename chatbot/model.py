"""Threads, messages and people of the service, as plain values without SDK types and behavior.

Identifiers are opaque text, except that message ids and versions are epoch milliseconds in decimal
(recorded sessions of the SDKs' live tests) and are compared as integers, never as text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final, NewType, TypeAlias

ThreadId = NewType("ThreadId", str)
"""`19:…@thread.v2`; opaque."""

UserId = NewType("UserId", str)
"""The raw id of anyone in a thread: `8:acs:…` for a Communication Services user, `8:orgid:…` for Teams, …; opaque."""

MessageId = NewType("MessageId", str)
"""The service's id of a message: its creation in epoch milliseconds, as decimal text."""

TimerId = NewType("TimerId", str)
"""The id of a timer that `later` has set."""

RESERVED_METADATA_PREFIX: Final = "chatbot."
"""Message metadata under this prefix is reserved; handlers can read it but not write it."""

REPLY_KEY: Final = RESERVED_METADATA_PREFIX + "key"
"""The metadata key that carries a reply's key. A message with it in the thread proves that the reply was sent."""


class Value:
    """Base of frozen dataclasses with slots, `eq=False` and `repr=False`: it compares and shows values as those do.

    A dataclass that generates these methods takes a third longer to make, and every import of a plugin makes fifty.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        compared, _ = _getters(self.__class__)
        return bool(compared(self) == compared(other))

    def __hash__(self) -> int:
        _, hashed = _getters(self.__class__)
        return hash(hashed(self))

    def __repr__(self) -> str:
        cls: Any = self.__class__
        shown = (f"{part.name}={getattr(self, part.name)!r}" for part in fields(cls) if part.repr)
        return f"{cls.__qualname__}({', '.join(shown)})"


_Getter: TypeAlias = Callable[[object], Any]

_GETTERS: Final[dict[Any, tuple[_Getter, _Getter]]] = {}


def _getters(cls: Any) -> tuple[_Getter, _Getter]:
    """Return two functions: they return the values of an object that are compared, and those that are hashed."""
    if cls not in _GETTERS:
        compared = [part for part in fields(cls) if part.compare]
        hashed = [part.name for part in compared if part.hash is not False]
        # With the class, there are always several: `attrgetter` returns one value without its tuple.
        _GETTERS[cls] = attrgetter("__class__", *(part.name for part in compared)), attrgetter("__class__", *hashed)
    return _GETTERS[cls]


class MessageType(StrEnum):
    """The type of a message (REST spec: ChatMessageType). Unknown future types become `OTHER`."""

    TEXT = "text"
    HTML = "html"
    TOPIC_UPDATED = "topicUpdated"
    PARTICIPANT_ADDED = "participantAdded"
    PARTICIPANT_REMOVED = "participantRemoved"
    OTHER = "other"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Participant(Value):
    """A person or bot in a thread.

    Args:
        user: the id.
        display_name: the name that the thread shows; None if it has none.
        share_history_time: the time from which on they can read the history; None if the service did not say.
    """

    user: UserId
    display_name: str | None = None
    share_history_time: datetime | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Attachment(Value):
    """An attached file (from Teams): links and names, without the contents."""

    id: str
    type: str
    name: str | None = None
    url: str | None = None
    preview_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ChatMessage(Value):
    """A message as the service returned it in one poll; a later edit is another `version` of the same `id`.

    Args:
        id: its creation time, epoch milliseconds as decimal text.
        version: its last change, epoch milliseconds; equals the id until it is changed.
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
        """The id as an integer, by which messages are compared: the creation time, epoch milliseconds."""
        return int(self.id)

    @property
    def is_said(self) -> bool:
        """Whether a person or bot wrote it, as opposed to a system message."""
        return self.type in (MessageType.TEXT, MessageType.HTML)

    @property
    def reply_key(self) -> str | None:
        """The key under which a chatbot sent it; None if it is not a chatbot's reply."""
        return self.metadata.get(REPLY_KEY)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Thread(Value):
    """A thread's own properties."""

    id: ThreadId
    topic: str
    created_on: datetime
    created_by: UserId | None = None
    deleted_on: datetime | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ThreadItem(Value):
    """A row of `list_chat_threads`.

    Deleted threads, and threads that the user was removed from, stay in the list forever (GitHub issue
    Azure/Communication#345).

    Args:
        last_activity: the time of the last message, floored to seconds. It may lag by one second, and is missing for a
            thread that was created moments ago (recorded sessions).
    """

    id: ThreadId
    topic: str = ""
    last_activity: datetime | None = None
    deleted_on: datetime | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Receipt(Value):
    """The latest message of a thread that a person has read."""

    reader: UserId
    message: MessageId
    read_on: datetime


def milliseconds(moment: datetime) -> int:
    """Return a time as epoch milliseconds, as in ids and versions."""
    return round(moment.timestamp() * 1000)
