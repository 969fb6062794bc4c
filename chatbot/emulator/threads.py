"""Chat threads: create, read, list, change, delete.

The creator joins automatically; a creation announces `participantAdded` and then `topicUpdated`. Deleted
threads stay in people's lists with `deletedOn`, threads one was removed from without any mark (Communication
issue 345).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from chatbot.emulator.errors import ErrorResponse, bad_request, forbidden, thread_not_found
from chatbot.emulator.messages import Messages
from chatbot.emulator.participants import (
    MAX_METADATA_BYTES,
    MAX_PARTICIPANTS,
    InvalidParticipant,
    Invited,
    Participants,
)
from chatbot.emulator.quirks import Quirks
from chatbot.emulator.records import Repeat, ThreadEntry, no_metadata
from chatbot.emulator.state import Slot, ThreadContents, WorldState


@dataclass(frozen=True, slots=True)
class Plan:
    """A thread to create."""

    topic: str
    participants: Sequence[Invited] = ()
    metadata: Mapping[str, str] = field(default_factory=no_metadata)
    retention_days: int | None = None
    retention_set: bool = False
    repeat_key: str = ""
    metadata_set: bool = False


@dataclass(frozen=True, slots=True)
class ThreadChange:
    """A change of a thread; None leaves a field unchanged."""

    topic: str | None = None
    metadata: Mapping[str, str] | None = None
    retention_days: int | None = None
    retention_set: bool = False


@dataclass(frozen=True, slots=True)
class ThreadListPage:
    """A page of threads, latest activity first, and the cursor window (microseconds) if there are more."""

    rooms: list[ThreadContents]
    next: tuple[int, int] | None


class Threads:
    """The operations on threads."""

    def __init__(self, state: WorldState, quirks: Quirks, messages: Messages, participants: Participants) -> None:
        self._state = state
        self.quirks = quirks
        self._messages = messages
        self._participants = participants

    def create(self, creator: str, plan: Plan, now: int) -> tuple[ThreadContents, list[InvalidParticipant]]:
        """Create a thread, or return the one that this repeatability key created before."""
        digest = hashlib.sha256(repr(replace(plan, repeat_key="")).encode()).hexdigest() if plan.repeat_key else ""
        repeated = self._repeated(creator, plan.repeat_key, digest, now)
        if repeated is not None:
            return repeated, self._participants.validate(plan.participants)[1]
        self._topic(plan.topic)
        self._room_for(plan.metadata)
        own = next((person for person in plan.participants if person.user == creator), Invited(creator))
        welcome, rejected = self._participants.validate(plan.participants)
        others = [person for person in welcome if person.user != creator]
        if len(others) + 1 > MAX_PARTICIPANTS:
            raise bad_request()
        thread_id = self._state.new_thread_id()
        if self.quirks.thread_ids == "acsV1":
            thread_id = thread_id.replace("19:", "19:acsV1_", 1)
        head = ThreadEntry(
            id=thread_id,
            topic=plan.topic,
            created=now,
            creator=creator,
            metadata=plan.metadata,
            retention_days=plan.retention_days,
            retention_set=plan.retention_set,
            metadata_set=plan.metadata_set,
        )
        self._state.put(head)
        room = self._state.rooms[head.id]
        self._participants.add_members(room, creator, [own, *others], now)
        self._messages.announce(room, "topicUpdated", creator, now, topic=plan.topic)
        if plan.repeat_key:
            self._state.put(Repeat(user=creator, key=plan.repeat_key, thread=head.id, at=now, digest=digest))
        return room, rejected

    def _repeated(self, creator: str, key: str, digest: str, now: int) -> ThreadContents | None:
        repeat = self._state.repeats.get((creator, key)) if key else None
        if repeat is None or now - repeat.at > self.quirks.repeatability_seconds * 1000:
            return None
        if repeat.digest != digest and self.quirks.repeatability_conflict == "conflict":
            raise ErrorResponse(409, "Conflict")
        return self._state.rooms[repeat.thread]

    def get(self, thread: str, reader: str) -> ThreadContents:
        """Return the contents of a thread to one of its participants."""
        room = self._state.room(thread)
        if room.head.deleted is not None:
            if reader in room.members and self.quirks.deleted_thread == "properties":
                return room
            raise thread_not_found()
        if room.member(reader) is None:
            raise forbidden()
        return room

    def update(self, thread: str, editor: str, now: int, change: ThreadChange) -> None:
        """Change topic, metadata (merged per key) or retention; only a topic is announced."""
        room = self._state.room(thread)
        Participants.check_member(room, editor, self.quirks)
        head = replace(room.head, changed_by=editor)
        if change.topic is not None:
            self._topic(change.topic)
            head = replace(head, topic=change.topic)
        if change.metadata is not None:
            merged = {**head.metadata, **change.metadata}
            head = replace(
                head, metadata_set=True, metadata={key: value for key, value in merged.items() if value != ""}
            )
            self._room_for(head.metadata)
        if change.retention_set:
            head = replace(head, retention_set=True, retention_days=change.retention_days)
        self._state.put(head)
        if change.topic is not None:
            self._messages.announce(room, "topicUpdated", editor, now, topic=head.topic)

    def delete(self, thread: str, deleter: str, now: int) -> None:
        """Delete the thread for everyone; it stays listed, and its deletion counts as activity."""
        room = self._state.room(thread)
        if room.head.deleted is not None and deleter in room.members:
            if self.quirks.delete_again == "not-found":
                raise thread_not_found()
            return
        Participants.check_member(room, deleter, self.quirks)
        if self.quirks.delete_thread_by == "creator" and deleter != room.head.creator:
            raise forbidden()
        self._end(room, deleter, now)

    def expire(self, room: ThreadContents, now: int) -> None:
        """Delete a thread whose retention has run out."""
        days = room.head.retention_days
        if days is not None and room.head.deleted is None and now >= room.head.created + days * 86_400_000:
            self._end(room, "", room.head.created + days * 86_400_000)

    def page(
        self, reader: str, size: int, *, start: int | None = None, cursor: tuple[int, int] | None = None
    ) -> ThreadListPage:
        """Return a page of all threads the reader is or was in, including deleted ones."""
        slots = self._slots(reader)
        if cursor is not None:
            oldest, newest = cursor
            older = bisect_left(slots, -oldest + 1, key=Slot.rank)
            newer = bisect_left(slots, -newest, key=Slot.rank)
            slots = slots[:newer] + slots[max(older, newer) :]
        if start is not None:
            least = start * 1000 if self.quirks.thread_start_time == "inclusive" else (start + 1) * 1000
            slots = slots[: bisect_left(slots, -least + 1, key=Slot.rank)]
        chosen = slots[:size]
        rooms = [slot.room for slot in chosen if slot.room is not None]
        if len(slots) <= size:
            return ThreadListPage(rooms, None)
        lowest, highest = chosen[-1].activity, chosen[0].activity
        if cursor is not None:
            lowest, highest = min(lowest, cursor[0]), max(highest, cursor[1])
        return ThreadListPage(rooms, (lowest, highest))

    def _slots(self, reader: str) -> list[Slot]:
        """Return the entries that the service pages through: the reader's threads, and hidden conversations."""
        slots = self._state.lists.get(reader, [])
        if not self.quirks.phantom_threads:
            return slots
        phantoms = range(self.quirks.phantom_threads, 0, -1)
        return [entry for slot in slots for entry in (*(Slot(slot.activity + place, None) for place in phantoms), slot)]

    def _end(self, room: ThreadContents, by: str, when: int) -> None:
        """Mark a thread as deleted, by nobody if its retention has run out."""
        activity = self._state.next_activity(when)
        self._state.put(replace(room.head, changed_by=by, deleted=when, activity=activity))

    def _topic(self, topic: str) -> None:
        if not topic and self.quirks.empty_topic == "reject":
            raise bad_request()

    @staticmethod
    def _room_for(metadata: Mapping[str, str]) -> None:
        size = sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items())
        if size > MAX_METADATA_BYTES:
            raise bad_request()
