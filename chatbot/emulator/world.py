"""The world of the emulated service: users, threads and what is said in them.

Pure: it does no I/O and has no clock; `now` (Unix epoch milliseconds) is an argument of everything that
happens. The ASGI application (`app.py`) calls it for requests, tests may call it directly.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from chatbot.emulator.identities import IdentityStore
from chatbot.emulator.images import Images
from chatbot.emulator.messages import Messages
from chatbot.emulator.participants import Participants, ReceiptStore
from chatbot.emulator.quirks import Quirks
from chatbot.emulator.records import Record, Resource
from chatbot.emulator.state import ThreadContents, WorldState
from chatbot.emulator.threads import Threads


class World:
    """One Azure Communication Services resource and everything in it.

    `seed` makes all ids, keys and drawings of chance repeatable; without it they are random.
    """

    def __init__(
        self,
        *,
        resource_id: str | None = None,
        seed: int | None = None,
        quirks: Quirks | None = None,
        access_key: str | None = None,
    ) -> None:
        self.state = WorldState(seed)
        key = access_key or base64.b64encode(self.state.random.randbytes(64)).decode()
        self.state.put(Resource(id=resource_id or self.state.new_guid(), access_key=key))
        self._quirks = quirks or Quirks()
        self.identities = IdentityStore(self.state, self._quirks)
        self.messages = Messages(self.state, self._quirks)
        self.participants = Participants(self.state, self._quirks, self.messages)
        self.threads = Threads(self.state, self._quirks, self.messages, self.participants)
        self.receipts = ReceiptStore(self.state, self._quirks)
        self.images = Images(self.state, self._quirks)

    @property
    def quirks(self) -> Quirks:
        """Quirks of the world; may be set at any time."""
        return self._quirks

    @quirks.setter
    def quirks(self, quirks: Quirks) -> None:
        self._quirks = quirks
        for part in (self.identities, self.messages, self.participants, self.threads, self.receipts, self.images):
            part.quirks = quirks

    @property
    def resource(self) -> Resource:
        """The resource's id and access key."""
        return self.state.resource

    def delete_user(self, user_id: str, now: int) -> None:
        """Delete an identity; a little later it leaves all its threads (web-chat-hero issue 177)."""
        self.identities.delete(user_id, now)
        self.sweep(now)

    def sweep(self, now: int) -> None:
        """Remove deleted users from their threads once the deletion has taken effect."""
        for user_id, deleted in list(self.state.leaving.items()):
            if now < deleted + self.quirks.deletion_delay_seconds * 1000:
                continue
            del self.state.leaving[user_id]
            for room in list(self.state.rooms_of.get(user_id, {}).values()):
                if room.member(user_id) is not None and room.head.deleted is None:
                    self.participants.remove(room, user_id, user_id, now)

    def expire(self, now: int) -> None:
        """Delete every thread whose retention has expired, and remove deleted users from their threads."""
        if self.state.leaving:
            self.sweep(now)
        for thread_id in list(self.state.retained):
            self.threads.expire(self.state.rooms[thread_id], now)

    def room(self, thread_id: str, now: int) -> ThreadContents:
        """Return the contents of a thread; it is deleted first if its retention has expired."""
        if self.state.leaving:
            self.sweep(now)
        room = self.state.room(thread_id)
        if room.head.retention_days is not None:
            self.threads.expire(room, now)
        return room

    def replace_state(self, state: WorldState) -> None:
        """Replace everything in the world, but its access key and quirks."""
        self.state.replace(state)
        self.receipts.typing.clear()

    def listen(self, listener: Callable[[Record], None]) -> None:
        """Call `listener` with every record that is stored from now on."""
        self.state.listeners.append(listener)
