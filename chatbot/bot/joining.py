"""Where a thread starts for a bot that finds itself in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import anyio

from chatbot.bot.settings import ALL_HISTORY
from chatbot.errors import Forbidden
from chatbot.model import MessageId, MessageType, ThreadId
from chatbot.polling.sightings import lists
from chatbot.service.base import ChatService, Paging
from chatbot.service.budget import Budget, Operation

PAGE_SIZE = 200

REMOVAL_PAGES = 5
"""Pages that are read for a removal; little is said in a thread between that and the first suspicion."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """How the bot came into a thread.

    Args:
        message: the latest system message that lists it; None where the thread does not show one.
        people: how many are in the thread, the bot included.
        top: the newest version in the thread; whoever came since is not among `people`.
    """

    message: MessageId | None
    people: int
    top: int


async def find_arrival(service: ChatService, thread: ThreadId, budget: Budget, *, not_before_ms: int) -> Arrival:
    """Find how the bot came in, and that it is in at all.

    Listing the participants is the only sure test of membership: whether someone who was removed may still read
    messages is not known (GitHub issue Azure/Communication#345).

    Args:
        service: whose view.
        thread: where.
        budget: the thread's quotas; every page waits for its turn, as a long reading could not be continued later.
        not_before_ms: an arrival before this does not matter, so the reading stops there.

    Raises:
        Forbidden, NotFound: the bot is not in the thread, or the thread is gone.
        ServiceError: as the service does.
    """
    people = await count_people(service, thread, budget)
    top = 0
    link: str | None = None
    paging = Paging(f"list the messages of thread {thread}")
    lowest: int | None = None
    while True:
        await _turn(budget, Operation.LIST_MESSAGES)
        page = await service.list_messages(thread, page_size=PAGE_SIZE, link=link)
        top = max([top, *(message.version for message in page.messages)])
        for message in page.messages:
            if lists(message, MessageType.PARTICIPANT_ADDED, service.user):
                return Arrival(message.id, people, top)
        if page.next_link is None or any(message.version < not_before_ms for message in page.messages):
            return Arrival(None, people, top)
        last = min((message.version for message in page.messages), default=lowest)
        is_news = last is not None and (lowest is None or last < lowest)
        link, lowest = paging.follow(page.next_link, is_news=is_news), last


async def count_people(service: ChatService, thread: ThreadId, budget: Budget) -> int:
    """Count the participants of a thread, and see that the bot is among them.

    Raises:
        Forbidden: the bot is not in the thread.
        ServiceError: as `ChatService.list_participants` does.
    """
    await _turn(budget, Operation.LIST_PARTICIPANTS)
    people = [person.user async for person in service.list_participants(thread)]
    if service.user not in people:
        raise not_listed(thread)
    return len(people)


def not_listed(thread: ThreadId) -> Forbidden:
    """The error of a thread whose participants do not name the bot; as good as the service's own refusal."""
    return Forbidden(f"the participants of thread {thread} do not name the bot", code="Forbidden")


async def shows_removal(service: ChatService, thread: ThreadId, budget: Budget, *, since: int) -> bool:
    """Whether the latest system message that names the bot tells of its removal.

    Args:
        service: whose view.
        thread: where.
        budget: the thread's quotas.
        since: the id of the message that began the bot's stay; nothing older is read.

    Raises:
        ServiceError: the thread cannot be read.
    """
    link: str | None = None
    for _ in range(REMOVAL_PAGES):
        await _turn(budget, Operation.LIST_MESSAGES)
        page = await service.list_messages(thread, page_size=PAGE_SIZE, link=link)
        for message in sorted(page.messages, key=lambda message: message.number, reverse=True):
            if message.number > since and lists(message, MessageType.PARTICIPANT_REMOVED, service.user):
                return True
            if lists(message, MessageType.PARTICIPANT_ADDED, service.user):
                return False
        link = page.next_link
        if link is None or any(message.version <= since for message in page.messages):
            return False
    return False


async def _turn(budget: Budget, operation: Operation) -> None:
    await anyio.sleep(budget.delay(operation, anyio.current_time()))
    budget.spend(operation, anyio.current_time())


def floor_of(arrival: MessageId | None, history: timedelta, *, first_started_ms: int) -> int:
    """The id above which the thread begins for the bot.

    Just below its arrival, but never before its identity's first start: a greeting sent before the bot noticed the
    thread is answered, months of old talk are not. `history` moves that back by a duration, or to the beginning.

    Args:
        arrival: the system message that lists the bot; None if there is none since the first start.
        history: how far back to read.
        first_started_ms: the service's time of the bot's first start.
    """
    if history == ALL_HISTORY:
        return 0
    start = max(int(arrival or 0), first_started_ms) - 1
    return max(0, start - int(history.total_seconds() * 1000))
