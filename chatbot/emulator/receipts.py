"""Read receipts and typing notifications.

A user has one receipt per thread, the latest read. In threads above 20 people both are accepted and nobody
sees them (documented limit; azure-sdk-for-net issue 31413).
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from chatbot.emulator.participants import MAX_HEARD, Participants
from chatbot.emulator.problems import message_not_found
from chatbot.emulator.quirks import Quirks
from chatbot.emulator.records import Receipt, Typing
from chatbot.emulator.state import Room, State


class Receipts:
    """The operations on receipts and typing; `typing` keeps the latest notifications for tests to look at."""

    def __init__(self, state: State, quirks: Quirks) -> None:
        self._state = state
        self.quirks = quirks
        self.typing: deque[Typing] = deque(maxlen=1000)

    def send(self, room: Room, reader: str, number: int, now: int) -> None:
        """Remember that `reader` has read up to a message; an older one changes nothing."""
        Participants.admit(room, reader, self.quirks)
        if number not in room.messages:
            raise message_not_found()
        earlier = room.receipts.get(reader)
        if earlier is None or earlier.message <= number:
            self._state.put(Receipt(thread=room.head.id, user=reader, message=number, read=now))
            self._bump(room, now)

    def latest(self, room: Room, reader: str) -> list[Receipt]:
        """One receipt per user, or none at all in a large thread."""
        Participants.admit(room, reader, self.quirks)
        if len(room.present()) > MAX_HEARD:
            return []
        return [receipt for receipt in room.receipts.values() if room.member(receipt.user) is not None]

    def type(self, room: Room, typist: str, display_name: str, now: int) -> None:
        """Pass a typing notification on to whoever could see it."""
        Participants.admit(room, typist, self.quirks)
        if len(room.present()) <= MAX_HEARD:
            self.typing.append(Typing(thread=room.head.id, user=typist, display_name=display_name, at=now))
            self._bump(room, now)

    def _bump(self, room: Room, now: int) -> None:
        if self.quirks.activity == "everything":
            self._state.put(replace(room.head, activity=self._state.next_activity(now)))
