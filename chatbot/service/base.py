"""What any chat service promises a bot, in our words. Who calls it: pollers, the doorbell, the outbox, commands.

Every method raises a `ErrorResponse` whose class says what the caller can do: `Throttled` (wait), `Unauthorized`,
`Forbidden`, `NotFound`, `Rejected` (do not repeat), `Unreachable` (certainly not done, repeat freely),
`OutcomeUnknown` (perhaps done: read before repeating). No method retries by itself: one call is one request
(or one request per page), so that the callers' budgets count what the service counts. The one exception is a 401, which
means certainly not done: the token is renewed and the call repeated, once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol

from chatbot.errors import Forbidden, NotFound, ProtocolError, ServiceError
from chatbot.model import ChatMessage, MessageId, Participant, Receipt, Thread, ThreadId, ThreadItem, UserId


@dataclass(frozen=True, slots=True)
class MessagePage:
    """One page of `list_messages`, by descending version.

    Args:
        messages: newest change first; may be empty although a `next_link` follows.
        next_link: where the next page is; None on the last. Only its absence ends the paging.
        server_time: the service's Date header; None where it sent none.
    """

    messages: tuple[ChatMessage, ...]
    next_link: str | None
    server_time: datetime | None


@dataclass(frozen=True, slots=True)
class ThreadPage:
    """One page of `list_chat_threads`, newest activity first; pages may be short, empty, or repeat a thread."""

    items: tuple[ThreadItem, ...]
    next_link: str | None
    server_time: datetime | None


@dataclass(frozen=True, slots=True)
class FailedParticipant:
    """Someone who could not be added, and why."""

    user: UserId
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class CreatedThread:
    """A new thread, and whom it could not take in."""

    thread: Thread
    failed: tuple[FailedParticipant, ...] = ()


MAX_PAGES: Final = 100_000
"""Pages of one listing: 20 million messages. What goes on after that has no end."""

MAX_PAGES_WITHOUT_NEWS: Final = 200
"""Pages in a row that show nothing new. Empty pages before others are recorded, though not more than a few."""


class Paging:
    """Follows the links of one listing, and notices when they lead nowhere.

    Args:
        operation: what is listed, to complete "cannot …".
    """

    __slots__ = ("_barren", "_followed", "_operation")

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self._followed: set[int] = set()
        self._barren = 0

    def follow(self, link: str, *, is_news: bool) -> str:
        """Give the link of the next page back if it may be followed.

        Args:
            link: what the last page names.
            is_news: whether that page showed anything that none before it did.

        Raises:
            ProtocolError: it leads back to a page that was read, or there is no end to it.
        """
        self._barren = 0 if is_news else self._barren + 1
        if hash(link) in self._followed:
            text = "the service's pages lead in a circle: a link leads back to a page that was read"
            msg = f"cannot {self._operation}: {text}"
            raise ProtocolError(msg)
        self._followed.add(hash(link))
        if self._barren >= MAX_PAGES_WITHOUT_NEWS or len(self._followed) >= MAX_PAGES:
            msg = f"cannot {self._operation}: the service's pages have no end"
            raise ProtocolError(msg)
        return link


def is_refusal(error: ServiceError) -> bool:
    """Whether the service itself, and nobody on the way to it, says that the thread is not for this user.

    The service's envelope has the code that belongs to the status (recorded sessions, api-versions 2021 to 2025).
    """
    if isinstance(error, Forbidden):
        return (error.code or "").lower() == "forbidden"
    return isinstance(error, NotFound) and (error.code or "").lower() == "notfound"


class ChatService(Protocol):
    """One user's view of the chat service."""

    @property
    def user(self) -> UserId:
        """Whose view this is: the bot's own user."""
        ...

    async def create_thread(
        self, topic: str, participants: Sequence[Participant] = (), *, repeatability_id: str | None = None
    ) -> CreatedThread:
        """Create a thread; the same `repeatability_id` gives the same thread again. Own user is a member."""
        ...

    async def get_thread(self, thread: ThreadId) -> Thread:
        """Read a thread's properties."""
        ...

    async def delete_thread(self, thread: ThreadId) -> None:
        """Delete a thread for everyone."""
        ...

    async def update_topic(self, thread: ThreadId, topic: str) -> None:
        """Give a thread another topic."""
        ...

    async def list_threads(
        self, *, start_time: datetime | None = None, page_size: int | None = None, link: str | None = None
    ) -> ThreadPage:
        """Read one page of the user's threads: the first one, or the one behind `link`."""
        ...

    async def send_message(
        self,
        thread: ThreadId,
        content: str,
        *,
        type: Literal["text", "html"] = "text",
        display_name: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> MessageId:
        """Say something. There is no idempotency key: after `OutcomeUnknown`, read before repeating."""
        ...

    async def edit_message(
        self,
        thread: ThreadId,
        message: MessageId,
        *,
        content: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Replace an own message's content; `metadata` is merged key by key by the service."""
        ...

    async def delete_message(self, thread: ThreadId, message: MessageId) -> None:
        """Take an own message back; it stays listed as a tombstone."""
        ...

    async def get_message(self, thread: ThreadId, message: MessageId) -> ChatMessage:
        """Read one message."""
        ...

    async def list_messages(
        self,
        thread: ThreadId,
        *,
        start_time: datetime | None = None,
        page_size: int | None = None,
        link: str | None = None,
    ) -> MessagePage:
        """Read one page of a thread: the first one, or the one behind `link`.

        Args:
            start_time: a lower bound; whether on creation or change, inclusive or not, is not known, so it may
                only ever be used to read less, never to decide what exists.
            page_size: 1 to 200.
        """
        ...

    async def add_participants(
        self, thread: ThreadId, participants: Sequence[Participant]
    ) -> tuple[FailedParticipant, ...]:
        """Bring people in; returns those that the service refused. Whoever is in already stays, without error."""
        ...

    async def remove_participant(self, thread: ThreadId, user: UserId) -> None:
        """Take someone out; the own user leaves."""
        ...

    def list_participants(self, thread: ThreadId) -> AsyncIterator[Participant]:
        """Read who is in a thread, page by page; `Forbidden` when the own user is not."""
        ...

    async def send_receipt(self, thread: ThreadId, message: MessageId) -> None:
        """Tell the others that everything up to this message was read."""
        ...

    def list_receipts(self, thread: ThreadId) -> AsyncIterator[Receipt]:
        """Read the latest receipt of each reader; empty in threads of more than 20 people."""
        ...

    async def send_typing(self, thread: ThreadId, *, display_name: str | None = None) -> None:
        """Show that something is being written; seen by the SDKs that have a real-time channel."""
        ...

    async def renew_token(self) -> None:
        """Get a new token now, whatever the old one's expiry says: the remedy after `Unauthorized`."""
        ...
