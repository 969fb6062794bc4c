"""Direct access to the world without HTTP, for tests and demos: create users, send messages, read the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from chatbot.emulator.cursors import precise_time
from chatbot.emulator.identities import Token
from chatbot.emulator.messages import Draft
from chatbot.emulator.participants import Invited
from chatbot.emulator.records import Member, Message, MessageAttachment, ReceiptEntry, Typing
from chatbot.emulator.threads import Plan, ThreadChange
from chatbot.emulator.world import World


class UserDirectory:
    """A world with a clock, and methods for the actions of its users."""

    def __init__(self, world: World, clock: Callable[[], float]) -> None:
        self.world = world
        self.clock = clock
        self.offset_seconds = 0.0

    def now(self) -> int:
        """Return the world's time in epoch milliseconds: the clock plus the configured offset."""
        return int((self.clock() + self.offset_seconds) * 1000)

    def iso_now(self) -> str:
        """Return the world's time as ISO 8601."""
        return precise_time(self.now())

    def create_user(self) -> str:
        """Create a user; return its id."""
        return self.world.identities.create(self.now()).id

    def issue_token(self, user: str, scopes: Sequence[str] = ("chat",), minutes: int = 1440) -> Token:
        """Issue a token for a user."""
        return self.world.identities.issue(user, scopes, minutes, self.now())

    def revoke_tokens(self, user: str) -> None:
        """Revoke a user's tokens."""
        self.world.identities.revoke(user, self.now())

    def delete_user(self, user: str) -> None:
        """Delete a user, who leaves all threads."""
        self.world.delete_user(user, self.now())

    def create_thread(
        self,
        creator: str,
        topic: str = "thread",
        others: Sequence[str] = (),
        *,
        names: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Create a thread; return its id. `names` are display names by user."""
        names = names or {}
        people = tuple(Invited(user, names.get(user)) for user in (creator, *others))
        plan = Plan(topic, people, metadata=metadata or {})
        return self.world.threads.create(creator, plan, self.now())[0].head.id

    def set_topic(self, thread: str, editor: str, topic: str) -> None:
        """Change a thread's topic."""
        self.world.threads.update(thread, editor, self.now(), ThreadChange(topic))

    def delete_thread(self, thread: str, deleter: str) -> None:
        """Delete a thread."""
        self.world.threads.delete(thread, deleter, self.now())

    def send(
        self,
        thread: str,
        sender: str,
        content: str,
        *,
        type: str = "text",
        display_name: str = "",
        metadata: Mapping[str, str] | None = None,
        images: Sequence[str] = (),
    ) -> int:
        """Send a message as a participant, with images of `upload_image` as attachments; its id."""
        room, now = self.world.room(thread, self.now()), self.now()
        attachments = tuple(MessageAttachment(image, "image") for image in images)
        draft = Draft(content, type, display_name, metadata, attachments)
        return self.world.messages.send(room, sender, draft, now).id

    def upload_image(self, thread: str, sender: str, content: bytes, name: str = "") -> str:
        """Store an image in a thread; its id, which html names as that of an `img`."""
        return self.world.images.upload(self.world.room(thread, self.now()), sender, content, name).id

    def edit(
        self,
        thread: str,
        editor: str,
        message: int,
        content: str | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Edit a message."""
        self.world.messages.edit(self.world.room(thread, self.now()), editor, message, content, metadata, self.now())

    def delete(self, thread: str, deleter: str, message: int) -> None:
        """Delete a message."""
        self.world.messages.delete(self.world.room(thread, self.now()), deleter, message, self.now())

    def add(
        self,
        thread: str,
        initiator: str,
        *users: str,
        display_name: str | None = None,
        share_history: int = 0,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Add people to a thread."""
        invited = [Invited(user, display_name, share_history, metadata or {}) for user in users]
        self.world.participants.add(self.world.room(thread, self.now()), initiator, invited, self.now())

    def remove(self, thread: str, initiator: str, user: str) -> None:
        """Remove a participant from a thread, or leave it."""
        self.world.participants.remove(self.world.room(thread, self.now()), initiator, user, self.now())

    def read(self, thread: str, reader: str, message: int) -> None:
        """Send a read receipt."""
        self.world.receipts.send(self.world.room(thread, self.now()), reader, message, self.now())

    def type(self, thread: str, typist: str, display_name: str = "") -> None:
        """Send a typing notification."""
        self.world.receipts.type(self.world.room(thread, self.now()), typist, display_name, self.now())

    def transcript(self, thread: str) -> list[Message]:
        """Return all messages of a thread by creation, including tombstones and system messages."""
        return [message for _, message in sorted(self.world.state.room(thread).messages.items())]

    def texts(self, thread: str) -> list[tuple[str, str]]:
        """Return sender and content of every message of people that is not deleted, oldest first."""
        return [
            (message.sender, message.text)
            for message in self.transcript(thread)
            if not message.is_system and message.deleted is None
        ]

    def participants(self, thread: str) -> list[Member]:
        """Return the participants of a thread."""
        return self.world.state.room(thread).present()

    def receipts(self, thread: str) -> dict[str, ReceiptEntry]:
        """Return the latest receipt of each user."""
        return dict(self.world.state.room(thread).receipts)

    def typing(self, thread: str) -> list[Typing]:
        """Return the latest typing notifications in a thread, oldest first."""
        return [typing for typing in self.world.receipts.typing if typing.thread == thread]

    def threads(self) -> list[str]:
        """Return all thread ids, oldest first."""
        return list(self.world.state.rooms)
