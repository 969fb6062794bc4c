"""Membership of a bot in a thread: what proves a removal, and when to check again.

States and transitions::

    UNKNOWN ──the participant list contains the bot──▶ IN
    UNKNOWN ──refused──▶ OUT
    IN ──a request is refused, or `participantRemoved` names the bot──▶ SUSPECTED
    SUSPECTED ──the participant list contains the bot──▶ IN
    SUSPECTED ──two absent sightings, at least `PROOF_SECONDS` apart──▶ OUT
    OUT ──a probe finds the bot in the participant list──▶ IN
    OUT ──the thread changed in the thread list──▶ UNKNOWN
    any ──the thread list shows the thread as deleted──▶ DELETED

Rules of this module:

1. Only answers of the service itself prove a removal: its own error envelope, a participant list without the bot, or
   a `participantRemoved`. The error page of a proxy is a failure like any other.
2. If the thread list or other threads are refused too, the bot is in trouble, not removed. Such an answer is an
   unclear sighting and does not end a suspicion.
3. A removal loses nothing. The cursor is kept, and pending work is parked: see `Parking`.

`ThreadState` is the in-memory state of one thread. `AnswerCheck` tells a refusal by one thread from trouble of the
bot. The functions below find where a thread begins for a bot that finds itself in it.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Final

import anyio
from msgspec import Struct

from chatbot.bot.environment import ALL_HISTORY, NO_THREAD, BotContext
from chatbot.errors import Forbidden, ServiceError, Throttled
from chatbot.model import MessageId, MessageType, Participant, ThreadId
from chatbot.polling.message_events import names_user
from chatbot.polling.thread_list import may_have_moved
from chatbot.service.base import ChatService, Paging
from chatbot.service.budget import Budget, Operation
from chatbot.stores.records import ThreadRecord

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

ANSWER_SECONDS: Final = 1.0
"""Seconds for which an answer of the service counts as proof that it answers, when a removal is suspected."""

PROOF_SECONDS: Final = 5.0
"""Minimum seconds between the two sightings that prove a removal."""

FIRST_PROBE_PAUSE: Final = 2.0
MAX_PROBE_PAUSE: Final = 300.0
"""Maximum seconds between two probes of a thread that changes in the thread list."""

SHORTEST_TIMED_PROBE: Final = 5.0
LONGEST_TIMED_PROBE: Final = 3600.0
"""Limits in seconds of the pause between timed probes. In between, it equals the time the bot has been out."""


class Presence(Enum):
    """Membership state of a bot in a thread."""

    UNKNOWN = "unknown"
    IN = "in"
    SUSPECTED = "suspected"
    OUT = "out"
    DELETED = "deleted"


class Sighting(Enum):
    """Result of a search for the bot among a thread's participants."""

    PRESENT = "present"
    ABSENT = "absent"
    UNCLEAR = "unclear"


@dataclass(slots=True)
class Membership:
    """State machine of a bot's membership in one thread.

    Threads that the bot was removed from stay in the thread list and look like any other. So a thread that changes is
    probed again, at most every few minutes while the probes fail, and one that does not change ever more rarely.

    Args:
        presence: The state.
        is_reported_out: The handlers consider the bot out: its leaving was reported, or its joining never was.
        left_ms: When the bot was found to be out, epoch ms; None while the handlers consider it in.
    """

    presence: Presence
    is_reported_out: bool = True
    left_ms: int | None = None
    _absent_at: float | None = None
    _probed_stamp: datetime | None = None
    _probes: int = 0
    _not_before: float = 0.0
    _timed_at: float = 0.0

    @property
    def is_out(self) -> bool:
        """Whether the bot is known to be out of the thread, or the thread is deleted."""
        return self.presence in (Presence.OUT, Presence.DELETED)

    # ── from in to out ────────────────────────────────────────────────────────────────────────────────────────

    def suspect(self) -> None:
        """Suspect that the bot was removed. Has an effect only while it is in."""
        if self.presence is Presence.IN:
            self.presence, self._absent_at = Presence.SUSPECTED, None

    def apply_sighting(self, sighting: Sighting, now: float) -> bool:
        """Apply a sighting, and return whether the removal is proven.

        An unclear sighting neither proves nor clears anything: see rule 2 of this module.
        """
        if self.presence is not Presence.SUSPECTED:
            return False
        if sighting is Sighting.PRESENT:
            self.presence, self._absent_at = Presence.IN, None
            return False
        if sighting is Sighting.UNCLEAR:
            return False
        if self._absent_at is None:
            self._absent_at = now
        return now - self._absent_at >= PROOF_SECONDS

    def pause(self, now: float) -> float:
        """Return the seconds until another sighting can prove the removal."""
        return 0.0 if self._absent_at is None else max(0.0, self._absent_at + PROOF_SECONDS - now)

    def leave(self, now: float, left_ms: int | None = None, *, is_deleted: bool = False, age: float = 0.0) -> None:
        """Record that the bot is out and that the handlers know.

        Args:
            now: The time, in seconds of a monotonic clock.
            left_ms: Since when, epoch ms; None keeps the known value.
            is_deleted: The thread list shows the thread as deleted; it is not probed again.
            age: Seconds for which the bot has been out.
        """
        self.presence, self.is_reported_out = Presence.DELETED if is_deleted else Presence.OUT, True
        self._absent_at = None
        if left_ms is not None:
            self.left_ms = left_ms
        self._not_before = now + min(MAX_PROBE_PAUSE, FIRST_PROBE_PAUSE * 2 ** min(self._probes, 8))
        self._probes += 1
        self.postpone_probe(now, age)

    # ── from out to in ────────────────────────────────────────────────────────────────────────────────────────

    def needs_probe(self, stamp: datetime | None, left_ms: int | None, now: float) -> bool:
        """Return whether a thread has changed since the bot left, so that the bot may be in it again."""
        if self.presence is not Presence.OUT or now < self._not_before:
            return False
        return stamp != self._probed_stamp and may_have_moved(stamp, left_ms)

    def postpone_probe(self, now: float, age: float, jitter: float = 1.0) -> None:
        """Schedule the next timed probe.

        Args:
            now: The time, in seconds of a monotonic clock.
            age: Seconds for which the bot has been out. The pause grows with it, also across restarts.
            jitter: Factor of the pause; spreads threads that were left at the same time.
        """
        self._timed_at = now + min(LONGEST_TIMED_PROBE, max(SHORTEST_TIMED_PROBE, age)) * jitter

    def next_probe(self, now: float, age: float, retention: float) -> float | None:
        """Return the seconds until the next timed probe; None if there is none.

        Args:
            now: The time, in seconds of a monotonic clock.
            age: Seconds for which the bot has been out.
            retention: Seconds after which only a change in the thread list causes a probe.
        """
        if self.presence is not Presence.OUT or age >= retention:
            return None
        return max(0.0, self._timed_at - now)

    def probe(self, stamp: datetime | None) -> None:
        """Mark the membership as unknown; the next turn checks it."""
        self.presence = Presence.UNKNOWN
        self._probed_stamp = stamp

    def enter(self) -> None:
        """Record that the bot is in.

        Clears the probed timestamp: once the bot is out again, a probe may be due at the same timestamp.
        """
        self.presence, self._probes = Presence.IN, 0
        self._probed_stamp, self._absent_at = None, None

    def mark_reported_in(self) -> None:
        """Record that the handlers know that the bot is in."""
        self.is_reported_out, self.left_ms = False, None

    @classmethod
    def of(cls, record: ThreadRecord | None) -> Membership:
        """Return the stored membership; without a record it is unknown."""
        if record is None:
            return cls(Presence.UNKNOWN)
        if not record.is_left:
            return cls(Presence.IN, is_reported_out=record.left_ms is not None, left_ms=record.left_ms)
        # Older versions stored the time of leaving as the base.
        left_ms = record.base if record.left_ms is None else record.left_ms
        return cls(Presence.OUT, is_reported_out=True, left_ms=left_ms)


class ThreadState:
    """In-memory state of one thread: quotas, membership and participants.

    Args:
        context: The bot's environment.
        thread: The thread; None for events outside threads.
        record: The stored record; None for a thread that the bot was never in.

    Attributes:
        key: Key of the thread in the store.
        budget: Quotas of the thread.
        membership: Membership of the bot.
        arrived: Id of the system message that began the bot's stay; 0 if unknown.
        people: Participants as last read; None if unknown or outdated.
        people_at: When they were read.
        is_released: Another process is to serve the thread: no new work is begun here.
    """

    __slots__ = (
        "_context",
        "_log",
        "arrived",
        "budget",
        "is_released",
        "key",
        "membership",
        "people",
        "people_at",
        "thread",
    )

    def __init__(self, context: BotContext, thread: ThreadId | None, record: ThreadRecord | None) -> None:
        self.thread = thread
        self.key = thread or NO_THREAD
        self._context = context
        self._log: FilteringBoundLogger | None = None
        self.budget = context.shared.new_budget(thread) if thread else Budget()
        self.membership = Membership.of(record)
        self.arrived = record.arrived or 0 if record is not None else 0
        self.people: tuple[Participant, ...] | None = None
        self.people_at = 0.0
        self.is_released = False

    @property
    def log(self) -> FilteringBoundLogger:
        """Logger bound to bot and thread, made when it is first used: most threads have nothing to log."""
        if self._log is None:
            log = self._context.log
            self._log = log.bind(thread=self.thread) if self.thread else log
        return self._log

    @property
    def is_ending(self) -> bool:
        """Whether to begin no new work, because the bot stops or another process is to serve the thread."""
        return self._context.is_stopping or self.is_released

    def age(self, now_ms: int) -> float:
        """Return the seconds for which the bot has been out of the thread; 0 if unknown or in."""
        left_ms = self.membership.left_ms
        return 0.0 if left_ms is None else max(0.0, (now_ms - left_ms) / 1000)


class AnswerCheck:
    """Checks whether the service answers the bot in general, so that a refusal concerns one thread only.

    Without this check, a token of the wrong scope, a policy or an outage would look like a removal from every thread,
    and would be reported to the handlers.

    Args:
        context: The bot's environment.
        wake: Schedules a turn of a thread's lane.

    Attributes:
        threads: The threads that have a lane.
    """

    def __init__(self, context: BotContext, wake: Callable[[ThreadId], None]) -> None:
        self._context = context
        self._wake = wake
        self._answered_at = -ANSWER_SECONDS
        self._answered_in: dict[ThreadId, float] = {}
        self.threads: dict[ThreadId, ThreadState] = {}

    def forget(self, thread: ThreadId) -> None:
        """Drop a thread whose lane is removed."""
        self.threads.pop(thread, None)
        self._answered_in.pop(thread, None)

    def note_answer(self) -> None:
        """Record that the service has just listed the bot's threads."""
        self._answered_at = anyio.current_time()

    async def is_answered_elsewhere(self, thread: ThreadId) -> bool:
        """Return whether the service answers the bot outside this thread.

        It must list the bot's threads and, if the bot considers itself in another thread, the participants of one such
        thread. If other threads are refused as well, the bot is in trouble and was not removed.
        """
        if anyio.current_time() - self._answered_at >= ANSWER_SECONDS:
            try:
                async with _quota(self._context.budget, Operation.GET_THREAD):
                    await self._context.service.list_threads(page_size=1)
            except ServiceError:
                return False
            self.note_answer()
        return await self._answers_in_another(thread)

    async def _answers_in_another(self, thread: ThreadId) -> bool:
        known = (Presence.IN, Presence.SUSPECTED)
        others = [state for key, state in self.threads.items() if key != thread and state.membership.presence in known]
        if not others:
            return True
        since = anyio.current_time() - ANSWER_SECONDS
        self._answered_in = {key: at for key, at in self._answered_in.items() if at > since}
        if self._answered_in.keys() - {thread}:
            return True
        trusted = [state for state in others if state.membership.presence is Presence.IN]
        if not trusted:
            return False
        other = random.choice(trusted)  # noqa: S311 - not a secret
        try:
            await count_people(self._context.service, other.key, other.budget)
        except ServiceError:
            self._wake(other.key)  # that lane checks its own membership
            return False
        self._answered_in[other.key] = anyio.current_time()
        return True


class Parking(Struct, frozen=True):
    """Time limits for pending work in a thread that the bot is out of.

    Args:
        rejoin_seconds: How long replies wait.
        retention_seconds: How long timers and dialogs wait.
    """

    rejoin_seconds: float
    retention_seconds: float

    def expires_replies(self, age: float) -> bool:
        """Return whether pending replies expire.

        Args:
            age: Seconds for which the bot has been out.
        """
        return age >= self.rejoin_seconds

    def expires_conversations(self, age: float) -> bool:
        """Return whether timers and dialogs expire. They never expire before the replies."""
        return age >= max(self.rejoin_seconds, self.retention_seconds)

    def next(self, age: float) -> float | None:
        """Return the seconds until the next expiry; None if everything has expired."""
        ends = (self.rejoin_seconds, max(self.rejoin_seconds, self.retention_seconds))
        return min((end - age for end in ends if end > age), default=None)


def absences(changes: Mapping[int, bool], *, arrived: int, known: int | None = None) -> list[tuple[int, int | None]]:
    """Return the bot's absences from a thread as (start, end) ids of system messages; end is None if it lasts.

    Messages sent during an absence are not handled. Messages sent before it are handled, however late.

    Args:
        comings: System messages that name the bot, by id: True if it was added, False if it was removed.
        arrived: Id of the message that began the known stay; older messages are ignored.
        known: Newest known version in the thread. If the service shows the bot's return but not its removal, the
            absence begins there. None if the bot's arrival is unknown, too.
    """
    found: list[tuple[int, int | None]] = []
    removed: int | None = None
    for id, is_added in sorted(_newer(changes.items(), arrived)):
        if not is_added:
            removed = id if removed is None else removed
        elif removed is not None:
            found.append((removed, id))
            removed = None
        elif not found and known is not None and known < id:
            found.append((known, id))
    return [*found, (removed, None)] if removed is not None else found


def _newer(changes: Iterable[tuple[int, bool]], arrived: int) -> list[tuple[int, bool]]:
    return [(id, is_added) for id, is_added in changes if id > arrived]


PAGE_SIZE = 200

REMOVAL_PAGES = 5
"""Maximum number of pages to search for a removal: few messages follow between it and the first suspicion."""


class Arrival(Struct, frozen=True):
    """The bot's arrival in a thread.

    Args:
        message: Latest system message that lists the bot as added; None if the thread shows none.
        people: Number of participants, including the bot.
        top: Newest version in the thread; `people` does not count later arrivals.
    """

    message: MessageId | None
    people: int
    top: int


async def find_arrival(service: ChatService, thread: ThreadId, budget: Budget, *, not_before_ms: int) -> Arrival:
    """Find the bot's arrival in a thread, and check that it is a participant.

    Only the participant list proves membership: it is unknown whether a removed user can still read messages
    (GitHub issue Azure/Communication#345).

    Args:
        service: The service, accessed as the bot.
        thread: The thread.
        budget: Quotas of the thread. Each page waits for its quota, because the search cannot be resumed later.
        not_before_ms: Epoch ms at which the search stops, because an earlier arrival makes no difference.

    Raises:
        Forbidden, NotFound: The bot is not in the thread, or the thread is gone.
        ServiceError: The service failed.
    """
    people = await count_people(service, thread, budget)
    top = 0
    link: str | None = None
    paging = Paging(f"list the messages of thread {thread}")
    lowest: int | None = None
    while True:
        async with _quota(budget, Operation.LIST_MESSAGES):
            page = await service.list_messages(thread, page_size=PAGE_SIZE, link=link)
        top = max([top, *(message.version for message in page.messages)])
        for message in page.messages:
            if names_user(message, MessageType.PARTICIPANT_ADDED, service.user):
                return Arrival(message.id, people, top)
        if page.next_link is None or any(message.version < not_before_ms for message in page.messages):
            return Arrival(None, people, top)
        last = min((message.version for message in page.messages), default=lowest)
        is_news = last is not None and (lowest is None or last < lowest)
        link, lowest = paging.follow(page.next_link, is_news=is_news), last


async def count_people(service: ChatService, thread: ThreadId, budget: Budget) -> int:
    """Count the participants of a thread, and check that the bot is one of them.

    Raises:
        Forbidden: The bot is not in the thread.
        ServiceError: As `ChatService.list_participants`.
    """
    async with _quota(budget, Operation.LIST_PARTICIPANTS):
        people = [person.user async for person in service.list_participants(thread)]
    if service.user not in people:
        raise not_listed(thread)
    return len(people)


def not_listed(thread: ThreadId) -> Forbidden:
    """Return the error for a participant list without the bot; it proves as much as a refusal by the service."""
    return Forbidden(f"the participants of thread {thread} do not name the bot", code="Forbidden")


async def shows_removal(service: ChatService, thread: ThreadId, budget: Budget, *, since: int) -> bool:
    """Return whether the latest system message that names the bot is its removal.

    Args:
        service: The service, accessed as the bot.
        thread: The thread.
        budget: Quotas of the thread.
        since: Id of the message that began the bot's stay; the search stops there.

    Raises:
        ServiceError: The thread cannot be read.
    """
    link: str | None = None
    for _ in range(REMOVAL_PAGES):
        async with _quota(budget, Operation.LIST_MESSAGES):
            page = await service.list_messages(thread, page_size=PAGE_SIZE, link=link)
        for message in sorted(page.messages, key=lambda message: message.number, reverse=True):
            if message.number > since and names_user(message, MessageType.PARTICIPANT_REMOVED, service.user):
                return True
            if names_user(message, MessageType.PARTICIPANT_ADDED, service.user):
                return False
        link = page.next_link
        if link is None or any(message.version <= since for message in page.messages):
            return False
    return False


@asynccontextmanager
async def _quota(budget: Budget, operation: Operation) -> AsyncIterator[None]:
    """Make a request when the quota allows it; if it is throttled all the same, no other one follows too soon."""
    await anyio.sleep(budget.delay(operation, anyio.current_time()))
    budget.spend(operation, anyio.current_time())
    try:
        yield
    except Throttled as error:
        budget.block_throttled(operation, anyio.current_time(), error.retry_after)
        raise


def floor_of(arrival: MessageId | None, history: timedelta, *, first_started_ms: int) -> int:
    """Return the message id above which the bot handles messages of a thread.

    This is just below the bot's arrival, but never before the first start of its identity: a greeting sent before the
    bot noticed the thread is answered, months of old messages are not. `history` moves the limit back by a duration,
    or to the beginning.

    Args:
        arrival: System message that lists the bot as added; None if there is none since the first start.
        history: How far back to read.
        first_started_ms: Service time of the bot's first start, epoch ms.
    """
    if history == ALL_HISTORY:
        return 0
    start = max(int(arrival or 0), first_started_ms) - 1
    return max(0, start - int(history.total_seconds() * 1000))
