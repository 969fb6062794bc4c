"""How many answers a person gets in a thread: counted as state, which is committed together with each answer.

So a limit of a day is one of a day, however often the bot is restarted, and an event that is tried again counts once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

from chatbot.conversation.kind import Kind, kind_of
from chatbot.conversation.state import UserState
from chatbot.model import milliseconds


@dataclass(frozen=True, slots=True)
class Rate:
    """So many answers in so much time, for each person in each thread."""

    messages: int
    per: timedelta

    def __post_init__(self) -> None:
        if self.messages < 1 or self.per <= timedelta():
            msg = f"Rate({self.messages}, {self.per!r}): at least one message in more than no time"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Share:
    """The answers that a person got lately in a thread.

    Args:
        answered_ms: when what was answered happened, epoch ms.
        is_told: whether they know that they ask too much.
    """

    answered_ms: tuple[int, ...] = ()
    is_told: bool = False

    def is_used_up(self, rate: Rate, now: datetime) -> bool:
        """Whether they have got all the answers that there are at this moment."""
        return len(self._lately(rate, now)) >= rate.messages

    def with_answer(self, rate: Rate, now: datetime) -> Share:
        """One answer more; those too old to count are let go."""
        return Share((*self._lately(rate, now), milliseconds(now)))

    def _lately(self, rate: Rate, now: datetime) -> tuple[int, ...]:
        now_ms = milliseconds(now)
        return tuple(one for one in self.answered_ms if now_ms - rate.per / timedelta(milliseconds=1) < one <= now_ms)


@cache
def kind_of_share() -> Kind:
    """As what shares are remembered."""
    kind = kind_of(UserState[Share])
    assert kind is not None
    return kind
