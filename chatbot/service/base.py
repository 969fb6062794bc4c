"""The protocol of a chat service as bots use it: pollers, the outbox and commands call it.

Every method raises a `ServiceError` whose class says what the caller can do: `Throttled` (wait), `Unauthorized`,
`Forbidden`, `NotFound`, `Rejected` (do not repeat), `Unreachable` (certainly not done, repeat freely),
`OutcomeUnknown` (perhaps done: read before repeating). No method retries by itself. One call is one request, or one
request per page, so that the callers' budgets count what the service counts. The one exception is a 401, which means
certainly not done: the token is renewed and the call is repeated, once.
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
        next_link: the link to the next page; None on the last one. Only its absence ends the listing.
        server_time: the service's Date header; None if it sent none.
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
    """A person who could not be added, and why."""

    user: UserId
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class CreatedThread:
    """A new thread, and who could not be added to it."""

    thread: Thread
    failed: tuple[FailedParticipant, ...] = ()


MAX_PAGES: Final = 100_000
"""Pages of one listing: 20 million messages. A listing that goes on after that has no end."""

MAX_PAGES_WITHOUT_NEWS: Final = 200
"""Pages in a row without anything new. Empty pages before others were recorded, but only a few of them."""


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
        """Return the link of the next page if it may be followed.

        Args:
            link: the link on the last page.
            is_news: whether that page showed anything that no page before it did.

        Raises:
            ProtocolError: the link leads back to a page that was read, or the pages have no end.
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
    """Return whether the service itself, and not a proxy on the way, denies this user the thread.

    The service's own error body has the code that belongs to the status (recorded sessions, api-versions 2021 to 2025).
    """
    if isinstance(error, Forbidden):
        return (error.code or "").lower() == "forbidden"
    return isinstance(error, NotFound) and (error.code or "").lower() == "notfound"


class ChatService(Protocol):
    """One user's view of the chat service."""

    @property
    def user(self) -> UserId:
        """The user of this view, for example the bot's."""
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
        """Send a message. There is no idempotency key: after `OutcomeUnknown`, read before repeating."""
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
        """Delete an own message; it stays listed as a tombstone."""
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
            start_time: a lower bound. It is unknown whether it applies to creation or change, and whether it is
                inclusive, so use it only to read less, never to decide what exists.
            page_size: 1 to 200.
        """
        ...

    async def add_participants(
        self, thread: ThreadId, participants: Sequence[Participant]
    ) -> tuple[FailedParticipant, ...]:
        """Add people; return those that the service refused. Adding somebody who is in already is no error."""
        ...

    async def remove_participant(self, thread: ThreadId, user: UserId) -> None:
        """Remove a person; removing the own user means leaving."""
        ...

    def list_participants(self, thread: ThreadId) -> AsyncIterator[Participant]:
        """Read who is in a thread, page by page; `Forbidden` if the own user is not."""
        ...

    async def send_receipt(self, thread: ThreadId, message: MessageId) -> None:
        """Mark everything up to this message as read."""
        ...

    def list_receipts(self, thread: ThreadId) -> AsyncIterator[Receipt]:
        """Read the latest receipt of each reader; empty in threads of more than 20 people."""
        ...

    async def send_typing(self, thread: ThreadId, *, display_name: str | None = None) -> None:
        """Send a typing indicator; only clients with a real-time channel see it."""
        ...

    async def renew_token(self) -> None:
        """Get a new token now, whatever the old one's expiry says; call it after `Unauthorized`."""
        ...
