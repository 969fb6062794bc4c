"""Whether a bot is in a thread: what proves that it is not, and when to ask again.

The states of a membership and what leads from one to another::

    UNKNOWN ──list of participants names the bot──▶ IN
    UNKNOWN ──refused──▶ OUT
    IN ──a request is refused, or `participantRemoved` names the bot──▶ SUSPECTED
    SUSPECTED ──list of participants names the bot──▶ IN
    SUSPECTED ──two sightings, at least `PROOF_SECONDS` apart──▶ OUT
    OUT ──a probe finds the bot in the list of participants──▶ IN
    OUT ──the thread moved in the list of threads──▶ UNKNOWN
    any ──the list of threads shows the thread as deleted──▶ DELETED

Rules of this file
1. Only answers of the service itself prove anything: its own error envelope, a list of participants without the bot,
   or a `participantRemoved`. The page of a proxy is a failure like any other.
2. If the list of threads or other threads are refused too, the bot is in trouble, not out of a thread: that is no
   sighting, and it clears nothing.
3. Leaving loses nothing. Whoever is out keeps the cursor, and what is pending is parked: see `Parking`.

`ThreadState` is what a bot knows of one thread, `AnswerCheck` tells a refusal by one thread from trouble of the bot,
and the functions below find where a thread begins for a bot that finds itself in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Final

import anyio

from chatbot.bot.environment import ALL_HISTORY, NOWHERE, BotContext
from chatbot.errors import Forbidden, ServiceError
from chatbot.model import MessageId, MessageType, Participant, ThreadId
from chatbot.polling.message_events import names_user
from chatbot.polling.thread_list import may_have_moved
from chatbot.service.base import ChatService, Paging
from chatbot.service.budget import Budget, Operation
from chatbot.stores.records import ThreadRecord

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

ANSWER_SECONDS: Final = 1.0
"""How long an answer of the service vouches for it, when threads are suspected to be left."""

PROOF_SECONDS: Final = 5.0
"""Between the two sightings that prove a removal."""

FIRST_PROBE_PAUSE: Final = 2.0
MAX_PROBE_PAUSE: Final = 300.0
"""Between two probes of a thread that moves in the list of threads."""

SHORTEST_TIMED_PROBE: Final = 5.0
LONGEST_TIMED_PROBE: Final = 3600.0
"""Between two probes of a thread in which nothing moves: about as long as the bot has been out of it."""


class Presence(Enum):
    """What is known of a bot's being in a thread."""

    UNKNOWN = "unknown"
    IN = "in"
    SUSPECTED = "suspected"
    OUT = "out"
    DELETED = "deleted"


class Sighting(Enum):
    """What a look for the bot in a thread has shown."""

    PRESENT = "present"
    ABSENT = "absent"
    UNCLEAR = "unclear"


@dataclass(slots=True)
class Membership:
    """A bot's being in one thread.

    Threads the bot was removed from stay listed for ever and look like any other, so one that moves is probed
    again, at most every few minutes while the probes fail; and one that does not move ever more rarely.

    Args:
        presence: what is known.
        was_told: whether the handlers take the bot to be out: they were told so, or never told otherwise.
        left_ms: when the bot was found to be out, epoch ms; None while the handlers take it to be in.
    """

    presence: Presence
    was_told: bool = True
    left_ms: int | None = None
    _absent_at: float | None = None
    _probed_stamp: datetime | None = None
    _probes: int = 0
    _not_before: float = 0.0
    _timed_at: float = 0.0

    @property
    def is_out(self) -> bool:
        """Whether the bot is known not to be in the thread, or the thread is gone."""
        return self.presence in (Presence.OUT, Presence.DELETED)

    # ── from in to out ────────────────────────────────────────────────────────────────────────────────────────

    def suspect(self) -> None:
        """Something says that the bot is not in the thread any more."""
        if self.presence is Presence.IN:
            self.presence, self._absent_at = Presence.SUSPECTED, None

    @property
    def first_absent_at(self) -> float | None:
        """When the first sighting of the suspicion in hand was made; None before it."""
        return self._absent_at

    def sight(self, sighting: Sighting, now: float) -> bool:
        """Take what a look for the bot has shown; True when the removal is proven."""
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
        """Seconds until the next look for the bot can prove anything."""
        return 0.0 if self._absent_at is None else max(0.0, self._absent_at + PROOF_SECONDS - now)

    def leave(self, now: float, left_ms: int | None = None, *, is_deleted: bool = False, age: float = 0.0) -> None:
        """The bot is out, and the handlers know.

        Args:
            now: the time, in seconds of a monotonic clock.
            left_ms: since when, epoch ms; None leaves what is known.
            is_deleted: the list of threads shows the thread as deleted; it is not probed any more.
            age: for how many seconds the bot has been out.
        """
        self.presence, self.was_told = Presence.DELETED if is_deleted else Presence.OUT, True
        self._absent_at = None
        if left_ms is not None:
            self.left_ms = left_ms
        self._not_before = now + min(MAX_PROBE_PAUSE, FIRST_PROBE_PAUSE * 2 ** min(self._probes, 8))
        self._probes += 1
        self.put_off(now, age)

    # ── from out to in ────────────────────────────────────────────────────────────────────────────────────────

    def is_worth_a_probe(self, stamp: datetime | None, left_ms: int | None, now: float) -> bool:
        """Whether a thread the bot is out of has moved since, so that the bot may be in it again."""
        if self.presence is not Presence.OUT or now < self._not_before:
            return False
        return stamp != self._probed_stamp and may_have_moved(stamp, left_ms)

    def put_off(self, now: float, age: float, jitter: float = 1.0) -> None:
        """Probe again after a pause.

        Args:
            now: the time, in seconds of a monotonic clock.
            age: for how many seconds the bot has been out: probes become rarer as fast as this grows, over restarts.
            jitter: a factor of the pause; keeps threads apart that were left together.
        """
        self._timed_at = now + min(LONGEST_TIMED_PROBE, max(SHORTEST_TIMED_PROBE, age)) * jitter

    def next_probe(self, now: float, age: float, retention: float) -> float | None:
        """Seconds until the next probe that nothing asks for; None when there is none.

        Args:
            now: the time, in seconds of a monotonic clock.
            age: for how many seconds the bot has been out.
            retention: after so many seconds out of the thread, only the list of threads is heard.
        """
        if self.presence is not Presence.OUT or age >= retention:
            return None
        return max(0.0, self._timed_at - now)

    def probe(self, stamp: datetime | None) -> None:
        """The bot may be in again: the next turn finds out."""
        self.presence = Presence.UNKNOWN
        self._probed_stamp = stamp

    def enter(self) -> None:
        """The bot is in. Its next probe, once it is out again, may come at the very stamp of this one."""
        self.presence, self._probes = Presence.IN, 0
        self._probed_stamp, self._absent_at = None, None

    def told(self) -> None:
        """The handlers know that the bot is in."""
        self.was_told, self.left_ms = False, None

    @classmethod
    def of(cls, record: ThreadRecord | None) -> Membership:
        """Return the membership that the store remembers."""
        if record is None:
            return cls(Presence.UNKNOWN)
        if not record.is_left:
            return cls(Presence.IN, was_told=record.left_ms is not None, left_ms=record.left_ms)
        # Older stores kept the time of leaving as the base.
        left_ms = record.base if record.left_ms is None else record.left_ms
        return cls(Presence.OUT, was_told=True, left_ms=left_ms)


class ThreadState:
    """What a bot knows of one thread: its quotas, whether the bot is in it, and who else is.

    Args:
        context: the bot's environment.
        thread: which thread; None for events outside threads.
        record: what the store knows of it; None for a thread that the bot was never in.

    Attributes:
        key: stands for the thread in the store.
        log: bound to bot and thread.
        budget: the thread's quotas.
        membership: whether the bot is in it.
        arrived: the id of the system message that began the bot's stay; 0 if that is not known.
        people: who is in it, as last asked; None if that is not known any more.
        people_at: when that was asked.
    """

    __slots__ = ("arrived", "budget", "key", "log", "membership", "people", "people_at", "thread")

    def __init__(self, context: BotContext, thread: ThreadId | None, record: ThreadRecord | None) -> None:
        self.thread = thread
        self.key = thread or NOWHERE
        self.log: FilteringBoundLogger = context.log.bind(thread=thread) if thread else context.log
        self.budget = Budget(shared=context.shared.of(thread)) if thread else Budget()
        self.membership = Membership.of(record)
        self.arrived = record.arrived or 0 if record is not None else 0
        self.people: tuple[Participant, ...] | None = None
        self.people_at = 0.0

    def age(self, now_ms: int) -> float:
        """Return for how many seconds the bot has been out of the thread."""
        left_ms = self.membership.left_ms
        return 0.0 if left_ms is None else max(0.0, (now_ms - left_ms) / 1000)


class AnswerCheck:
    """Tells whether the service answers the bot in general, so that a refusal concerns one thread alone.

    Without this check a token of the wrong scope, a policy or an outage would look like a removal from every thread,
    and the bot would tell its handlers so.

    Args:
        context: the bot's environment.
        wake: gives a thread's lane a turn.

    Attributes:
        threads: the threads that have a lane.
    """

    def __init__(self, context: BotContext, wake: Callable[[ThreadId], None]) -> None:
        self._context = context
        self._wake = wake
        self._answered_at = -ANSWER_SECONDS
        self._answered_in: dict[ThreadId, float] = {}
        self.threads: dict[ThreadId, ThreadState] = {}

    def note_answer(self) -> None:
        """Note that the service has just listed the bot's threads."""
        self._answered_at = anyio.current_time()

    async def is_answered_elsewhere(self, thread: ThreadId) -> bool:
        """Return whether the service answers the bot apart from this thread.

        It answers if it lists the bot's threads, and the participants of another thread that the bot takes itself to
        be in, if there is any. Other threads that are refused as well mean trouble of the bot's.
        """
        if anyio.current_time() - self._answered_at >= ANSWER_SECONDS:
            budget = self._context.budget
            await anyio.sleep(budget.delay(Operation.LIST_THREADS, anyio.current_time()))
            budget.spend(Operation.LIST_THREADS, anyio.current_time())
            try:
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
            self._wake(other.key)  # it finds out for itself
            return False
        self._answered_in[other.key] = anyio.current_time()
        return True


@dataclass(frozen=True, slots=True)
class Parking:
    """How long what is pending in a thread waits for a bot that is out of it.

    Args:
        rejoin_seconds: how long replies wait.
        retention_seconds: how long timers and dialogs wait.
    """

    rejoin_seconds: float
    retention_seconds: float

    def expires_replies(self, age: float) -> bool:
        """Whether replies have waited long enough.

        Args:
            age: for how many seconds the bot has been out.
        """
        return age >= self.rejoin_seconds

    def expires_conversations(self, age: float) -> bool:
        """Whether timers and dialogs have waited long enough; replies never wait longer than these."""
        return age >= max(self.rejoin_seconds, self.retention_seconds)

    def next(self, age: float) -> float | None:
        """Seconds until something has waited long enough; None when everything has."""
        ends = (self.rejoin_seconds, max(self.rejoin_seconds, self.retention_seconds))
        return min((end - age for end in ends if end > age), default=None)


def absences(comings: Mapping[int, bool], *, arrived: int, known: int | None = None) -> list[tuple[int, int | None]]:
    """When the bot was out of a thread, as ids of system messages: from one up to the other, None for still.

    What was said in an absence was not said to the bot. What was said before one is handled, however late.

    Args:
        comings: system messages that name the bot, by id: True where it was added, False where it was removed.
        arrived: the id of the message that began the stay that is known; older ones say nothing new.
        known: the newest version known of the thread; where the service shows the bot's return but not its removal,
            the absence began there. None if the bot's arrival was not known, either.
    """
    found: list[tuple[int, int | None]] = []
    removed: int | None = None
    for id, is_added in sorted(_newer(comings.items(), arrived)):
        if not is_added:
            removed = id if removed is None else removed
        elif removed is not None:
            found.append((removed, id))
            removed = None
        elif not found and known is not None and known < id:
            found.append((known, id))
    return [*found, (removed, None)] if removed is not None else found


def _newer(comings: Iterable[tuple[int, bool]], arrived: int) -> list[tuple[int, bool]]:
    return [(id, is_added) for id, is_added in comings if id > arrived]


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
            if names_user(message, MessageType.PARTICIPANT_ADDED, service.user):
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
            if message.number > since and names_user(message, MessageType.PARTICIPANT_REMOVED, service.user):
                return True
            if names_user(message, MessageType.PARTICIPANT_ADDED, service.user):
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
