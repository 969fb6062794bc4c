"""Reads one thread: a look walks `list_messages` from the newest change down to where everything is settled.

A look is not a snapshot: the service pages by version, so a message that is edited while we walk jumps to the top
behind our back, and what is said meanwhile may push a linked page down. Hence three rules:

1. A walk of more than one page is followed by another, down to what was the newest change when the walk before
   began, until one page covers what changed meanwhile. Nothing is yielded before: only then everything is known, and
   its order too. What a walk shows that is newer than its first page belongs to the next walk.
2. Of deep pages only the place of each message is kept (its id, its version, its turn), and the page is read again when
   its turn comes. The links are followed until all that was remembered of the page has been seen or passed.
3. What is not found there has moved, and is read by its id. So a look that ends has yielded all that it knew of, in the
   order of its turns.

What is new and whose turn is when, says the cursor; what happens then says the lane.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

import anyio

from chatbot.errors import NotFound, Throttled
from chatbot.model import ChatMessage, MessageId, MessageType, ThreadId
from chatbot.polling.cursor import Change, Cursor, moment
from chatbot.polling.message_events import time_of
from chatbot.service.base import ChatService, MessagePage, Paging
from chatbot.service.budget import Budget, Operation

PAGE_SIZE: Final = 50
"""Messages a page; pages under 50 could miss messages in November 2021 (communication-ui-library PR 1183)."""

CATCH_UP_PAGE_SIZE: Final = 200
"""Messages a page when a gap is expected: the most the service gives (service limits)."""

HELD_PAGES: Final = 10
"""Pages of a walk kept in memory; of deeper ones only places are kept, and they are read again, oldest first."""

HELD_OUT_OF_PLACE: Final = 2_000
"""Messages of deep pages kept in memory because their turn is not that of their page; others are read by their id."""

MAX_PASSES: Final = 8
"""Walks of one look; in a thread so busy that these do not suffice, the base just does not rise this time."""

THROTTLED_PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds to wait, or half as much again, when the service throttles a page in the middle of a look and does not say
how long; then the look gives up. One that has read nothing yet gives up at once."""

RECENT_MS: Final = 2_000
"""How far before the last look a brief one begins; covers the precision of `startTime` and of the service's clock."""


class Interrupted(Exception):
    """The look was told to end while it was reading; what it yielded before remains true."""


T = TypeVar("T")

OrderKey = tuple[int, int]
"""Where a message stands in the order in which things happened; compares."""

OrderOf = Callable[[ChatMessage], OrderKey | None]
"""The turn of a message; None for one that nobody need hear of."""


def by_version(message: ChatMessage) -> OrderKey:
    """The order of changes, for whoever knows nothing of what was seen before."""
    return message.version, message.number


@dataclass(frozen=True, slots=True)
class _Place:
    """What a look remembers of a message that is to be yielded.

    Args:
        turn: when.
        version: its highest version that was shown.
        message: itself, if it is held.
        page: the link of the page that shows it between others of its turn; None where it is to be read by its id.
    """

    turn: OrderKey
    version: int
    message: ChatMessage | None = None
    page: str | None = None


class Poll:
    """One look at a thread, read through `batches`.

    Args:
        bound: the version down to which to read.
        start_time: passed to the service as a mere optimisation; None for a whole look.
        budget: the thread's quotas. A look waits for them, and in its middle for the end of a throttling: a deep walk
            cannot be continued later, only begun again.
        turn_of: the order in which to yield.

    Attributes:
        top: the highest version shown; None while nothing was, or when the thread was too busy to be sure.
        server_time_ms: not later than the service's time at the first read; None if it did not say.
        comings: system messages that name the user, read so far, by id: True where it was added, False where removed.
        keys: reply keys of own messages, read so far, each with the eldest message that carries it. A walk goes from
            new to old before anything is yielded, so whoever handles a message knows whether it was answered already.
        doubles: of the keys that more than one living message carries, those messages.
    """

    __slots__ = (
        "_bound", "_budget", "_has_read", "_is_interrupted", "_living", "_order_of", "_out_of_place", "_page_size",
        "_places", "_reading", "_service", "_start_time", "_thread", "doubles", "keys", "membership_changes",
        "server_time_ms", "top",
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
        order_of: OrderOf = by_version,
    ) -> None:
        self._service = service
        self._thread = thread
        self._bound = bound
        self._budget = budget
        self._has_read = False
        self._is_interrupted = False
        self._reading = anyio.CancelScope()
        self._start_time = start_time
        self._page_size = page_size
        self._order_of = order_of
        self._places: dict[int, _Place] = {}
        self._out_of_place = 0
        self._living: dict[str, MessageId] = {}
        self.doubles: dict[str, set[MessageId]] = {}
        self.membership_changes: dict[int, bool] = {}
        self.keys: dict[str, MessageId] = {}
        self.top: int | None = None
        self.server_time_ms: int | None = None

    async def batches(self) -> AsyncGenerator[list[ChatMessage]]:
        """Read everything above the bound, and yield it in the order of its turns, the earliest batch first.

        What changes after the look has taken notice of it comes as it is now, if its turn is still the same; else it is
        left to the next look, which finds it above `top`.

        Raises:
            ErrorResponse: as `ChatService.list_messages` does; what was yielded before remains true.
        """
        await self._survey()
        deep: dict[str, dict[int, int]] = {}
        for number, place in self._places.items():
            if place.page is not None:
                deep.setdefault(place.page, {})[number] = place.version
        batch: list[ChatMessage] = []
        loaded: str | None = None
        again: Mapping[int, ChatMessage] = {}
        for number, place in sorted(self._places.items(), key=lambda item: item[1].turn):
            message = place.message
            if message is None and place.page is not None and place.page != loaded:
                if batch:
                    yield batch
                    batch = []
                loaded, again = place.page, await self._read_again(place.page, deep[place.page])
            if message is None:
                # A page that was pushed down, or not: what it does not show any more has moved, and is still due.
                message = again.get(number) or await self._read_alone(number)
            if message is not None and (place.message is not None or self._order_of(message) == place.turn):
                batch.append(message)
        yield batch

    async def _survey(self) -> None:
        """Walk until one page covers what changed meanwhile; remembers the place of everything above the bound."""
        bound = self._bound
        for _ in range(MAX_PASSES):
            top, pages = await self._walk(bound)
            if pages <= 1:
                top = max(top, bound if bound > self._bound else 0)
                self.top = top or None
                return
            bound = top
        self.top = None

    async def _walk(self, bound: int) -> tuple[int, int]:
        """Follow the links down to the bound; returns the highest version of the first page, and how many had messages.

        Whatever is newer than the first page is out of turn here, and need not be all there is: a page shows some of
        what was said since, and its link passes over the rest. The next walk shows it in its place.
        """
        top = pages = 0
        async with aclosing(self._pages(None)) as walk:
            async for link, page in walk:
                top = top or max((message.version for message in page.messages), default=0)
                for message in page.messages:
                    if bound < message.version <= top:
                        self._remember(message, link if pages >= HELD_PAGES else None)
                pages += bool(page.messages)
                if any(message.version <= bound for message in page.messages):
                    break
        return top, pages

    def _remember(self, message: ChatMessage, deep_page: str | None) -> None:
        """Note the place of a message, and keep itself unless its page can be read again in its turn."""
        known = self._places.get(message.number)
        if known is not None and known.version >= message.version:
            return
        turn = self._order_of(message)
        if turn is None:
            self._places.pop(message.number, None)
            return
        if deep_page is None:
            self._places[message.number] = _Place(turn, message.version, message)
        elif turn[0] == message.version:
            self._places[message.number] = _Place(turn, message.version, page=deep_page)
        else:  # its turn is that of other pages
            self._out_of_place += 1
            held = message if self._out_of_place <= HELD_OUT_OF_PLACE else None
            self._places[message.number] = _Place(turn, message.version, held)

    async def _pages(self, link: str | None) -> AsyncGenerator[tuple[str | None, MessagePage]]:
        """The page of this link and those after it, each with its own link."""
        paging = Paging(f"list the messages of thread {self._thread}")
        lowest: int | None = None
        while True:
            page = await self._fetch(link)
            yield link, page
            if page.next_link is None:
                return
            versions = [message.version for message in page.messages]
            is_news = bool(versions) and (lowest is None or min(versions) < lowest)
            lowest = min(versions) if is_news else lowest
            link = paging.follow(page.next_link, is_news=is_news)

    async def _read_again(self, link: str, remembered: Mapping[int, int]) -> Mapping[int, ChatMessage]:
        """Read a deep page again, and those after it, until all that is remembered of it was seen or passed.

        Args:
            link: the page's.
            remembered: the messages that it showed, with their versions.
        """
        lowest = min(remembered.values())
        found: dict[int, ChatMessage] = {}
        async with aclosing(self._pages(link)) as pages:
            async for _, page in pages:
                for message in page.messages:
                    known = found.get(message.number)
                    if message.number in remembered and (known is None or message.version > known.version):
                        found[message.number] = message
                if len(found) == len(remembered) or any(message.version < lowest for message in page.messages):
                    break
        return found

    async def _read_alone(self, number: int) -> ChatMessage | None:
        """One message as it is now; None if it is gone without a trace."""
        try:
            return await self._patiently(Operation.GET_MESSAGE, lambda: self._ask_for(MessageId(str(number))))
        except NotFound:
            return None

    async def _ask_for(self, message: MessageId) -> ChatMessage:
        self._budget.spend(Operation.GET_MESSAGE, anyio.current_time())
        return await self._service.get_message(self._thread, message)

    def interrupt(self) -> None:
        """End the look at its next read, or in the read that is under way."""
        self._is_interrupted = True
        self._reading.cancel()

    async def _fetch(self, link: str | None) -> MessagePage:
        """Read one page, when the quota allows it."""
        page = await self._patiently(Operation.LIST_MESSAGES, lambda: self._ask(link))
        self._note_keys(page.messages)
        return page

    async def _patiently(self, operation: Operation, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the service when the quota allows it, and again when it throttles in the middle of the look."""
        throttled: Throttled | None = None
        for pause in THROTTLED_PAUSES:
            self._reading = anyio.CancelScope()
            if self._is_interrupted:
                raise Interrupted
            with self._reading:
                delay = self._budget.delay(operation, anyio.current_time())
                if delay:
                    await anyio.sleep(delay)
                try:
                    return await ask()
                except Throttled as error:
                    if not self._has_read:
                        raise  # nothing is lost yet: others need not wait behind this thread
                    throttled = error
                    wait = (error.retry_after or pause) * random.uniform(1.0, 1.5)  # noqa: S311 - not a secret
                    self._budget.block(operation, anyio.current_time() + wait)
        raise Interrupted if self._is_interrupted or throttled is None else throttled

    async def _ask(self, link: str | None) -> MessagePage:
        begun = anyio.current_time()
        self._budget.spend(Operation.LIST_MESSAGES, begun)
        page = await self._service.list_messages(
            self._thread, start_time=self._start_time, page_size=self._page_size, link=link
        )
        if self.server_time_ms is None and page.server_time is not None:
            # The Date header was written after the read, by at most the time the whole call took.
            taken = anyio.current_time() - begun
            self.server_time_ms = int((page.server_time.timestamp() - taken) * 1000)
        self._has_read = True
        return page

    def _note_keys(self, messages: Collection[ChatMessage]) -> None:
        for message in messages:
            if message.participants and any(person.user == self._service.user for person in message.participants):
                self.membership_changes[message.number] = message.type is MessageType.PARTICIPANT_ADDED
            if message.sender == self._service.user and message.reply_key is not None:
                elder = self.keys.setdefault(message.reply_key, message.id)
                self.keys[message.reply_key] = min(elder, message.id, key=int)
                other = message.id if message.deleted_on else self._living.setdefault(message.reply_key, message.id)
                if other != message.id:
                    self.doubles.setdefault(message.reply_key, {other}).add(message.id)


def order_by_cursor(cursor: Cursor) -> OrderOf:
    """The order in which things happened, for whoever has seen what the cursor says."""

    def turn_of(message: ChatMessage) -> OrderKey | None:
        change = cursor.classify(message)
        return None if change is Change.NONE else moment(change, message)

    return turn_of


def full_poll(
    service: ChatService, thread: ThreadId, cursor: Cursor, budget: Budget, *, catch_up: bool = False
) -> Poll:
    """A look at everything that is not settled, independent of how the service reads `startTime`."""
    page_size = CATCH_UP_PAGE_SIZE if catch_up else PAGE_SIZE
    return Poll(service, thread, bound=cursor.low, budget=budget, page_size=page_size, order_of=order_by_cursor(cursor))


def incremental_poll(
    service: ChatService, thread: ThreadId, cursor: Cursor, budget: Budget, *, polled_ms: int | None = None
) -> Poll:
    """A look for the newest only, whose page is empty when nothing happened. It never moves the base.

    Args:
        service: whose view.
        thread: where.
        cursor: what was seen.
        budget: the thread's quotas.
        looked_ms: the service's time, epoch ms, at which the last look began: what was there then was seen then.
    """
    since = cursor.top if polled_ms is None else polled_ms
    bound = max(since - RECENT_MS, cursor.low)
    start_time = time_of(max(bound, 0) // 1000 * 1000)
    return Poll(service, thread, bound=bound, budget=budget, start_time=start_time, order_of=order_by_cursor(cursor))
