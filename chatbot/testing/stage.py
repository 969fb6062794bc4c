"""The service that a chat of the harness plays on: the emulator in this process, and everybody's view of it.

Bots and people reach it through the official SDK, as in production; only the network is missing. What is asserted
on is read from the emulator's world itself.
"""

from __future__ import annotations

from chatbot.emulator import Emulator
from chatbot.emulator.records import Message
from chatbot.model import ThreadId, UserId
from chatbot.service.acs import AcsResource
from chatbot.service.base import ChatService
from chatbot.testing.transport import AsgiTransport


class Stage:
    """One emulated resource and all who are known on it.

    Args:
        emulator: the service; its clock is everybody's.
    """

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.resource = AcsResource.from_connection_string(
            emulator.connection_string, transport=AsgiTransport(emulator), clock=emulator.clock
        )
        self.names: dict[str, str] = {}
        self._people: dict[str, UserId] = {}
        self._services: dict[UserId, ChatService] = {}

    def clock(self) -> float:
        """The service's time, epoch seconds."""
        return self.emulator.clock()

    def create_user(self, name: str) -> UserId:
        """Somebody new, under a name for transcripts."""
        user = UserId(self.emulator.create_user())
        self.names[user] = name
        return user

    def person(self, name: str) -> UserId:
        """The user of the person of this name; the same one at each call."""
        if name not in self._people:
            self._people[name] = self.create_user(name)
        return self._people[name]

    def knows(self, user: UserId) -> bool:
        """Whether this user exists on the service."""
        return user in self.emulator.world.state.users

    def service_of(self, user: UserId) -> ChatService:
        """Somebody's view of the service; one and the same at each call."""
        if user not in self._services:
            self._services[user] = self.new_service_of(user)
        return self._services[user]

    def new_service_of(self, user: UserId) -> ChatService:
        """A view of somebody's that remembers nothing, as a new process has it."""
        return self.resource.chat(user, self.resource.minted_tokens(user))

    def messages(self, thread: ThreadId) -> list[Message]:
        """Everything in a thread, in the order in which it was first said."""
        return self.emulator.transcript(thread)

    def version(self, thread: ThreadId) -> int:
        """The latest change in a thread."""
        return self.emulator.world.state.room(thread).version

    def read_by_others(self, thread: ThreadId, user: UserId) -> dict[UserId, int]:
        """The number of the latest message that each of the others who are there has read."""
        receipts = self.emulator.receipts(thread).values()
        there = (one for one in receipts if one.user != user and self.is_in(thread, UserId(one.user)))
        return {UserId(receipt.user): receipt.message for receipt in there}

    def is_in(self, thread: ThreadId, user: UserId) -> bool:
        """Whether somebody is in a thread that was not deleted."""
        room = self.emulator.world.state.room(thread)
        return room.head.deleted is None and room.member(user) is not None
