"""Decide whether an event may be answered: allow lists, rate limits, and loop protection between bots.

Rules:
    1. With an allow list, only users on it, admins, and the daemon's other bots are answered.
    2. With a rate, everyone but admins gets at most that many answers in a thread; each person is notified once.
    3. Conversations between bots end: a known bot gets ten answers in a row, any other sender two hundred without a
       pause of a minute, since only machines talk like that. A pause or a message from somebody else resets the count.
    4. Only answers count. Messages to others in a thread are not limited.

The answers that count against a rate are state, committed with each answer. A limit per day therefore holds across
restarts, and an event that is retried counts once. Answers in a row are kept in memory only: storing them would cost
one write for every event, and a restart gives two bots no more than ten further answers.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from functools import cache
from typing import Final

from chatbot.conversation.state import StateType, UserState, state_type_of
from chatbot.conversation.unit_of_work import UnitOfWork
from chatbot.dispatch.event_view import BotInfo
from chatbot.events import Event, MessageDeleted, MessageEvent
from chatbot.model import ThreadId, UserId, milliseconds


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit of answers per time, for each person in each thread."""

    messages: int
    per: timedelta

    def __post_init__(self) -> None:
        if self.messages < 1 or self.per <= timedelta():
            msg = f"Rate({self.messages}, {self.per!r}): allow at least one message, in a time longer than zero"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class RateUsage:
    """The answers that a person got lately in a thread.

    Args:
        answered_ms: the times of the answered events, epoch ms.
        is_told: whether the person was notified of the limit.
    """

    answered_ms: tuple[int, ...] = ()
    is_told: bool = False

    def is_used_up(self, rate: Rate, now: datetime) -> bool:
        """Return whether the limit is reached at this time."""
        return len(self._lately(rate, now)) >= rate.messages

    def with_answer(self, rate: Rate, now: datetime) -> RateUsage:
        """Return a copy with one more answer, without those that are too old to count."""
        return RateUsage((*self._lately(rate, now), milliseconds(now)))

    def _lately(self, rate: Rate, now: datetime) -> tuple[int, ...]:
        now_ms = milliseconds(now)
        return tuple(
            answered
            for answered in self.answered_ms
            if now_ms - rate.per / timedelta(milliseconds=1) < answered <= now_ms
        )


@cache
def rate_usage_type() -> StateType:
    """Return the type of state in which shares are stored."""
    kind = state_type_of(UserState[RateUsage])
    assert kind is not None
    # Stores of all versions have this name, so it must not follow the class when that moves.
    return replace(kind, name="chatbot.dispatch.rate.Share")


MAX_SENDERS: Final = 10_000
"""Maximum number of threads remembered for loop protection; the least recently answered one is dropped first."""

MAX_ANSWERS_TO_BOT: Final = 10
MAX_ANSWERS_IN_A_ROW: Final = 200
RESET_PAUSE: Final = timedelta(minutes=1)


class Verdict(Enum):
    """Whether an event may be answered."""

    ALLOWED = "welcome"
    DENIED = "uninvited"
    RATE_LIMITED = "too much"
    LOOP = "loop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may use a bot, and how much.

    Args:
        allow: the users whom the bot answers, besides admins; None answers everybody.
        rate: the limit of answers for each person in each thread; None sets no limit.
        are_people_known: nobody who writes is a bot of others, as in a recorded conversation: loop protection is for
            this process's own bots only.
    """

    allow: frozenset[UserId] | None = None
    rate: Rate | None = None
    are_people_known: bool = False


@dataclass(slots=True)
class _AnswersInARow:
    """Answers in a row to one sender in a thread.

    A thread's events are handled one after the other, so comparing with the latest key is enough to count each once.
    """

    sender: UserId
    last: datetime
    count: int = 0
    latest_key: str | None = None
    reported_key: str | None = None


class AccessPolicy:
    """Decides whom a bot answers.

    Attributes:
        has_rate: there is a rate limit.
    """

    def __init__(self, bot: BotInfo, access: Access) -> None:
        self._bot = bot
        self._access = access
        self.has_rate = access.rate is not None
        self._answers: OrderedDict[ThreadId, _AnswersInARow] = OrderedDict()
        self._usage = rate_usage_type()

    def admit(self, event: Event) -> Verdict:
        """Return whether an event may be answered, but for the rate limit.

        Only events of messages that have a sender are restricted.
        """
        if not isinstance(event, MessageEvent) or event.message.sender is None:
            return Verdict.ALLOWED
        sender = event.message.sender
        if self._access.allow is not None and not self._is_allowed(sender, self._access.allow):
            return Verdict.DENIED
        row = self._answers.get(event.thread)
        return Verdict.LOOP if row is not None and self._is_looping(row, event, sender) else Verdict.ALLOWED

    async def check_rate(self, event: Event, unit_of_work: UnitOfWork) -> Verdict:
        """Return whether an admitted event exceeds the rate limit of its sender.

        Raises:
            StoreError: the answers that the person got cannot be read.
        """
        rate = self._rate_of(event.message.sender) if isinstance(event, MessageEvent) and event.message.sender else None
        if rate is None:
            return Verdict.ALLOWED
        share: RateUsage = (await unit_of_work.state(self._usage)).peek()
        return Verdict.RATE_LIMITED if share.is_used_up(rate, event.occurred_on) else Verdict.ALLOWED

    async def should_report(self, event: Event, verdict: Verdict, unit_of_work: UnitOfWork) -> bool:
        """Return whether to report a refusal: only the first one, until the same sender is answered again."""
        assert isinstance(event, MessageEvent)
        if verdict is Verdict.RATE_LIMITED:
            share = await unit_of_work.state(self._usage)
            known: RateUsage = share.peek()
            share.value = replace(known, is_told=True)
            return not known.is_told
        row = self._answers[event.thread]
        news = row.reported_key in (None, event.key)
        row.reported_key = event.key if news else row.reported_key
        return news

    async def note_answer(self, event: Event, unit_of_work: UnitOfWork) -> None:
        """Count an answer; an event that is retried counts once."""
        sender = self.count_in_row(event)
        rate = None if sender is None else self._rate_of(sender)
        if rate is not None:
            share = await unit_of_work.state(self._usage)
            share.value = share.peek().with_answer(rate, event.occurred_on)

    def count_in_row(self, event: Event) -> UserId | None:
        """Count an answer for loop protection only, and return who got it; None if nobody did."""
        if not isinstance(event, MessageEvent) or event.message.sender is None or isinstance(event, MessageDeleted):
            return None
        sender = event.message.sender
        row = self._answers.get(event.thread)
        if row is None or row.sender != sender:
            row = self._answers[event.thread] = _AnswersInARow(sender, event.occurred_on)
        row.count += event.key != row.latest_key
        row.latest_key = event.key
        row.last = max(row.last, event.occurred_on)
        self._answers.move_to_end(event.thread)
        if len(self._answers) > MAX_SENDERS:
            self._answers.popitem(last=False)
        return sender

    def _is_allowed(self, sender: UserId, allow: frozenset[UserId]) -> bool:
        return sender in allow or sender in self._bot.admins or sender in self._bot.siblings

    def _is_looping(self, row: _AnswersInARow, event: MessageEvent, sender: UserId) -> bool:
        if row.sender != sender or event.occurred_on - row.last >= RESET_PAUSE:
            del self._answers[event.thread]
            return False
        if self._access.are_people_known and sender not in self._bot.siblings:
            return False
        is_bot = sender in self._bot.siblings or event.message.reply_key is not None
        before = row.count - (event.key == row.latest_key)
        is_looping = before >= (MAX_ANSWERS_TO_BOT if is_bot else MAX_ANSWERS_IN_A_ROW)
        if is_looping:
            row.last = max(row.last, event.occurred_on)
        return is_looping

    def _rate_of(self, sender: UserId) -> Rate | None:
        rate = self._access.rate
        return None if rate is None or sender in self._bot.admins or sender in self._bot.siblings else rate
