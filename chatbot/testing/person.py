"""People in a room of the harness: they act through the real service, and wait until the bots have dealt with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import anyio

from chatbot.errors import StateError, Throttled
from chatbot.model import MessageId, Participant, UserId
from chatbot.testing.virtual_time import virtual_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chatbot.service.base import ChatService
    from chatbot.testing.room import Room

__tracebackhide__ = True  # pytest: what is of interest is the author's test and code

T = TypeVar("T")

ACT_SECONDS: Final = 1.0
"""How long an act takes on virtual time. Nobody says two things in a millisecond, and versions are milliseconds."""

THROTTLED_SECONDS: Final = 1.0
"""How long a person waits before trying again, when the service does not say."""


class Guest(Protocol):
    """Anyone who can be in a room: a person or a bot."""

    @property
    def name(self) -> str:
        """What the others see."""
        ...

    @property
    def user(self) -> UserId:
        """The id on the service."""
        ...


class Person:
    """Somebody in a room. Made by `Room.user`; comes in with the first thing they do there.

    Every act goes through the official SDK into the in-process service, and returns when all running bots have
    handled what came of it and have nothing left to send. A handler that failed meanwhile fails the act.

    Args:
        room: where they act.
        name: what the others see.
        user: their id on the service.
    """

    def __init__(self, room: Room, name: str, user: UserId) -> None:
        self.name = name
        self.user = user
        self._room = room
        self._said: MessageId | None = None

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @property
    def service(self) -> ChatService:
        """This person's own view of the service, for whatever has no word here."""
        return self._room.stage.service_of(self.user)

    async def says(self, *texts: str, html: bool = False) -> MessageId:
        """Say something; several texts one after the other, each after the bots have dealt with the one before.

        Args:
            texts: at least one.
            html: send them as html.

        Returns:
            The id of the (last) message, for `edits` and `deletes`.
        """
        if not texts:
            msg = f"{self.name} says nothing: give says() at least one text"
            raise ValueError(msg)
        for text in texts:
            self._said = await self._act(
                lambda text=text: self.service.send_message(  # type: ignore[misc]
                    self._room.thread, text, type="html" if html else "text", display_name=self.name
                )
            )
        assert self._said is not None
        return self._said

    async def edits(self, text: str, message: MessageId | None = None) -> None:
        """Correct a message: the last one they said, unless another is named."""
        edited = self._message(message)
        await self._act(lambda: self.service.edit_message(self._room.thread, edited, content=text))

    async def deletes(self, message: MessageId | None = None) -> None:
        """Take a message back: the last one they said, unless another is named."""
        deleted = self._message(message)
        await self._act(lambda: self.service.delete_message(self._room.thread, deleted))

    async def reads(self, message: MessageId | None = None) -> None:
        """Send a read receipt: for the latest message of somebody else, unless another is named."""
        read = message or self._room.latest_for(self.user)
        await self._act(lambda: self.service.send_receipt(self._room.thread, read))

    async def types(self) -> None:
        """Show that they are typing."""
        await self._act(lambda: self.service.send_typing(self._room.thread, display_name=self.name))

    async def renames(self, topic: str) -> None:
        """Give the thread another topic."""
        await self._act(lambda: self.service.update_topic(self._room.thread, topic))

    async def joins(self) -> None:
        """Come into the room: the first person opens it with the bots in it, others are let in."""
        await self._room.let_in(self, anew=True)
        await self._room.settle()

    async def leaves(self) -> None:
        """Leave the room."""
        await self.removes(self)

    async def adds(self, *guests: Guest) -> None:
        """Bring people or bots in."""
        newcomers = [Participant(guest.user, guest.name) for guest in guests]
        failed = await self._act(lambda: self.service.add_participants(self._room.thread, newcomers))
        if failed:
            msg = f"{self.name} could not bring in {failed}"
            raise StateError(msg)

    async def removes(self, guest: Guest) -> None:
        """Take somebody out: a person, or a bot."""
        await self._act(lambda: self.service.remove_participant(self._room.thread, guest.user))

    async def closes(self) -> None:
        """Delete the thread, for everyone."""
        await self._act(lambda: self.service.delete_thread(self._room.thread))

    def _message(self, message: MessageId | None) -> MessageId:
        chosen = message or self._said
        if chosen is None:
            msg = f"{self.name} has said nothing yet: say something first, or name the message"
            raise StateError(msg)
        return chosen

    async def _act(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do something on the service and let the bots deal with it."""
        await self._room.let_in(self, anew=False)
        if virtual_loop() is not None:
            await anyio.sleep(ACT_SECONDS)
        done = await patiently(act)
        await self._room.settle()
        return done


async def patiently(act: Callable[[], Awaitable[T]]) -> T:
    """Do something on the service, again and again while it throttles: people, too, wait then."""
    while True:
        try:
            return await act()
        except Throttled as throttled:
            await anyio.sleep(throttled.retry_after or THROTTLED_SECONDS)
