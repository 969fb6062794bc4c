"""A room: one thread of a test's chat, the people who act in it, and what a test can assert about it.

People act through the official SDK, and each act returns when the bots have handled what came of it. A room sees the
rest of the chat only as a `RoomHost`, which the harness implements: the harness makes rooms, never the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from os import PathLike
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import anyio

from chatbot.emulator.records import Message
from chatbot.emulator.snapshots import find, save
from chatbot.errors import StateError, Throttled
from chatbot.model import MessageId, Participant, ThreadId, UserId
from chatbot.testing.process import BotMember, Failure
from chatbot.testing.transcripts import transcript
from chatbot.testing.virtual_time import virtual_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chatbot.emulator import Emulator
    from chatbot.service.base import ChatService
    from chatbot.stores.records import DeadLetter
    from chatbot.testing.process import BotProcess
    from chatbot.testing.transport import Stage

__tracebackhide__ = True  # pytest: what is of interest is the author's test and code

T = TypeVar("T")

ACT_SECONDS: Final = 1.0
"""How long an act takes on virtual time: versions are milliseconds, and people are not that fast."""

THROTTLED_SECONDS: Final = 10.0
"""How long a person waits before the next attempt when the service does not say."""

LONGEST_PAUSE: Final = 61.0
"""How long a person waits at most: the longest window of any quota is a minute."""


class ThreadMember(Protocol):
    """Anyone who can be in a room: a person or a bot."""

    @property
    def name(self) -> str:
        """The name that the others see."""
        ...

    @property
    def user(self) -> UserId:
        """The id on the service."""
        ...


class RoomHost(Protocol):
    """What a room needs of the chat that it belongs to."""

    stage: Stage
    process: BotProcess
    failures: list[Failure]
    dead_letters: list[DeadLetter]
    is_waiting: bool

    def open_room(self, topic: str) -> Room:
        """Return another room of the chat."""
        ...

    async def start(self) -> None:
        """Start the bots' process."""
        ...

    async def settle(self) -> None:
        """Wait for the bots in all rooms, then raise what their handlers raised."""
        ...

    def raise_failures(self) -> None:
        """Raise what handlers have raised since the last call."""
        ...

    def extend_deadline(self, seconds: float = 0.0) -> None:
        """Restart the deadline of the chat, plus some seconds."""
        ...


class Person:
    """A person in a room. Made by `Room.user`; enters with their first act.

    Every act goes through the official SDK to the emulator in this process, and returns when all running bots have
    handled what came of it and have nothing left to send. A handler that failed meanwhile fails the act.

    Args:
        room: the room they act in.
        name: the name that the others see.
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
        """The person's own client of the service, for acts that have no method here."""
        return self._room.stage.service_of(self.user)

    async def says(self, *texts: str, html: bool = False) -> MessageId:
        """Send one message per text, each after the bots have handled the one before.

        Args:
            texts: at least one.
            html: send them as HTML.

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
        """Edit a message: their last one, unless another is given."""
        edited = self._message(message)
        await self._act(lambda: self.service.edit_message(self._room.thread, edited, content=text))

    async def deletes(self, message: MessageId | None = None) -> None:
        """Delete a message: their last one, unless another is given."""
        deleted = self._message(message)
        await self._act(lambda: self.service.delete_message(self._room.thread, deleted))

    async def reads(self, message: MessageId | None = None) -> None:
        """Send a read receipt: for the latest message of somebody else, unless another is given."""
        read = message or self._room.latest_for(self.user)
        await self._act(lambda: self.service.send_receipt(self._room.thread, read))

    async def types(self) -> None:
        """Send a typing notification."""
        await self._act(lambda: self.service.send_typing(self._room.thread, display_name=self.name))

    async def renames(self, topic: str) -> None:
        """Change the topic of the thread."""
        await self._act(lambda: self.service.update_topic(self._room.thread, topic))

    async def joins(self) -> None:
        """Enter the room: the first person creates the thread with the bots in it, others are added."""
        await self._room.add_person(self, rejoins=True)
        await self._room.settle()

    async def leaves(self) -> None:
        """Leave the room."""
        await self.removes(self)

    async def adds(self, *members: ThreadMember) -> None:
        """Add people or bots."""
        newcomers = [Participant(member.user, member.name) for member in members]
        failed = await self._act(lambda: self.service.add_participants(self._room.thread, newcomers))
        if failed:
            msg = f"{self.name} could not add {failed}"
            raise StateError(msg)

    async def removes(self, member: ThreadMember) -> None:
        """Remove a person or a bot."""
        await self._act(lambda: self.service.remove_participant(self._room.thread, member.user))

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
        """Call the service, then wait for the bots."""
        await self._room.add_person(self, rejoins=False)
        if virtual_loop() is not None:
            await anyio.sleep(ACT_SECONDS)
        done = await retry_throttled(act)
        await self._room.settle()
        return done


async def retry_throttled(act: Callable[[], Awaitable[T]]) -> T:
    """Call the service, again and again while it throttles."""
    longer = 1
    while True:
        try:
            return await act()
        except Throttled as throttled:
            # Refused calls count, too: after pauses of the same length the quota would never be free again.
            pause = (throttled.retry_after or THROTTLED_SECONDS) * longer
            await anyio.sleep(min(pause, LONGEST_PAUSE))
            longer *= 2


REAL_TIME: Final = (
    "advance() needs virtual time, and this test runs in real time: mark it @pytest.mark.virtual_time (or its module: "
    "pytestmark = pytest.mark.virtual_time), or take the fixture virtual_time"
)


class Room:
    """One thread of a chat. The first person who acts in it creates it, with all bots in it.

    Made by `chat` and by `another`.
    """

    def __init__(self, host: RoomHost, topic: str, thread: ThreadId | None = None) -> None:
        self._host = host
        self._topic = topic
        self._thread = thread
        self._people: dict[str, Person] = {}
        self._entry_lock = anyio.Lock()
        if thread is not None:
            self._meet(thread)

    # ── who is there ──────────────────────────────────────────────────────────────────────────────────────────

    def user(self, name: str) -> Person:
        """Return the person of this name: the same at each call, and the same user in every room of the chat."""
        if name not in self._people:
            self._people[name] = Person(self, name, self.stage.person(name))
        return self._people[name]

    @property
    def bot(self) -> BotMember:
        """The bot, or the first of several."""
        return next(iter(self.bots.values()))

    @property
    def bots(self) -> Mapping[str, BotMember]:
        """All bots of the chat by name; people can add and remove them."""
        return self._host.process.members

    # ── what can be asserted ──────────────────────────────────────────────────────────────────────────────────

    @property
    def replies(self) -> list[str]:
        """The bots' messages with their current texts, oldest first, without deleted ones."""
        bots = {guest.user for guest in self.bots.values()}
        return [message.text for message in self._living() if message.sender in bots]

    @property
    def said(self) -> list[tuple[str, str]]:
        """Name and text of all messages of people and bots, oldest first, without deleted ones."""
        return [(self._name(message.sender), message.text) for message in self._living()]

    @property
    def people(self) -> list[str]:
        """The names of all who are in the room, bots included, in the order in which they entered."""
        return [self._name(member.user) for member in self.emulator.participants(self.thread)]

    @property
    def read(self) -> dict[str, str]:
        """By name: the text of the message of each member's latest read receipt."""
        texts = {message.id: message.text for message in self.messages}
        receipts = self.emulator.receipts(self.thread).values()
        return {self._name(receipt.user): texts[receipt.message] for receipt in receipts}

    @property
    def messages(self) -> Sequence[Message]:
        """All messages as the service has them, oldest first, including deleted ones and system messages."""
        return [] if self._thread is None else self.stage.messages(self._thread)

    @property
    def failures(self) -> list[Failure]:
        """Every failed attempt of a handler, in all rooms: for chats with `raise_failures=False`."""
        return list(self._host.failures)

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """The bots' dead letters, in all rooms: events that failed for good, and actions the service refused.

        Each has the `event`, the `handler`, the `error` and the number of `attempts`.
        """
        return list(self._host.dead_letters)

    @property
    def transcript(self) -> str:
        """The whole conversation as text."""
        return transcript(self.messages, self.stage.names)

    def latest_for(self, user: UserId) -> MessageId:
        """Return the id of the latest message of somebody else than this user."""
        others = [message for message in self.messages if not message.is_system and message.sender != user]
        if not others:
            msg = "nobody else has said anything yet that could be read"
            raise StateError(msg)
        return MessageId(str(others[-1].id))

    def _living(self) -> list[Message]:
        return [message for message in self.messages if not message.is_system and message.deleted is None]

    def _name(self, user: str) -> str:
        return self.stage.names.get(user, user)

    # ── the service ────────────────────────────────────────────────────────────────────────────────────

    @property
    def thread(self) -> ThreadId:
        """The thread on the service.

        Raises:
            StateError: nobody has entered yet.
        """
        if self._thread is None:
            msg = "nobody is in the room yet: let somebody say something, or join (await ann.joins())"
            raise StateError(msg)
        return self._thread

    @property
    def is_open(self) -> bool:
        """Whether anybody has entered."""
        return self._thread is not None

    @property
    def emulator(self) -> Emulator:
        """The service, to add faults and to read its calls (`emulator.calls`)."""
        return self.stage.emulator

    @property
    def process(self) -> BotProcess:
        """The process of the bots, with its `bots` and its `store`."""
        return self._host.process

    @property
    def stage(self) -> Stage:
        """The clients of all users of the service."""
        return self._host.stage

    def another(self, topic: str = "another room") -> Room:
        """Return another room, a second thread with the same bots, for the same people or others.

        Args:
            topic: of the thread; a thread of this topic in the snapshot of the chat is continued.
        """
        return self._host.open_room(topic)

    async def add_person(self, person: Person, *, rejoins: bool) -> None:
        """Add a person who was never in the room; with `anew`, also one who has left."""
        async with self._entry_lock:
            if self._thread is None:
                await self._open(person)
            elif self._is_absent(person.user, rejoins=rejoins):
                await self._add_person(person)
            else:
                return
        await self.settle()

    def _meet(self, thread: ThreadId) -> None:
        """Know the people of a thread that was there before, so that one of them can let others in."""
        bots = {bot.user for bot in self.bots.values()}
        for member in self.emulator.participants(thread):
            name = self.stage.names.get(member.user)
            if name is not None and member.user not in bots and self.stage.person(name) == member.user:
                self.user(name)

    def _is_absent(self, user: UserId, *, rejoins: bool) -> bool:
        members = self.emulator.world.state.room(self.thread).members
        return not self.stage.is_in(self.thread, user) and (rejoins or user not in members)

    async def _open(self, person: Person) -> None:
        everybody: list[ThreadMember] = [person, *self.bots.values()]
        participants = [Participant(guest.user, guest.name) for guest in everybody]
        created = await retry_throttled(lambda: person.service.create_thread(self._topic, participants))
        self._thread = created.thread.id

    async def _add_person(self, person: Person) -> None:
        present = (person for person in self._people.values() if self.stage.is_in(self.thread, person.user))
        host = next(present, None)
        if host is None:
            msg = f"nobody is left in the room who could add {person.name}: somebody has to stay, or use another"
            raise StateError(msg)
        guest = Participant(person.user, person.name)
        await retry_throttled(lambda: host.service.add_participants(self.thread, [guest]))

    async def save_snapshot(self, snapshot: str | PathLike[str]) -> None:
        """Save the state of the service, for `chat(snapshot=…)` and `chatbot emulator --snapshot`.

        Args:
            snapshot: a name, or a file that ends in `.snapshot`, such as one beside the test.

        Raises:
            SnapshotError: it cannot be written.
        """
        await save(self.emulator.world, find(snapshot))

    # ── time and process ──────────────────────────────────────────────────────────────────────────────────────

    async def settle(self) -> None:
        """Wait until all running bots have handled everything in all rooms and have nothing left to send.

        Raises:
            Exception: what a handler raised meanwhile, unless the chat has `raise_failures=False`.
        """
        await self._host.settle()

    @contextmanager
    def not_waiting(self) -> Iterator[None]:
        """Let acts inside this block return at once: for services that are away, and bots that are slow."""
        was_waiting, self._host.is_waiting = self._host.is_waiting, False
        try:
            yield
        finally:
            self._host.is_waiting = was_waiting

    async def advance(self, duration: timedelta | None = None, **units: float) -> None:
        """Advance virtual time, and wait until the bots have handled what is due.

        Args:
            duration: how long; or in the units of `timedelta`: `advance(days=1, hours=2)`.
            units: keyword arguments of `timedelta`.

        Raises:
            StateError: the test runs in real time.
        """
        if virtual_loop() is None:
            raise StateError(REAL_TIME)
        seconds = (duration or timedelta(0)).total_seconds() + timedelta(**units).total_seconds()
        self._host.extend_deadline(seconds)
        await anyio.sleep(seconds)
        await self.settle()

    async def restart(self) -> None:
        """Kill the bots' process as `kill -9` does, and start it again: only what is stored survives."""
        await self.kill()
        await self.start()

    async def kill(self) -> None:
        """Kill the bots' process as `kill -9` does; people can continue to talk."""
        await self._host.process.kill()

    async def stop(self) -> None:
        """Stop the bots' process as SIGTERM does: it finishes running handlers; people can continue to talk."""
        await self._host.process.stop()
        self._host.raise_failures()

    async def start(self) -> None:
        """Start the bots' process again after `kill` or `stop`, and wait until it has caught up."""
        await self._host.start()
        await self.settle()
