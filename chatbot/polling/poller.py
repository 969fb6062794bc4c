"""Reads one thread: a poll pages through `list_messages` from the newest change down to where everything is settled.

A poll is not a snapshot. The service pages by version, so a message that is edited while we read jumps to the top, and
messages that arrive meanwhile may push the content of a linked page down. Hence three rules:

1. A pass of more than one page is followed by another pass, down to the newest change at the beginning of the pass
   before, until one page covers what changed meanwhile. Nothing is returned before that: only then all messages and
   their order are known. What a pass shows above the newest change of its first page belongs to the next pass.
2. Of deep pages only the place of each message is kept (id, version, order key). The page is read again when its
   messages are due, and links are followed until everything that was remembered of it has been seen or passed.
3. A message that is not found there has moved, and is read by its id. So a poll that ends has returned everything that
   it knew of, in order.

The cursor decides what is new and in which order; the lane decides what happens then.
"""

from __future__ import annotations

from asyncio import CancelledError, Task, current_task, get_running_loop
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Final, TypeVar

import anyio
from msgspec import Struct

from chatbot.errors import NotFound, Throttled
from chatbot.model import ChatMessage, MessageId, MessageType, ThreadId
from chatbot.polling.cursor import Change, Cursor, order_key
from chatbot.polling.message_events import time_of
from chatbot.service.back_off import BackOff
from chatbot.service.base import ChatService, MessagePage, Paging
from chatbot.service.budget import Budget, Operation

PAGE_SIZE: Final = 50
"""Messages per page; pages under 50 could miss messages in November 2021 (communication-ui-library PR 1183)."""

CATCH_UP_PAGE_SIZE: Final = 200
"""Messages per page when many are expected: the service's maximum (service limits)."""

HELD_PAGES: Final = 10
"""Pages of a pass that are kept in memory. Of deeper ones only places are kept; they are read again, oldest first."""

MAX_HELD_OUT_OF_PLACE: Final = 2_000
"""Messages of deep pages kept in memory because they belong elsewhere in the order; further ones are read by id."""

MAX_PASSES: Final = 8
"""Maximum passes of one poll. If they do not suffice, the thread changes too fast, and the base does not rise."""

MAX_TRIES: Final = 3
"""Maximum requests for one page while the service throttles, before the poll fails. A poll that has not read a page yet
fails at the first one."""

RECENT_MS: Final = 2_000
"""How far before the last poll an incremental poll begins, to cover the precision of `startTime` and of the service's
clock."""


class Interrupted(Exception):
    """The poll was interrupted while it was reading; messages that it returned before are valid."""


T = TypeVar("T")

_NOTHING: Final[Mapping[int, ChatMessage]] = MappingProxyType({})

OrderKey = tuple[int, int]
"""Sorts messages by the time of their changes."""

OrderOf = Callable[[ChatMessage], OrderKey | None]
"""Returns the order key of a message; None if there is nothing to handle."""


def order_by_version(message: ChatMessage) -> OrderKey:
    """Order by last change, for callers without a cursor."""
    return message.version, message.number


class _Place(Struct, frozen=True):
    """The position of a message that the poll will return.

    Args:
        order: Its order key.
        version: Highest version that was read.
        message: The message, if it is kept in memory.
        page: Link of the page to read it from; None if it must be read by its id.
    """

    order: OrderKey
    version: int
    message: ChatMessage | None = None
    page: str | None = None


class _Links:
    """The links of one listing of messages, followed page by page.

    Args:
        thread: The thread.
        first: Link of the first page; None for the newest.

    Attributes:
        current: Link of the page to read; None for the newest.
    """

    __slots__ = ("_lowest", "_paging", "_thread", "current")

    def __init__(self, thread: ThreadId, first: str | None = None) -> None:
        self._thread = thread
        self._paging: Paging | None = None
        self._lowest: int | None = None
        self.current = first

    def follow(self, page: MessagePage) -> bool:
        """Move on to the page after this one, and return whether there is one.

        Raises:
            ProtocolError: The links lead in a circle, or have no end.
        """
        if page.next_link is None:
            return False
        self._paging = self._paging or Paging(f"list the messages of thread {self._thread}")
        versions = [message.version for message in page.messages]
        is_news = bool(versions) and (self._lowest is None or min(versions) < self._lowest)
        self._lowest = min(versions) if is_news else self._lowest
        self.current = self._paging.follow(page.next_link, is_news=is_news)
        return True


class Poll:
    """One poll of a thread: `read` reads it, `next_batch` returns what is to be handled.

    Args:
        service: The service, accessed as the bot.
        thread: The thread.
        bound: Version down to which to read.
        budget: Quotas of the thread. A poll waits for them. After its first page it also waits while the service
            throttles, because a deep poll cannot be continued later, only restarted.
        start_time: Passed to the service only to read less; None for a full poll.
        page_size: Messages per page.
        order_of: Order in which to return messages.
        known_page: `settled_page` of an earlier poll of the same kind; None if there is none.

    Attributes:
        settled_page: Tag of the only page that the poll has read, if nothing in it needs to be handled. It never will:
            a later poll that reads the same page has nothing to do.
        has_read_known: The poll has read the known page.
        top: Highest version read; None before the first page, or if the thread changed too fast.
        server_time_ms: Not later than the service's time at the first read; None if it sent no Date.
        membership_changes: System messages read so far that name the user, by id: True if it was added, False if it
            was removed.
        keys: Reply keys of own messages read so far, each with the oldest message that has it. A pass reads from new to
            old before anything is returned, so it is known for each message whether it was already answered.
        doubles: Undeleted messages that share a key, by key.
    """

    __slots__ = (
        "_again",
        "_bound",
        "_budget",
        "_deep",
        "_due",
        "_has_read",
        "_is_interrupted",
        "_known_page",
        "_loaded",
        "_order_of",
        "_out_of_place",
        "_page_size",
        "_places",
        "_reading",
        "_service",
        "_start_time",
        "_thread",
        "_undeleted",
        "doubles",
        "has_read_known",
        "keys",
        "membership_changes",
        "server_time_ms",
        "settled_page",
        "top",
    )  # fmt: skip

    def __init__(
        self,
        service: ChatService,
        thread: ThreadId,
        *,
        bound: int,
        budget: Budget,
        start_time: datetime | None = None,
        page_size: int = PAGE_SIZE,
        order_of: OrderOf = order_by_version,
        known_page: int | None = None,
    ) -> None:
        self._service = service
        self._thread = thread
        self._bound = bound
        self._budget = budget
        self._has_read = False
        self._is_interrupted = False
        self._reading: Task[object] | None = None
        self._start_time = start_time
        self._page_size = page_size
        self._order_of = order_of
        self._known_page = known_page
        self._places: dict[int, _Place] = {}
        self._due: list[tuple[int, _Place]] | None = None
        self._deep: dict[str, dict[int, int]] = {}
        self._loaded: str | None = None
        self._again: Mapping[int, ChatMessage] = _NOTHING
        self._out_of_place = 0
        self._undeleted: dict[str, MessageId] = {}
        self.doubles: dict[str, set[MessageId]] = {}
        self.membership_changes: dict[int, bool] = {}
        self.keys: dict[str, MessageId] = {}
        self.top: int | None = None
        self.server_time_ms: int | None = None
        self.settled_page: int | None = None
        self.has_read_known = False

    async def next_batch(self) -> list[ChatMessage] | None:
        """Return the next messages that were read, in order, the earliest first; None if there are no more.

        Not a generator: the event loop keeps a list of those, and nearly every poll has one batch, or none.

        A message that changes while the poll runs is returned as it is now if its order key is still the same;
        otherwise it is left to the next poll, which finds it above `top`.

        Raises:
            ServiceError: as `ChatService.list_messages` does; what was returned before remains true.
        """
        if self._due is None:
            self._due = sorted(self._places.items(), key=lambda item: item[1].order, reverse=True)
            for number, place in self._due:
                if place.page is not None:
                    self._deep.setdefault(place.page, {})[number] = place.version
        if not self._due:
            return None
        batch: list[ChatMessage] = []
        while self._due:
            number, place = self._due[-1]
            message = place.message
            if message is None and place.page is not None and place.page != self._loaded:
                if batch:
                    return batch
                self._again = await self._read_again(place.page, self._deep[place.page])
                self._loaded = place.page
            self._due.pop()
            if message is None:
                # The page was read again, wherever its content is now. What it does not show any more was edited and
                # has moved up; it is still due, and nothing else would show it.
                message = self._again.get(number) or await self._read_by_id(number)
            if message is not None and (place.message is not None or self._order_of(message) == place.order):
                batch.append(message)
        return batch

    async def read(self) -> None:
        """Read everything above the bound: pass after pass, until one page covers what changed.

        Raises:
            ServiceError: as `ChatService.list_messages` does.
        """
        bound = self._bound
        for number in range(MAX_PASSES):
            top, pages = await self._pass(bound)
            if number or pages > 1 or self._places:
                self.settled_page = None  # it was not read down to the bound, or there is something to handle
            if pages <= 1 or not top:
                top = max(top, bound if bound > self._bound else 0)
                self.top = top or None
                return
            bound = top
        self.top = None

    async def _pass(self, bound: int) -> tuple[int, int]:
        """Follow the links down to the bound; return the highest version of the first page and the number of pages.

        Pages without messages count, too: what the page would have shown may have changed since the page before it, and
        nothing would say so. Messages newer than the first page are ignored: later pages show only some of what has
        arrived since, and their links skip the rest. The next pass reads all of it.
        """
        top = pages = 0
        links = _Links(self._thread)
        while True:
            page = await self._read_page(links.current)
            if page.is_known:
                self.has_read_known = True
                return 0, 1
            self.settled_page = page.tag if not pages else None
            versions = [message.version for message in page.messages]
            top = top or max(versions, default=0)
            for message in page.messages:
                if bound < message.version <= top:
                    self._remember(message, links.current if pages >= HELD_PAGES else None)
            pages += 1
            if min(versions, default=bound + 1) <= bound or not links.follow(page):
                return top, pages

    def _remember(self, message: ChatMessage, deep_page: str | None) -> None:
        """Remember the place of a message, and keep the message itself unless its page can be read again when due."""
        known = self._places.get(message.number)
        if known is not None and known.version >= message.version:
            return
        order = self._order_of(message)
        if order is None:
            self._places.pop(message.number, None)
            return
        if deep_page is None:
            self._places[message.number] = _Place(order, message.version, message)
        elif order[0] == message.version:
            self._places[message.number] = _Place(order, message.version, page=deep_page)
        else:  # it is due among the messages of other pages
            self._out_of_place += 1
            held = message if self._out_of_place <= MAX_HELD_OUT_OF_PLACE else None
            self._places[message.number] = _Place(order, message.version, held)

    async def _read_again(self, link: str, remembered: Mapping[int, int]) -> Mapping[int, ChatMessage]:
        """Read a deep page again, and those after it, until everything that it showed was seen or passed.

        Args:
            link: the link of the page.
            remembered: the messages that it showed, with their versions.
        """
        lowest = min(remembered.values())
        found: dict[int, ChatMessage] = {}
        links = _Links(self._thread, link)
        while True:
            page = await self._read_page(links.current)
            for message in page.messages:
                known = found.get(message.number)
                if message.number in remembered and (known is None or message.version > known.version):
                    found[message.number] = message
            is_over = len(found) == len(remembered) or any(message.version < lowest for message in page.messages)
            if is_over or not links.follow(page):
                return found

    async def _read_by_id(self, number: int) -> ChatMessage | None:
        """Return a message as it is now; None if the service does not know it any more."""
        try:
            return await self._within_quota(Operation.GET_MESSAGE, partial(self._get_message, MessageId(str(number))))
        except NotFound:
            return None

    async def _get_message(self, message: MessageId) -> ChatMessage:
        self._budget.spend(Operation.GET_MESSAGE, get_running_loop().time())
        return await self._service.get_message(self._thread, message)

    def interrupt(self) -> None:
        """End the poll at its next read, or during the current one."""
        self._is_interrupted = True
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()

    async def _within_quota(self, operation: Operation, ask: Callable[[], Awaitable[T]]) -> T:
        """Send a request when the quota allows it, and repeat it if the service throttles after the first page."""
        throttled: Throttled | None = None
        back_off: BackOff | None = None
        for _ in range(MAX_TRIES):
            if self._is_interrupted:
                raise Interrupted
            try:
                return await self._interruptible(operation, ask)
            except Throttled as error:
                if not self._has_read:
                    raise  # no pages are lost yet, so other threads need not wait for this one
                throttled, back_off, now = error, back_off or BackOff(), get_running_loop().time()
                self._budget.block(operation, now + back_off.failed(error, now, operation))
        raise Interrupted if self._is_interrupted or throttled is None else throttled

    async def _interruptible(self, operation: Operation, ask: Callable[[], Awaitable[T]]) -> T:
        """Send a request when the quota allows it; `interrupt` ends this.

        As `asyncio.timeout` does, it cancels the task and takes that back: a scope around each read would cost more
        than all else that a poll does for it.
        """
        task = self._reading = current_task()
        try:
            if delay := self._budget.delay(operation, get_running_loop().time()):
                await anyio.sleep(delay)
            return await ask()
        except CancelledError:
            # Nothing but the interruption has cancelled the task. A scope that is cancelled as well goes on cancelling.
            if self._reading is None and task is not None and task.cancelling() == 1:
                raise Interrupted from None
            raise
        finally:
            if self._reading is None and task is not None:
                task.uncancel()  # also if the request has ended all the same: nothing later may be taken for canceled
            self._reading = None

    async def _read_page(self, link: str | None) -> MessagePage:
        return await self._within_quota(Operation.LIST_MESSAGES, partial(self._request_page, link))

    async def _request_page(self, link: str | None) -> MessagePage:
        started_at = get_running_loop().time()
        # Before the request: one that fails may have been counted by the service.
        self._budget.spend(Operation.LIST_MESSAGES, started_at)
        known = self._known_page if link is None else None
        page = await self._service.list_messages(
            self._thread, start_time=self._start_time, page_size=self._page_size, link=link, known=known
        )
        if self.server_time_ms is None and page.server_time is not None:
            # The Date header was written after the read, by at most the time the whole call took.
            taken = get_running_loop().time() - started_at
            self.server_time_ms = int((page.server_time.timestamp() - taken) * 1000)
        self._has_read = True
        if page.messages:
            self._collect_keys(page.messages)
        return page

    def _collect_keys(self, messages: Collection[ChatMessage]) -> None:
        user = self._service.user
        for message in messages:
            if message.participants and any(person.user == user for person in message.participants):
                self.membership_changes[message.number] = message.type is MessageType.PARTICIPANT_ADDED
            if message.sender == user and (key := message.reply_key) is not None:
                older = self.keys.setdefault(key, message.id)
                self.keys[key] = min(older, message.id, key=int)
                other = message.id if message.deleted_on else self._undeleted.setdefault(key, message.id)
                if other != message.id:
                    self.doubles.setdefault(key, {other}).add(message.id)


def order_by_cursor(cursor: Cursor) -> OrderOf:
    """Order by the changes that the cursor finds; handled messages have no order key."""

    def order_of(message: ChatMessage) -> OrderKey | None:
        change = cursor.classify(message)
        return None if change is Change.NONE else order_key(change, message)

    return order_of


def full_poll(
    service: ChatService,
    thread: ThreadId,
    cursor: Cursor,
    budget: Budget,
    *,
    catch_up: bool = False,
    known_page: int | None = None,
) -> Poll:
    """Return a poll of everything that is not settled. It does not use `startTime`, whose meaning is unknown."""
    return Poll(
        service,
        thread,
        bound=cursor.low,
        budget=budget,
        page_size=CATCH_UP_PAGE_SIZE if catch_up else PAGE_SIZE,
        order_of=order_by_cursor(cursor),
        known_page=known_page,
    )


def incremental_poll(
    service: ChatService, thread: ThreadId, cursor: Cursor, budget: Budget, *, polled_ms: int | None = None
) -> Poll:
    """Return a poll of the newest messages only; it never moves the base.

    It passes a `startTime`, so that the page is empty when nothing happened. It is unknown how the service reads
    `startTime`, so such a poll may miss changes; the next full poll finds them.

    Args:
        service: The service, accessed as the bot.
        thread: The thread.
        cursor: Cursor of the thread.
        budget: Quotas of the thread.
        polled_ms: Service time, epoch ms, at which the last poll began; it has seen everything up to then.
    """
    since = cursor.top if polled_ms is None else polled_ms
    bound = max(since - RECENT_MS, cursor.low)
    start_time = time_of(max(bound, 0) // 1000 * 1000)
    return Poll(service, thread, bound=bound, budget=budget, start_time=start_time, order_of=order_by_cursor(cursor))
