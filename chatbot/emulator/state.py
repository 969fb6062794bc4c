"""The state of the world: the latest version of every record, and the orders in which the service lists them.

The only owner of mutable state. It decides nothing: `put` stores a change and passes it to
the listeners (journal, Event Grid). Putting a journal's records in order gives the same state again.
"""

from __future__ import annotations

import base64
import random
import uuid
from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

from chatbot.emulator.errors import thread_not_found
from chatbot.emulator.records import (
    Assignment,
    Image,
    Member,
    Message,
    ReceiptEntry,
    Record,
    Repeat,
    Resource,
    ThreadEntry,
    User,
)


class ThreadContents:
    """A thread with its contents. `timeline` ascends by version; lists read it backwards."""

    __slots__ = (
        "head",
        "images",
        "late",
        "listed",
        "members",
        "messages",
        "moved",
        "pending_visibility",
        "receipts",
        "sequence",
        "timeline",
        "version",
    )

    def __init__(self, head: ThreadEntry) -> None:
        self.head = head
        self.members: dict[str, Member] = {}
        self.messages: dict[int, Message] = {}
        self.timeline: list[Message] = []
        self.receipts: dict[str, ReceiptEntry] = {}
        self.images: dict[str, Image] = {}
        self.sequence = 0
        self.version = 0
        self.moved = 0
        self.late = 0
        self.listed = 0
        self.pending_visibility: list[tuple[int, Message]] = []

    def present(self) -> list[Member]:
        """Return the current participants, in the order they joined."""
        return [member for member in self.members.values() if member.removed is None]

    def member(self, user: str) -> Member | None:
        """Return the user's membership if it is current."""
        member = self.members.get(user)
        return member if member is not None and member.removed is None else None

    def activity(self) -> int:
        """Latest activity of the thread in microseconds, which orders thread lists."""
        return max(self.head.activity, self.moved)

    def store(self, message: Message) -> None:
        """Add a message or replace its earlier state.

        Which lists may still show until the new one is visible.
        """
        earlier = self.messages.get(message.id)
        if earlier is not None:
            del self.timeline[self._index(earlier)]
            if message.visible:
                self.pending_visibility.append((message.visible, earlier))
        self.messages[message.id] = message
        if not self.timeline or self.timeline[-1].version <= message.version:
            self.timeline.append(message)
        else:
            self.timeline.insert(bisect_left(self.timeline, message.version, key=_version), message)
        self.sequence = max(self.sequence, message.sequence)
        self.version = max(self.version, message.version, message.id)
        self.moved = max(self.moved, message.activity)
        self.late = max(self.late, message.visible)

    def _index(self, message: Message) -> int:
        index = bisect_left(self.timeline, message.version, key=_version)
        while self.timeline[index].id != message.id:
            index += 1
        return index


def _enter(slots: list[Slot], room: ThreadContents) -> None:
    slot = Slot(room.listed, room)
    slots.insert(bisect_left(slots, slot.rank(), key=Slot.rank), slot)


def _leave(slots: list[Slot], room: ThreadContents) -> None:
    index = bisect_left(slots, -room.listed, key=Slot.rank)
    while slots[index].room is not room:
        index += 1
    del slots[index]


def _version(message: Message) -> int:
    return message.version


class Slot(NamedTuple):
    """An entry of a user's thread list; without contents, the service shows nothing there."""

    activity: int
    room: ThreadContents | None

    def rank(self) -> int:
        """Return the sort key of lists: latest activity first."""
        return -self.activity


class WorldState:
    """All tables, and the source of ids.

    `lists` has the threads each user is or was in, latest activity first.
    """

    def __init__(self, seed: int | None) -> None:
        self.random: random.Random = random.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311 -- repeatable tests
        self.resource = Resource(id="", access_key="")
        self.users: dict[str, User] = {}
        self.rooms: dict[str, ThreadContents] = {}
        self.repeats: dict[tuple[str, str], Repeat] = {}
        self.assignments: dict[tuple[str, str], Assignment] = {}
        self.rooms_of: dict[str, dict[str, ThreadContents]] = {}
        self.listeners: list[Callable[[Record], None]] = []
        self.replacement_listeners: list[Callable[[], None]] = []
        self.activity = 0
        self.leaving: dict[str, int] = {}
        self.retained: set[str] = set()
        self.lists: dict[str, list[Slot]] = {}

    def put(self, record: Record) -> None:
        """Store a record and notify the listeners."""
        self.store(record)
        for listener in self.listeners:
            listener(record)

    def store(self, record: Record) -> None:
        """Store a record without notifying the listeners, as when a journal is read."""
        match record:
            case Message():
                room = self.rooms[record.thread]
                room.store(record)
                self._move(room)
            case ReceiptEntry():
                self.rooms[record.thread].receipts[record.user] = record
            case Member():
                self._store_member(record)
            case ThreadEntry():
                self._head(record)
            case User():
                self.users[record.id] = record
                if record.deleted is not None:
                    self.leaving[record.id] = record.deleted
            case Image():
                self.rooms[record.thread].images[record.id] = record
            case Assignment():
                self.assignments[(record.tenant, record.user)] = record
            case Repeat():
                self.repeats[(record.user, record.key)] = record
            case Resource():
                self.resource = record

    def replace(self, other: WorldState) -> None:
        """Take all tables of another state, but the access key; listeners hear that, and not of the records."""
        self.resource = Resource(id=other.resource.id or self.resource.id, access_key=self.resource.access_key)
        self.users, self.rooms, self.rooms_of, self.lists = other.users, other.rooms, other.rooms_of, other.lists
        self.repeats, self.assignments = other.repeats, other.assignments
        self.leaving, self.retained, self.activity = other.leaving, other.retained, other.activity
        for listener in self.replacement_listeners:
            listener()

    def _head(self, head: ThreadEntry) -> None:
        room = self.rooms.get(head.id)
        if room is None:
            room = self.rooms[head.id] = ThreadContents(head)
        room.head = head
        if head.retention_days is not None and head.deleted is None:
            self.retained.add(head.id)
        else:
            self.retained.discard(head.id)
        self._move(room)

    def _store_member(self, member: Member) -> None:
        room = self.rooms[member.thread]
        earlier = room.members.get(member.user)
        if earlier is None:
            self.rooms_of.setdefault(member.user, {})[member.thread] = room
            _enter(self.lists.setdefault(member.user, []), room)
        elif earlier.removed is not None and member.removed is None:
            del room.members[member.user]
        room.members[member.user] = member

    def _move(self, room: ThreadContents) -> None:
        """Move a thread to its new position in all lists."""
        activity = room.activity()
        self.activity = max(self.activity, activity)
        if activity == room.listed:
            return
        for user in room.members:
            _leave(self.lists[user], room)
        room.listed = activity
        for user in room.members:
            _enter(self.lists[user], room)

    def next_activity(self, now: int) -> int:
        """Return a new timestamp for the order of thread lists, unique in the world."""
        return max(now * 1000, self.activity + 1)

    def room(self, thread: str) -> ThreadContents:
        """Return the contents of a thread; raise `ErrorResponse` for an unknown one."""
        room = self.rooms.get(thread)
        if room is None:
            raise thread_not_found()
        return room

    def new_guid(self) -> str:
        """Return a random GUID in the common notation."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def new_vector(self) -> str:
        """Return the base of a correlation vector: 22 characters of base64."""
        return base64.b64encode(self.random.randbytes(16)).decode()[:22]

    def new_user_id(self) -> str:
        """Return an id of the recorded form `8:acs:{resource}_0000001c-8f4e-af9f-2c8a-084822002b21`."""
        text = f"{self.random.getrandbits(96):024x}"
        return f"8:acs:{self.resource.id}_0000001c-{text[:4]}-{text[4:8]}-{text[8:12]}-{text[12:]}"

    def new_thread_id(self) -> str:
        """Return an id of the form recorded until 2024, `19:{43 base64url characters}1@thread.v2`."""
        text = base64.urlsafe_b64encode(self.random.randbytes(32)).decode().rstrip("=")
        return f"19:{text}1@thread.v2"

    def new_image_id(self) -> str:
        """An id of the documented form `0-eus-d2-{32 hexadecimal digits}`."""
        return f"0-eus-d1-{self.random.getrandbits(128):032x}"

    def new_ticks(self) -> int:
        """Return random digits below a millisecond, in units of 100 nanoseconds."""
        return self.random.randrange(10_000)
