"""People in a room of the harness: they act through the real service, and wait until the bots have dealt with it.

A room of the harness: one thread with people and bots in it, and what can be asserted about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import anyio

from chatbot.emulator.records import Message
from chatbot.errors import StateError, Throttled
from chatbot.model import MessageId, Participant, ThreadId, UserId
from chatbot.testing.process import BotGuest, HandlerFailure
from chatbot.testing.transcripts import transcript
from chatbot.testing.virtual_time import virtual_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chatbot.emulator import Emulator
    from chatbot.service.base import ChatService
    from chatbot.stores.records import DeadLetter
    from chatbot.testing.harness import Harness
    from chatbot.testing.transport import Stage

__tracebackhide__ = True  # pytest: what is of interest is the author's test and code

T = TypeVar("T")

ACT_SECONDS: Final = 1.0
"""How long an act takes on virtual time. Nobody says two things in a millisecond, and versions are milliseconds."""

THROTTLED_SECONDS: Final = 1.0
"""How long a person waits before trying again, when the service does not say."""


class BotHost(Protocol):
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

    async def adds(self, *guests: BotHost) -> None:
        """Bring people or bots in."""
        newcomers = [Participant(guest.user, guest.name) for guest in guests]
        failed = await self._act(lambda: self.service.add_participants(self._room.thread, newcomers))
        if failed:
            msg = f"{self.name} could not bring in {failed}"
            raise StateError(msg)

    async def removes(self, guest: BotHost) -> None:
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


REAL_TIME: Final = (
    "advance() needs virtual time, and this test runs in real time: mark it @pytest.mark.virtual_time (or its module: "
    "pytestmark = pytest.mark.virtual_time), or take the fixture virtual_time"
)


class Room:
    """One thread of a chat. The first person who does something in it opens it, with all bots in it.

    Made by `chat` and by `another`.
    """

    def __init__(self, harness: Harness, topic: str) -> None:
        self._harness = harness
        self._topic = topic
        self._thread: ThreadId | None = None
        self._people: dict[str, Person] = {}
        self._door = anyio.Lock()

    # ── who is there ──────────────────────────────────────────────────────────────────────────────────────────

    def user(self, name: str) -> Person:
        """The person of this name; the same one at each call, and the same user in every room of the chat."""
        if name not in self._people:
            self._people[name] = Person(self, name, self._harness.user_of(name))
        return self._people[name]

    @property
    def bot(self) -> BotGuest:
        """The bot, or the first of several."""
        return next(iter(self.bots.values()))

    @property
    def bots(self) -> Mapping[str, BotGuest]:
        """All bots of the chat by name, for people to add and remove."""
        return self._harness.process.guests

    # ── what can be asserted ──────────────────────────────────────────────────────────────────────────────────

    @property
    def replies(self) -> list[str]:
        """What the bots have said and not taken back, in the order in which it was said, as it reads now."""
        bots = {guest.user for guest in self.bots.values()}
        return [message.text for message in self._living() if message.sender in bots]

    @property
    def said(self) -> list[tuple[str, str]]:
        """Name and text of everything that people and bots have said and not taken back."""
        return [(self._name(message.sender), message.text) for message in self._living()]

    @property
    def people(self) -> list[str]:
        """The names of all who are in the room, bots included, in the order in which they came."""
        return [self._name(member.user) for member in self.emulator.participants(self.thread)]

    @property
    def read(self) -> dict[str, str]:
        """By name: the text of the latest message that each one has confirmed to have read."""
        texts = {message.id: message.text for message in self.messages}
        receipts = self.emulator.receipts(self.thread).values()
        return {self._name(receipt.user): texts[receipt.message] for receipt in receipts}

    @property
    def messages(self) -> Sequence[Message]:
        """All messages as the service has them, oldest first, deleted ones and system messages included."""
        return [] if self._thread is None else self.stage.messages(self._thread)

    @property
    def failures(self) -> list[HandlerFailure]:
        """Every failed attempt of a handler, in all rooms: for chats with `raise_failures=False`."""
        return list(self._harness.failures)

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """The bots' dead letters, in all rooms: what was given up after the last attempt, and what the service refused.

        Each has the `event`, the `handler`, the `error` and the number of `attempts`.
        """
        return list(self._harness.dead_letters)

    @property
    def transcript(self) -> str:
        """The whole conversation as text."""
        return transcript(self.messages, self.stage.names)

    def latest_for(self, user: UserId) -> MessageId:
        """The id of the latest message that others said, for this user to read."""
        others = [message for message in self.messages if not message.is_system and message.sender != user]
        if not others:
            msg = "nobody else has said anything yet that could be read"
            raise StateError(msg)
        return MessageId(str(others[-1].id))

    def _living(self) -> list[Message]:
        return [message for message in self.messages if not message.is_system and message.deleted is None]

    def _name(self, user: str) -> str:
        return self.stage.names.get(user, user)

    # ── what stands behind ────────────────────────────────────────────────────────────────────────────────────

    @property
    def thread(self) -> ThreadId:
        """The thread on the service.

        Raises:
            StateError: nobody has come yet.
        """
        if self._thread is None:
            msg = "nobody has come into the room yet: let somebody say something, or come in (await ann.joins())"
            raise StateError(msg)
        return self._thread

    @property
    def is_open(self) -> bool:
        """Whether anybody has come."""
        return self._thread is not None

    @property
    def emulator(self) -> Emulator:
        """The service, for faults, and for looking at what was asked of it (`emulator.calls`)."""
        return self.stage.emulator

    @property
    def stage(self) -> Stage:
        """Everybody's view of the service."""
        return self._harness.stage

    def another(self, topic: str = "another room") -> Room:
        """A second thread with the same bots, for the same people or others."""
        return self._harness.open_room(topic)

    async def let_in(self, person: Person, *, anew: bool) -> None:
        """Let a person in who was never here; with `anew`, also one who has left."""
        async with self._door:
            if self._thread is None:
                await self._open(person)
            elif self._is_absent(person.user, anew=anew):
                await self._let_in(person)
            else:
                return
        await self.settle()

    def _is_absent(self, user: UserId, *, anew: bool) -> bool:
        members = self.emulator.world.state.room(self.thread).members
        return not self.stage.is_in(self.thread, user) and (anew or user not in members)

    async def _open(self, person: Person) -> None:
        everybody: list[BotHost] = [person, *self.bots.values()]
        participants = [Participant(guest.user, guest.name) for guest in everybody]
        created = await patiently(lambda: person.service.create_thread(self._topic, participants))
        self._thread = created.thread.id

    async def _let_in(self, person: Person) -> None:
        host = next((one for one in self._people.values() if self.stage.is_in(self.thread, one.user)), None)
        if host is None:
            msg = f"nobody is left in the room who could let {person.name} in: somebody has to stay, or take another"
            raise StateError(msg)
        guest = Participant(person.user, person.name)
        await patiently(lambda: host.service.add_participants(self.thread, [guest]))

    # ── time and process ──────────────────────────────────────────────────────────────────────────────────────

    async def settle(self) -> None:
        """Wait until all running bots have handled everything in all rooms and have nothing left to send.

        Raises:
            Exception: what a handler raised meanwhile, unless the chat has `raise_failures=False`.
        """
        await self._harness.settle()

    @contextmanager
    def not_waiting(self) -> Iterator[None]:
        """Let nobody wait for the bots inside of this block: for services that are away, and bots that are slow."""
        was_waiting, self._harness.is_waiting = self._harness.is_waiting, False
        try:
            yield
        finally:
            self._harness.is_waiting = was_waiting

    async def advance(self, duration: timedelta | None = None, **units: float) -> None:
        """Let time pass, at once, and wait until the bots are done with what came of it.

        Args:
            duration: how long; or in the units of `timedelta`: `advance(days=1, hours=2)`.
            units: see there.

        Raises:
            StateError: the test runs in real time.
        """
        if virtual_loop() is None:
            raise StateError(REAL_TIME)
        seconds = (duration or timedelta(0)).total_seconds() + timedelta(**units).total_seconds()
        self._harness.be_patient(seconds)
        await anyio.sleep(seconds)
        await self.settle()

    async def restart(self) -> None:
        """Kill the bots' process as `kill -9` does, and start it again: only what is durable survives."""
        await self.kill()
        await self.start()

    async def kill(self) -> None:
        """Kill the bots' process as `kill -9` does; people can go on talking."""
        await self._harness.process.kill()

    async def stop(self) -> None:
        """Stop the bots' process as SIGTERM does: it finishes what is in hand; people can go on talking."""
        await self._harness.process.stop()
        self._harness.surface()

    async def start(self) -> None:
        """Start the bots' process again after `kill` or `stop`, and wait until it has caught up."""
        await self._harness.start()
        await self.settle()
