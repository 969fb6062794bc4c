"""The chat service interface that pollers, the outbox and commands use.

Every method raises a `ServiceError` whose class tells the caller how to proceed: `Throttled` (wait), `Unauthorized`,
`Forbidden`, `NotFound`, `Rejected` (do not repeat), `Unreachable` (certainly not done, safe to repeat),
`OutcomeUnknown` (perhaps done: read before repeating). No method retries by itself. One call is one request, or one
request per page, so that the callers' budgets count what the service counts. The only exception is a 401, which means
that nothing was done: the token is renewed and the call is repeated once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal, Protocol

from msgspec import Struct

from chatbot.errors import Forbidden, NotFound, ProtocolError, ServiceError
from chatbot.model import ChatMessage, MessageId, Participant, Receipt, Thread, ThreadId, ThreadItem, UserId


class MessagePage(Struct, frozen=True):
    """One page of `list_messages`, by descending version.

    Args:
        messages: the messages, newest change first; may be empty although there is a `next_link`.
        next_link: the link to the next page; None on the last one. Only its absence ends the listing.
        server_time: the service's `Date` header; None if there was none.
        tag: the hash of the answer; equal pages have equal tags, within one process.
        is_known: the page is the one that the caller knows: it was not decoded, and has neither messages nor a link.
    """

    messages: tuple[ChatMessage, ...]
    next_link: str | None
    server_time: datetime | None
    tag: int = 0
    is_known: bool = False


class ThreadPage(Struct, frozen=True):
    """One page of `list_chat_threads`, newest activity first; pages may be short, empty, or repeat a thread."""

    items: tuple[ThreadItem, ...]
    next_link: str | None
    server_time: datetime | None


class FailedParticipant(Struct, frozen=True):
    """A participant who could not be added, and the reason."""

    user: UserId
    code: str
    message: str


class CreatedThread(Struct, frozen=True):
    """A new thread, and the participants who could not be added to it."""

    thread: Thread
    failed: tuple[FailedParticipant, ...] = ()


MAX_PAGES: Final = 100_000
"""The maximum number of pages of a listing: 20 million messages. A longer listing is considered endless."""

MAX_PAGES_WITHOUT_NEWS: Final = 200
"""The maximum number of consecutive pages without new items. A few empty pages before others were recorded."""


class Paging:
    """Follows the links of one listing, and detects loops and endless listings.

    Args:
        operation: the operation, to complete "cannot …" in errors.
    """

    __slots__ = ("_followed", "_operation", "_pages_without_news")

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self._followed: set[int] = set()
        self._pages_without_news = 0

    def follow(self, link: str, *, is_news: bool) -> str:
        """Return the link to the next page if it may be followed.

        Args:
            link: the link on the last page.
            is_new: whether that page contained an item that no earlier page did.

        Raises:
            ProtocolError: the link leads to a page that was already read, or the listing is endless.
        """
        self._pages_without_news = 0 if is_news else self._pages_without_news + 1
        if hash(link) in self._followed:
            text = "the service's pages lead in a circle: a link leads back to a page that was read"
            msg = f"cannot {self._operation}: {text}"
            raise ProtocolError(msg)
        self._followed.add(hash(link))
        if self._pages_without_news >= MAX_PAGES_WITHOUT_NEWS or len(self._followed) >= MAX_PAGES:
            msg = f"cannot {self._operation}: the service's pages do not end"
            raise ProtocolError(msg)
        return link


def is_refusal(error: ServiceError) -> bool:
    """Return whether the service itself, and not an intermediate proxy, denies this user access to the thread.

    The service's error bodies contain the code that matches the status (recorded sessions, api-versions 2021 to 2025).
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
        """Create a thread that includes the own user; the same `repeatability_id` returns the same thread."""
        ...

    async def get_thread(self, thread: ThreadId) -> Thread:
        """Read a thread's properties."""
        ...

    async def delete_thread(self, thread: ThreadId) -> None:
        """Delete a thread for everyone."""
        ...

    async def update_topic(self, thread: ThreadId, topic: str) -> None:
        """Set a thread's topic."""
        ...

    async def list_threads(
        self, *, start_time: datetime | None = None, page_size: int | None = None, link: str | None = None
    ) -> ThreadPage:
        """Read one page of the user's threads: the first, or the one at `link`."""
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
        known: int | None = None,
    ) -> MessagePage:
        """Read one page of a thread's messages: the first, or the one at `link`.

        Args:
            start_time: a lower bound. It is unknown whether it applies to creation or change and whether it is
                inclusive: use it only to read less, never to decide what exists.
            page_size: 1 to 200.
            known: the tag of a page that the caller knows; if the service answers the same again, it is not decoded.
        """
        ...

    async def add_participants(
        self, thread: ThreadId, participants: Sequence[Participant]
    ) -> tuple[FailedParticipant, ...]:
        """Add participants; return those rejected by the service. Adding an existing participant is not an error."""
        ...

    async def remove_participant(self, thread: ThreadId, user: UserId) -> None:
        """Remove a participant; removing the own user leaves the thread."""
        ...

    def list_participants(self, thread: ThreadId) -> AsyncIterator[Participant]:
        """Iterate over the participants of a thread; raises `Forbidden` if the own user is not one of them."""
        ...

    async def send_receipt(self, thread: ThreadId, message: MessageId) -> None:
        """Mark all messages up to this one as read."""
        ...

    def list_receipts(self, thread: ThreadId) -> AsyncIterator[Receipt]:
        """Read the latest receipt of each reader; empty in threads of more than 20 people."""
        ...

    async def send_typing(self, thread: ThreadId, *, display_name: str | None = None) -> None:
        """Send a typing indicator; only clients with a real-time channel see it."""
        ...

    async def renew_token(self) -> None:
        """Get a new token now, regardless of the old one's expiry; call it after `Unauthorized`."""
        ...
