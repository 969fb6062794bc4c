"""Participants of a thread (add, remove, list), their read receipts and their typing notifications.

One call of `:add` makes one `participantAdded` message that names everybody it added. Teams users and telephone
numbers are not admitted to plain threads: they come back as `invalidParticipants` with code 403 (azure-sdk-for-net
issue 41885).

A user has one receipt per thread, the latest read. In threads above 20 people receipts and typing notifications are
accepted, and nobody sees them (documented limit; azure-sdk-for-net issue 31413).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from chatbot.emulator.errors import ErrorResponse, bad_identifier, bad_request, message_not_found, refused
from chatbot.emulator.messages import Messages
from chatbot.emulator.quirks import Quirks
from chatbot.emulator.records import Listed, Member, ReceiptEntry, Typing, no_metadata
from chatbot.emulator.state import ThreadContents, WorldState

MAX_PARTICIPANTS = 250
MAX_BATCH = 200
MAX_METADATA_BYTES = 1024
"""Maximum size of the metadata of a thread, and of each participant."""

MAX_RECEIPT_PEOPLE = 20
"""Receipts and typing work in threads of up to this many people (documented service limit)."""

_ACS = re.compile(
    r"8:(?:acs|spool|gcch-acs|dod-acs):[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}_[0-9a-zA-Z\-]{1,100}"
)
_FOREIGN_IDENTITY = re.compile(
    r"(?:8:orgid:|8:gcch:|8:dod:|8:teamsvisitor:|28:orgid:|28:|4:\+?)[\w\-+.:]{1,200}", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Invited:
    """A participant to add to a thread."""

    user: str
    display_name: str | None = None
    share_history: int = 0
    metadata: Mapping[str, str] = field(default_factory=no_metadata)


@dataclass(frozen=True, slots=True)
class InvalidParticipant:
    """A participant who was rejected, and the reason."""

    user: str
    code: str
    message: str


class Participants:
    """The operations on a thread's participants."""

    def __init__(self, state: WorldState, quirks: Quirks, messages: Messages) -> None:
        self._state = state
        self.quirks = quirks
        self._messages = messages

    def validate(self, invited: Sequence[Invited]) -> tuple[list[Invited], list[InvalidParticipant]]:
        """Split participants into valid and rejected ones.

        A malformed id rejects the whole request.
        """
        if len(invited) > MAX_BATCH or any(_size(person.metadata) > MAX_METADATA_BYTES for person in invited):
            raise bad_request()
        welcome: dict[str, Invited] = {}
        rejected: list[InvalidParticipant] = []
        for person in invited:
            known = self._state.users.get(person.user)
            if _FOREIGN_IDENTITY.fullmatch(person.user):
                text = "Permissions check failed for the requested participant."
                rejected.append(InvalidParticipant(person.user, "403", text))
            elif not _ACS.fullmatch(person.user):
                raise bad_identifier(person.user)
            elif (known is None and self.quirks.unknown_participant == "invalid") or (known and known.deleted):
                rejected.append(InvalidParticipant(person.user, "403", "Permissions check failed"))
            else:
                welcome.setdefault(person.user, person)
        return list(welcome.values()), rejected

    def add(
        self, room: ThreadContents, initiator: str, invited: Sequence[Invited], now: int
    ) -> list[InvalidParticipant]:
        """Add participants; existing ones stay unchanged."""
        self.check_member(room, initiator, self.quirks)
        welcome, rejected = self.validate(invited)
        fresh = [person for person in welcome if room.member(person.user) is None]
        if len(room.present()) + len(fresh) > MAX_PARTICIPANTS:
            raise bad_request()
        if fresh:
            self.add_members(room, initiator, fresh, now)
        return rejected

    def add_members(self, room: ThreadContents, initiator: str, fresh: Sequence[Invited], now: int) -> None:
        """Store memberships and announce them in one message."""
        for person in fresh:
            self._state.put(
                Member(
                    thread=room.head.id,
                    user=person.user,
                    joined=now,
                    display_name=person.display_name,
                    share_history=person.share_history,
                    metadata=person.metadata,
                )
            )
        people = tuple(Listed(person.user, person.display_name, person.share_history) for person in fresh)
        self._messages.announce(room, "participantAdded", initiator, now, people=people)

    def remove(self, room: ThreadContents, initiator: str, user: str, now: int) -> None:
        """Remove a participant, or leave; the announcement is the last message that the removed user can read."""
        if initiator in room.members and room.member(initiator) is None:
            raise refused(self.quirks.removed_removal)
        self.check_member(room, initiator, self.quirks)
        member = room.member(user)
        if member is None:
            if not _ACS.fullmatch(user) and not _FOREIGN_IDENTITY.fullmatch(user):
                raise bad_identifier(user)
            if self.quirks.remove_stranger == "not-found":
                raise ErrorResponse(404, "NotFound")
            return
        people = (Listed(user, member.display_name, member.share_history),)
        named = "" if initiator == user and self.quirks.leave_initiator == "absent" else initiator
        notice = self._messages.announce(room, "participantRemoved", named, now, people=people)
        self._state.put(replace(member, removed=notice.version))

    def list_present(self, room: ThreadContents, reader: str) -> list[Member]:
        """Return the current participants, creator first; a removed user is refused (Communication issue 345)."""
        if room.member(reader) is None:
            reading = self.quirks.removed_participants if reader in room.members else "forbidden"
        elif room.head.deleted is not None:
            reading = self.quirks.deleted_thread_participants
        else:
            reading = "listed"
        if reading != "listed":
            raise refused(reading)
        return room.present()

    @staticmethod
    def check_member(room: ThreadContents, user: str, quirks: Quirks) -> None:
        """Refuse users who are not participants, and all users once the thread is deleted."""
        if room.member(user) is None:
            raise refused(quirks.removed_writes if user in room.members else "forbidden")
        if room.head.deleted is not None:
            raise refused(quirks.deleted_thread_writes)


def _size(metadata: Mapping[str, str]) -> int:
    return sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items())


class ReceiptStore:
    """The operations on receipts and typing; `typing` keeps the latest notifications for tests."""

    def __init__(self, state: WorldState, quirks: Quirks) -> None:
        self._state = state
        self.quirks = quirks
        self.typing: deque[Typing] = deque(maxlen=1000)
        self.typing_listeners: list[Callable[[Typing], None]] = []

    def send(self, room: ThreadContents, reader: str, number: int, now: int) -> None:
        """Record that `reader` has read up to a message; an older message changes nothing."""
        Participants.check_member(room, reader, self.quirks)
        if number not in room.messages:
            raise message_not_found()
        earlier = room.receipts.get(reader)
        if earlier is None or earlier.message <= number:
            self._state.put(ReceiptEntry(thread=room.head.id, user=reader, message=number, read=now))
            self._bump(room, now)

    def latest(self, room: ThreadContents, reader: str) -> list[ReceiptEntry]:
        """Return one receipt per user; none in a large thread."""
        Participants.check_member(room, reader, self.quirks)
        if len(room.present()) > MAX_RECEIPT_PEOPLE:
            return []
        return [receipt for receipt in room.receipts.values() if room.member(receipt.user) is not None]

    def type(self, room: ThreadContents, typist: str, display_name: str, now: int) -> None:
        """Pass a typing notification to the participants who can see it."""
        Participants.check_member(room, typist, self.quirks)
        if len(room.present()) <= MAX_RECEIPT_PEOPLE:
            typing = Typing(thread=room.head.id, user=typist, display_name=display_name, at=now)
            self.typing.append(typing)
            for listener in self.typing_listeners:
                listener(typing)
            self._bump(room, now)

    def _bump(self, room: ThreadContents, now: int) -> None:
        if self.quirks.activity == "everything":
            self._state.put(replace(room.head, activity=self._state.next_activity(now)))
