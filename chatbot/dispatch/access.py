"""Who is answered: allow lists, limits for each person, and an end to talks between machines. Pure but for its memory.

Rules:
    1. With an allow list, only those on it, admins, and the daemon's other bots are heard at all.
    2. With a rate, nobody but admins gets more answers in a thread than it says; they are told so, once.
    3. Talks between bots end: a known bot gets ten answers in a row, and anybody else two hundred without a minute's
       pause, as only machines talk so. What ends them is a pause, or a word from somebody else. Bots that only answer
       fall silent by themselves when they are not answered.
    4. Only answers count: who talks to others in a thread is not limited.
It remembers nothing over a restart.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from chatbot.dispatch.occasion import BotInfo
from chatbot.events import Event, MessageDeleted, MessageEvent
from chatbot.model import ThreadId, UserId

REMEMBERED: Final = 10_000
"""Threads, and people in them, about which something is remembered; the longest silent are forgotten first."""

MOST_OF_A_BOT: Final = 10
MOST_IN_A_ROW: Final = 200
PAUSE: Final = timedelta(minutes=1)


class Admission(Enum):
    """Whether an event may be answered."""

    WELCOME = "welcome"
    UNINVITED = "uninvited"
    TOO_MUCH = "too much"
    LOOP = "loop"


@dataclass(frozen=True, slots=True)
class Rate:
    """So many answers in so much time, for each person in each thread."""

    messages: int
    per: timedelta

    def __post_init__(self) -> None:
        if self.messages < 1 or self.per <= timedelta():
            msg = f"Rate({self.messages}, {self.per!r}): at least one message in more than no time"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may use a bot, and how much.

    Args:
        allow: the only ones that are heard, besides admins; None is everybody.
        rate: how many answers each of them gets; None is as many as they like.
    """

    allow: frozenset[UserId] | None = None
    rate: Rate | None = None


@dataclass(slots=True)
class _Row:
    """Answers in a row to one sender in a thread."""

    sender: UserId
    last: datetime
    keys: set[str] = field(default_factory=set)
    told_key: str | None = None


@dataclass(slots=True)
class _Share:
    """The answers that a person got lately."""

    answers: deque[tuple[datetime, str]] = field(default_factory=deque)
    told_key: str | None = None


class Doorkeeper:
    """Decides whom a bot answers.

    Args:
        bot: which bot.
        access: who may use it.
    """

    def __init__(self, bot: BotInfo, access: Access) -> None:
        self._bot = bot
        self._access = access
        self._rows: OrderedDict[ThreadId, _Row] = OrderedDict()
        self._shares: OrderedDict[tuple[ThreadId, UserId], _Share] = OrderedDict()

    def admit(self, event: Event) -> Admission:
        """Whether an event may be answered; only what people do with messages is judged."""
        if not isinstance(event, MessageEvent) or event.message.sender is None:
            return Admission.WELCOME
        sender = event.message.sender
        if not self._is_invited(sender):
            return Admission.UNINVITED
        if self._is_looping(event, sender):
            return Admission.LOOP
        return Admission.TOO_MUCH if self._is_limited(event, sender) else Admission.WELCOME

    def should_tell(self, event: Event, admission: Admission) -> bool:
        """Whether a refusal is news: the first one only, until the same sender is answered again."""
        assert isinstance(event, MessageEvent)
        assert event.message.sender is not None
        met: _Row | _Share
        if admission is Admission.TOO_MUCH:
            met = self._shares[event.thread, event.message.sender]
        else:
            met = self._rows[event.thread]
        news = met.told_key in (None, event.key)
        met.told_key = event.key if news else met.told_key
        return news

    def note_answer(self, event: Event) -> None:
        """An event is answered; the same one is counted once, however often it is tried."""
        if not isinstance(event, MessageEvent) or event.message.sender is None or isinstance(event, MessageDeleted):
            return
        sender = event.message.sender
        row = self._rows.get(event.thread)
        if row is None or row.sender != sender:
            row = self._rows[event.thread] = _Row(sender, event.occurred_on)
        row.keys.add(event.key)
        row.last = max(row.last, event.occurred_on)
        _forget(self._rows, event.thread)
        if self._access.rate is not None:
            share = self._shares.setdefault((event.thread, sender), _Share())
            if event.key not in {key for _, key in share.answers}:
                share.answers.append((event.occurred_on, event.key))
            share.told_key = None
            _forget(self._shares, (event.thread, sender))

    def _is_invited(self, sender: UserId) -> bool:
        allow, bot = self._access.allow, self._bot
        return allow is None or sender in allow or sender in bot.admins or sender in bot.siblings

    def _is_looping(self, event: MessageEvent, sender: UserId) -> bool:
        row = self._rows.get(event.thread)
        if row is None:
            return False
        if row.sender != sender or event.occurred_on - row.last >= PAUSE:
            del self._rows[event.thread]
            return False
        is_bot = sender in self._bot.siblings or event.message.reply_key is not None
        is_looping = len(row.keys) - (event.key in row.keys) >= (MOST_OF_A_BOT if is_bot else MOST_IN_A_ROW)
        if is_looping:
            row.last = max(row.last, event.occurred_on)
        return is_looping

    def _is_limited(self, event: MessageEvent, sender: UserId) -> bool:
        rate = self._access.rate
        if rate is None or sender in self._bot.admins or sender in self._bot.siblings:
            return False
        share = self._shares.get((event.thread, sender))
        if share is None:
            return False
        while share.answers and share.answers[0][0] <= event.occurred_on - rate.per:
            share.answers.popleft()
        return len([key for _, key in share.answers if key != event.key]) >= rate.messages


def _forget(remembered: OrderedDict, latest: object) -> None:  # type: ignore[type-arg]
    remembered.move_to_end(latest)
    if len(remembered) > REMEMBERED:
        remembered.popitem(last=False)
