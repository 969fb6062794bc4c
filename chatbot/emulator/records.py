"""Records of the emulated service: frozen dataclasses.

Every change of the world is the arrival of one of these records, so a journal of records is the whole state
(`persistence.py`) and a listener to records sees everything that happens (`eventgrid.py`). Times are Unix
epoch milliseconds unless the name says otherwise. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

NO_METADATA: Mapping[str, str] = MappingProxyType({})


def no_metadata() -> Mapping[str, str]:
    """Return the shared empty map."""
    return NO_METADATA


SYSTEM_TYPES = frozenset({"topicUpdated", "participantAdded", "participantRemoved"})


@dataclass(frozen=True, slots=True)
class Resource:
    """The emulated Azure resource."""

    id: str
    access_key: str


@dataclass(frozen=True, slots=True)
class User:
    """An identity of the resource; a token is valid while its generation is not older than the user's."""

    id: str
    created: int
    generation: int = 0
    revoked: int = 0
    deleted: int | None = None
    custom_id: str = ""
    last_token: int = 0


@dataclass(frozen=True, slots=True)
class ThreadEntry:
    """The head of a chat thread; what happens in it are its messages.

    `activity` (microseconds) is set by what moves the thread in people's lists and is no message: its deletion.
    """

    id: str
    topic: str
    created: int
    creator: str
    deleted: int | None = None
    activity: int = 0
    metadata: Mapping[str, str] = field(default_factory=no_metadata)
    retention_days: int | None = None
    retention_set: bool = False
    changed_by: str = ""
    metadata_set: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """A user's membership in a thread; kept after removal, because the thread stays in that user's list."""

    thread: str
    user: str
    joined: int
    display_name: str | None = None
    share_history: int = 0
    metadata: Mapping[str, str] = field(default_factory=no_metadata)
    removed: int | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A participant as listed in a system message."""

    user: str
    display_name: str | None
    share_history: int


@dataclass(frozen=True, slots=True)
class MessageAttachment:
    """What a message shows besides its text: an image or a file.

    A `url` that begins with a slash is a path of this service, and is given to each reader with host and api-version.
    """

    id: str
    type: str
    name: str = ""
    url: str = ""
    preview_url: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a thread; `data` is base64, and empty once the image is deleted."""

    thread: str
    id: str
    user: str
    media_type: str
    data: str
    name: str = ""
    is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """The latest state of a message, a person's or the system's.

    `activity` (microseconds, unique in the world) is set if this state moved the thread in people's lists;
    `visible` is the time from which lists show this state (later than `version` under stale reads).
    """

    thread: str
    id: int
    type: str
    sequence: int
    version: int
    text: str = ""
    sender: str = ""
    display_name: str = ""
    edited: int | None = None
    deleted: int | None = None
    metadata: Mapping[str, str] = field(default_factory=no_metadata)
    topic: str = ""
    participants: tuple[Listed, ...] = ()
    attachments: tuple[MessageAttachment, ...] = ()
    activity: int = 0
    visible: int = 0

    @property
    def is_system(self) -> bool:
        """Whether the service wrote it; `sender` is then the one who caused it."""
        return self.type in SYSTEM_TYPES


@dataclass(frozen=True, slots=True)
class ReceiptEntry:
    """The latest message that a user has read in a thread."""

    thread: str
    user: str
    message: int
    read: int


@dataclass(frozen=True, slots=True)
class Repeat:
    """A `repeatability-request-id` and the thread it created."""

    user: str
    key: str
    thread: str
    at: int
    digest: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """Permission of a Teams user, or of a resource account, to use this resource; see Teams Phone extensibility."""

    tenant: str
    user: str
    principal: str
    client_ids: tuple[str, ...] | None = None
    is_removed: bool = False


@dataclass(frozen=True, slots=True)
class Typing:
    """A typing notification; the service shows it over its real-time channel only and keeps nothing."""

    thread: str
    user: str
    display_name: str
    at: int


Record = Resource | User | ThreadEntry | Member | Message | ReceiptEntry | Repeat | Image | Assignment
