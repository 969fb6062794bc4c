"""Service and token wrappers that count calls and record token expiry."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal

from chatbot.errors import ServiceError
from chatbot.model import ChatMessage, MessageId, Participant, Receipt, Thread, ThreadId, UserId
from chatbot.runtime.observe.counters import BotCounters
from chatbot.service.base import ChatService, CreatedThread, FailedParticipant, MessagePage, ThreadPage
from chatbot.service.credentials import TokenSource


class CountedTokens:
    """Token source that records the expiry of each token.

    Args:
        tokens: The source to delegate to.
        counters: Where the expiry is recorded.
    """

    def __init__(self, tokens: TokenSource, counters: BotCounters) -> None:
        self._tokens = tokens
        self._counters = counters

    async def get_token(self, *scopes: str, **kwargs: Any) -> Any:
        """Return a valid token and record its expiry."""
        token = await self._tokens.get_token(*scopes, **kwargs)
        self._counters.token_expires_on = float(token.expires_on)
        return token

    async def renew(self, rejected: str | None = None) -> None:
        """Get a new token."""
        await self._tokens.renew(rejected)

    async def close(self) -> None:
        """Close the token source."""
        await self._tokens.close()


class CountedService:
    """Chat service that counts each call by its outcome and delegates to another one.

    Args:
        service: The service to delegate to.
        counters: Where calls are counted.
    """

    def __init__(self, service: ChatService, counters: BotCounters) -> None:
        self._service = service
        self._counters = counters

    @property
    def user(self) -> UserId:
        """The user that the service is accessed as."""
        return self._service.user

    @contextmanager
    def _counting(self, operation: str) -> Iterator[None]:
        begun, outcome = time.perf_counter(), "ok"
        try:
            yield
        except ServiceError as error:
            outcome = outcome_of(error)
            raise
        except BaseException:
            outcome = "cancelled"
            raise
        finally:
            self._counters.count_call(operation, outcome, time.perf_counter() - begun)

    async def create_thread(
        self, topic: str, participants: Sequence[Participant] = (), *, repeatability_id: str | None = None
    ) -> CreatedThread:
        """Create a thread."""
        with self._counting("create_thread"):
            return await self._service.create_thread(topic, participants, repeatability_id=repeatability_id)

    async def get_thread(self, thread: ThreadId) -> Thread:
        """Read a thread's properties."""
        with self._counting("get_thread"):
            return await self._service.get_thread(thread)

    async def delete_thread(self, thread: ThreadId) -> None:
        """Delete a thread for everyone."""
        with self._counting("delete_thread"):
            await self._service.delete_thread(thread)

    async def update_topic(self, thread: ThreadId, topic: str) -> None:
        """Change the topic of a thread."""
        with self._counting("update_topic"):
            await self._service.update_topic(thread, topic)

    async def list_threads(
        self, *, start_time: datetime | None = None, page_size: int | None = None, link: str | None = None
    ) -> ThreadPage:
        """Read one page of the user's threads."""
        with self._counting("list_threads"):
            return await self._service.list_threads(start_time=start_time, page_size=page_size, link=link)

    async def send_message(
        self,
        thread: ThreadId,
        content: str,
        *,
        type: Literal["text", "html"] = "text",
        display_name: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> MessageId:
        """Send a message."""
        with self._counting("send_message"):
            return await self._service.send_message(
                thread, content, type=type, display_name=display_name, metadata=metadata
            )

    async def edit_message(
        self,
        thread: ThreadId,
        message: MessageId,
        *,
        content: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Edit a message of the user."""
        with self._counting("edit_message"):
            await self._service.edit_message(thread, message, content=content, metadata=metadata)

    async def delete_message(self, thread: ThreadId, message: MessageId) -> None:
        """Delete a message of the user."""
        with self._counting("delete_message"):
            await self._service.delete_message(thread, message)

    async def get_message(self, thread: ThreadId, message: MessageId) -> ChatMessage:
        """Read one message."""
        with self._counting("get_message"):
            return await self._service.get_message(thread, message)

    async def list_messages(
        self,
        thread: ThreadId,
        *,
        start_time: datetime | None = None,
        page_size: int | None = None,
        link: str | None = None,
    ) -> MessagePage:
        """Read one page of a thread's messages."""
        with self._counting("list_messages"):
            return await self._service.list_messages(thread, start_time=start_time, page_size=page_size, link=link)

    async def add_participants(
        self, thread: ThreadId, participants: Sequence[Participant]
    ) -> tuple[FailedParticipant, ...]:
        """Add participants to a thread."""
        with self._counting("add_participants"):
            return await self._service.add_participants(thread, participants)

    async def remove_participant(self, thread: ThreadId, user: UserId) -> None:
        """Remove a participant from a thread."""
        with self._counting("remove_participant"):
            await self._service.remove_participant(thread, user)

    async def list_participants(self, thread: ThreadId) -> AsyncIterator[Participant]:
        """Read the participants of a thread; all pages count as one call."""
        with self._counting("list_participants"):
            # Read everything first: the consumer's time and errors between items are not those of the call.
            people = [person async for person in self._service.list_participants(thread)]
        for person in people:
            yield person

    async def send_receipt(self, thread: ThreadId, message: MessageId) -> None:
        """Send a read receipt for everything up to this message."""
        with self._counting("send_receipt"):
            await self._service.send_receipt(thread, message)

    async def list_receipts(self, thread: ThreadId) -> AsyncIterator[Receipt]:
        """Read the latest receipt of each reader; all pages count as one call."""
        with self._counting("list_receipts"):
            # As in `list_participants`.
            receipts = [receipt async for receipt in self._service.list_receipts(thread)]
        for receipt in receipts:
            yield receipt

    async def send_typing(self, thread: ThreadId, *, display_name: str | None = None) -> None:
        """Send a typing notification."""
        with self._counting("send_typing"):
            await self._service.send_typing(thread, display_name=display_name)

    async def renew_token(self) -> None:
        """Get a new token now."""
        with self._counting("renew_token"):
            await self._service.renew_token()


def outcome_of(error: ServiceError) -> str:
    """Return the outcome label of an error: its class name in snake_case (`throttled`, `outcome_unknown`, …)."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
