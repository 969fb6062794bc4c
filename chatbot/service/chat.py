"""The chat service for one user, on the aio clients of the official SDK. The SDK sends requests; we parse responses.

A single thread client of the SDK serves all threads. One per thread would take five kilobytes each, and the only state
of such a client is the thread id in its addresses, which our policy replaces. `AcsResource.chat` creates a view.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, TypeVar, cast
from urllib.parse import urlsplit

from azure.communication.chat.aio import ChatClient, CommunicationTokenCredential
from azure.core.async_paging import AsyncItemPaged
from azure.core.exceptions import AzureError
from azure.core.pipeline import AsyncPipeline
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.core.pipeline.transport import AsyncHttpResponse, HttpRequest

from chatbot.errors import OutcomeUnknown, ProtocolError
from chatbot.model import ChatMessage, MessageId, Participant, Receipt, Thread, ThreadId, UserId
from chatbot.service import arguments, failures, translate
from chatbot.service.base import CreatedThread, FailedParticipant, MessagePage, Paging, ThreadPage
from chatbot.service.credentials import TokenSource
from chatbot.service.policies import ANY_THREAD, Answer, current_answer

T = TypeVar("T")

PAGE_SIZE: Final = 100
"""Participants or receipts per page; the service's default is not documented."""

_UNUSED: Final[SansIOHTTPPolicy[Any, Any]] = SansIOHTTPPolicy()
_SHARED: Final[Mapping[str, Any]] = dict.fromkeys(
    (
        "user_agent_policy",
        "headers_policy",
        "proxy_policy",
        "logging_policy",
        "http_logging_policy",
        "custom_hook_policy",
        "redirect_policy",
        "retry_policy",
    ),
    _UNUSED,
)
"""Placeholders for policies that a client would otherwise build although it is given a pipeline."""


class AcsChatService:
    """The chat service for one user; implements `ChatService`.

    Args:
        user: the user.
        endpoint: the resource's endpoint.
        tokens: the user's tokens.
        pipeline: sends every request; ends in a `ChatPolicy`, which fills the `Answer` of each call.
    """

    def __init__(
        self,
        user: UserId,
        endpoint: str,
        tokens: TokenSource,
        pipeline: AsyncPipeline[HttpRequest, AsyncHttpResponse],
    ) -> None:
        self._user = user
        self._tokens = tokens
        options: Mapping[str, Any] = {**_SHARED, "policies": [], "pipeline": pipeline}
        # The SDK declares its own class, but accepts any object with `get_token`, and never calls ours.
        self._client = ChatClient(endpoint, cast(CommunicationTokenCredential, tokens), **options)
        self._any_thread = self._client.get_chat_thread_client(ANY_THREAD, **options)
        # Most calls list messages. The listing is kept, because making one takes a tenth of a call.
        self._messages = self._any_thread.list_messages()
        # The first page is loaded by its address, as from a link: the SDK takes longer to put that together each time.
        self._first_page = f"{endpoint}/chat/threads/{ANY_THREAD}/messages"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._user}>"

    @property
    def user(self) -> UserId:
        """Return the user of this view."""
        return self._user

    async def renew_token(self) -> None:
        """Get a new token now."""
        await self._tokens.renew()

    # Threads

    async def create_thread(
        self, topic: str, participants: Sequence[Participant] = (), *, repeatability_id: str | None = None
    ) -> CreatedThread:
        """Create a thread (POST /chat/threads)."""
        answer = Answer("create a thread")
        people = [arguments.invited(person) for person in participants]
        with _sdk(answer, is_write=True):
            await self._client.create_chat_thread(
                arguments.required(topic, "a topic", answer.operation),
                thread_participants=people,
                idempotency_token=repeatability_id,
                answer=answer,
            )
            return translate.created(answer.body, participants)

    async def get_thread(self, thread: ThreadId) -> Thread:
        """Read a thread's properties (GET /chat/threads/{id})."""
        answer = _about(thread, f"read thread {thread}")
        with _sdk(answer):
            await self._any_thread.get_properties(answer=answer)
            return translate.thread(answer.body)

    async def delete_thread(self, thread: ThreadId) -> None:
        """Delete a thread for everyone (DELETE /chat/threads/{id})."""
        answer = _about(thread, f"delete thread {thread}")
        with _sdk(answer, is_write=True):
            await self._client.delete_chat_thread(ANY_THREAD, answer=answer)

    async def update_topic(self, thread: ThreadId, topic: str) -> None:
        """Set a thread's topic (PATCH /chat/threads/{id})."""
        answer = _about(thread, f"set the topic of thread {thread}")
        with _sdk(answer, is_write=True):
            await self._any_thread.update_topic(arguments.required(topic, "a topic", answer.operation), answer=answer)

    async def list_threads(
        self, *, start_time: datetime | None = None, page_size: int | None = None, link: str | None = None
    ) -> ThreadPage:
        """Read one page of the user's threads (GET /chat/threads)."""
        answer = Answer("list the threads", is_passed_on=True)
        with _sdk(answer):
            listing = self._client.list_chat_threads(
                start_time=arguments.aware(start_time), params=_sized(page_size), answer=answer
            )
            await _load_page(listing, link)
            items, next_link = translate.threads(answer.body)
            return ThreadPage(items, next_link, answer.server_time)

    # Messages

    async def send_message(
        self,
        thread: ThreadId,
        content: str,
        *,
        type: Literal["text", "html"] = "text",
        display_name: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> MessageId:
        """Send a message (POST /chat/threads/{id}/messages)."""
        answer = _about(thread, f"send a message to thread {thread}", is_passed_on=True)
        with _sdk(answer, is_write=True):
            await self._any_thread.send_message(
                arguments.required(content, "a text", answer.operation),
                chat_message_type=type,
                sender_display_name=display_name,
                metadata=dict(metadata) if metadata else None,  # type: ignore[arg-type]  # the SDK's default is None
                answer=answer,
            )
            return translate.sent(answer.body)

    async def edit_message(
        self,
        thread: ThreadId,
        message: MessageId,
        *,
        content: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Replace content, merge metadata (PATCH /chat/threads/{id}/messages/{id})."""
        answer = _about(thread, f"edit message {message} of thread {thread}")
        with _sdk(answer, is_write=True):
            await self._any_thread.update_message(
                arguments.decimal(message, answer.operation),
                content,  # type: ignore[arg-type]  # the SDK's default is None
                metadata=dict(metadata) if metadata is not None else None,  # type: ignore[arg-type]
                answer=answer,
            )

    async def delete_message(self, thread: ThreadId, message: MessageId) -> None:
        """Delete a message (DELETE /chat/threads/{id}/messages/{id})."""
        answer = _about(thread, f"delete message {message} of thread {thread}")
        with _sdk(answer, is_write=True):
            await self._any_thread.delete_message(arguments.decimal(message, answer.operation), answer=answer)

    async def get_message(self, thread: ThreadId, message: MessageId) -> ChatMessage:
        """Read one message (GET /chat/threads/{id}/messages/{id})."""
        answer = _about(thread, f"read message {message} of thread {thread}")
        with _sdk(answer):
            await self._any_thread.get_message(arguments.decimal(message, answer.operation), answer=answer)
            return translate.message(answer.body)

    async def list_messages(
        self,
        thread: ThreadId,
        *,
        start_time: datetime | None = None,
        page_size: int | None = None,
        link: str | None = None,
        known: int | None = None,
    ) -> MessagePage:
        """Read one page of a thread (GET /chat/threads/{id}/messages)."""
        answer = _about(thread, f"list the messages of thread {thread}", is_passed_on=True)
        # Not through the SDK, which takes a twentieth of the call to format them.
        if start_time is not None:
            answer.query = f"&startTime={arguments.quoted_time(start_time)}"
        if page_size is not None:
            answer.query += f"&maxPageSize={page_size}"
        with _sdk(answer):
            outer = current_answer.set(answer)
            try:
                await _load_page(self._messages, link or self._first_page)
            finally:
                current_answer.reset(outer)
            tag = hash(answer.body)  # keyed by the process: nobody can make two pages with the same one
            if tag == known:
                return MessagePage((), None, answer.server_time, tag, is_known=True)
            messages, next_link = translate.messages(answer.body)
            return MessagePage(messages, next_link, answer.server_time, tag)

    # Participants, receipts, typing

    async def add_participants(
        self, thread: ThreadId, participants: Sequence[Participant]
    ) -> tuple[FailedParticipant, ...]:
        """Add participants (POST /chat/threads/{id}/participants/:add); an empty sequence makes no request."""
        if not participants:
            return ()
        answer = _about(thread, f"add participants to thread {thread}")
        with _sdk(answer, is_write=True):
            people = [arguments.invited(person) for person in participants]
            await self._any_thread.add_participants(people, answer=answer)
            return translate.failed(answer.body, participants)

    async def remove_participant(self, thread: ThreadId, user: UserId) -> None:
        """Remove a participant (POST /chat/threads/{id}/participants/:remove)."""
        answer = _about(thread, f"remove {user} from thread {thread}")
        with _sdk(answer, is_write=True):
            await self._any_thread.remove_participant(arguments.identifier(user), answer=answer)

    async def list_participants(self, thread: ThreadId) -> AsyncIterator[Participant]:
        """Iterate over the participants of a thread (GET /chat/threads/{id}/participants), one request per page."""
        answer = _about(thread, f"list the participants of thread {thread}", is_passed_on=True)
        listing = self._any_thread.list_participants(results_per_page=PAGE_SIZE, answer=answer)
        async for person in _all_pages(listing, answer, translate.participants):
            yield person

    async def send_receipt(self, thread: ThreadId, message: MessageId) -> None:
        """Mark all messages up to this one as read (POST /chat/threads/{id}/readReceipts)."""
        answer = _about(thread, f"send a receipt to thread {thread}")
        with _sdk(answer, is_write=True):
            await self._any_thread.send_read_receipt(arguments.decimal(message, answer.operation), answer=answer)

    async def list_receipts(self, thread: ThreadId) -> AsyncIterator[Receipt]:
        """Read the latest receipt of each reader (GET /chat/threads/{id}/readReceipts), one request per page."""
        answer = _about(thread, f"list the receipts of thread {thread}", is_passed_on=True)
        listing = self._any_thread.list_read_receipts(results_per_page=PAGE_SIZE, answer=answer)
        async for receipt in _all_pages(listing, answer, translate.receipts):
            yield receipt

    async def send_typing(self, thread: ThreadId, *, display_name: str | None = None) -> None:
        """Send a typing indicator (POST /chat/threads/{id}/typing)."""
        answer = _about(thread, f"send typing to thread {thread}")
        with _sdk(answer, is_write=True):
            await self._any_thread.send_typing_notification(sender_display_name=display_name, answer=answer)


def _about(thread: ThreadId, operation: str, *, is_passed_on: bool = False) -> Answer:
    arguments.segment(thread, "thread id", operation)
    return Answer(operation, thread, is_passed_on=is_passed_on)


def _sized(page_size: int | None) -> dict[str, str]:
    """Return the page size as a query parameter.

    The SDK's own `results_per_page` takes a tenth of the time of a call, because it formats the number with `eval`.
    """
    return {} if page_size is None else {"maxPageSize": str(page_size)}


class _sdk:  # noqa: N801 - used like a function; a generator in its place would cost 2 µs of every call
    """Convert the SDK's errors about a response to ours; the policy converts all others.

    A successful response that cannot be decoded is a `ProtocolError` for a read. For a write it is an `OutcomeUnknown`:
    the service may have done it, and repeating it without reading first could do it twice.
    """

    __slots__ = ("_answer", "_is_write")

    def __init__(self, answer: Answer, *, is_write: bool = False) -> None:
        self._answer = answer
        self._is_write = is_write

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None or not isinstance(error, AzureError | ProtocolError):
            return
        operation = self._answer.operation
        reason = failures.clean(str(error)) if isinstance(error, AzureError) else str(error)
        if self._is_write:
            msg = f"cannot tell whether it was done to {operation}: {reason}"
            raise OutcomeUnknown(msg) from error
        msg = reason if operation in reason else f"cannot {operation}: {reason}"
        raise ProtocolError(msg) from error


async def _load_page(listing: AsyncItemPaged[Any], link: str | None) -> None:
    """Load one page into the `Answer` that the listing was made with."""
    if link is not None and not _is_address(link):
        msg = "the link to the next page is not an address"
        raise ProtocolError(msg)
    await anext(listing.by_page(continuation_token=link))


async def _all_pages(
    listing: AsyncItemPaged[Any], answer: Answer, read: Callable[[bytes], translate.Page[T]]
) -> AsyncIterator[T]:
    link: str | None = None
    paging, known = Paging(answer.operation), 0
    seen = set[T]()
    while True:
        with _sdk(answer):
            await _load_page(listing, link)
            values, link = read(answer.body)
        for value in values:
            yield value
        if link is None:
            return
        seen.update(values)
        link = paging.follow(link, is_news=len(seen) > known)
        known = len(seen)


def _is_address(link: str) -> bool:
    try:
        return bool(urlsplit(link).path)
    except ValueError:
        return False
