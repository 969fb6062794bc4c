"""The looks that nobody asked for: each thread has a beat, and all beats together keep to a rate. Pure.

Rules of this file
1. Times are arguments, in seconds of one monotonic clock; no wall clock, so no step of it can gather the beats.
2. Beats that together want more than the rate are stretched, all by the same factor: a thread that talks stays as
   much ahead of a silent one as it was, and none waits for ever.
3. However many are due at once (after a start, a stopped process, a long throttling), they are let through at the
   rate, the one that has waited longest first.

Whose turn it is next. Pure: times are arguments, in seconds of one monotonic clock.

A *call* is a turn that something asks for (the bell, a timer, an action, another try), due at its own time. A *beat* is
a look that nobody asked for, paced by `Beats`. Calls go first, but never so many in a row that beats would starve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from chatbot.conversation.due_queue import DueQueue
from chatbot.model import ThreadId

BURST: Final = 0.25
"""Seconds' worth of the rate that may be let through at once after a quiet time."""


class RateLimitedPolls:
    """When each thread is looked at although nothing rang.

    Args:
        rate: looks a second, at most, over any time longer than `BURST`.
    """

    __slots__ = ("_demand", "_free_at", "_rate", "_schedule", "_wanted")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._schedule = DueQueue[ThreadId, float]()
        self._wanted: dict[ThreadId, float] = {}
        self._demand = 0.0
        self._free_at = -math.inf

    def __len__(self) -> int:
        return len(self._schedule)

    def __contains__(self, thread: ThreadId) -> bool:
        return thread in self._schedule

    @property
    def stretch(self) -> float:
        """By how much all pauses are longer than they were asked for; 1 where the rate suffices."""
        return max(1.0, self._demand / self._rate)

    def set(self, thread: ThreadId, pause: float, now: float, *, phase: float = 1.0) -> None:
        """Look at the thread after a pause, or earlier if that was said before.

        Args:
            thread: which one.
            pause: seconds, more than 0, before they are stretched.
            now: the time.
            phase: the part of the pause that is still to come; random ones spread threads that begin together.
        """
        self._weigh(thread, 1.0 / pause)
        self._schedule.set_earlier(thread, now + pause * self.stretch * phase)

    def skip(self, thread: ThreadId) -> None:
        """The thread is looked at just now for another reason; it goes on to count until it is set or dropped."""
        self._schedule.drop(thread)

    def drop(self, thread: ThreadId) -> None:
        """Do not look at the thread."""
        self._schedule.drop(thread)
        self._weigh(thread, 0.0)

    def first(self) -> tuple[ThreadId, float] | None:
        """The thread that is due first, and when it is; None when none is."""
        return self._schedule.first()

    def next_due(self) -> float | None:
        """When `take` gives the next thread; None when none waits."""
        due = self._schedule.next_due()
        return None if due is None else max(due, self._free_at)

    def take(self, now: float) -> ThreadId | None:
        """Remove and return the thread that has been due for longest; None when none may be looked at yet.

        It goes on to count as wanting its looks until it is set anew or dropped.
        """
        if now < self._free_at or (thread := self._schedule.pop_due(now)) is None:
            return None
        self._free_at = max(self._free_at, now - BURST) + 1.0 / self._rate
        return thread

    def _weigh(self, thread: ThreadId, wanted: float) -> None:
        self._demand += wanted - self._wanted.pop(thread, 0.0)
        if wanted:
            self._wanted[thread] = wanted
        if not self._wanted:
            self._demand = 0.0  # what rounding has left


CALLS_IN_A_ROW: Final = 8
"""So many calls are answered before a beat that is due gets its turn."""


@dataclass(frozen=True, slots=True)
class NextRun:
    """When a lane needs its next turn.

    Args:
        call: in so many seconds, because something is to be done then; None when nothing is.
        beat: after so many seconds, before they are stretched, to see what nobody told; None for not at all.
    """

    call: float | None = None
    beat: float | None = None


class PollQueue:
    """The turns that are waited for; each thread has at most one call and one beat, and a turn serves both.

    Args:
        rate: beats a second, at most.
    """

    __slots__ = ("_beats", "_calls", "_in_a_row")

    def __init__(self, rate: float) -> None:
        self._calls = DueQueue[ThreadId, float]()
        self._beats = RateLimitedPolls(rate)
        self._in_a_row = 0

    def __contains__(self, thread: ThreadId) -> bool:
        return thread in self._calls or thread in self._beats

    @property
    def stretch(self) -> float:
        """By how much beats are slower than they were asked for."""
        return self._beats.stretch

    def call(self, thread: ThreadId, due: float) -> None:
        """Give the thread a turn at `due`, or earlier if that was said before."""
        self._calls.set_earlier(thread, due)

    def spread(self, thread: ThreadId, pause: float, now: float, *, phase: float) -> None:
        """Begin the beat of a thread, when only a part (0 to 1) of its pause is still to come."""
        self._beats.set(thread, pause, now, phase=phase)

    def rest(self, thread: ThreadId, rest: NextRun, now: float) -> None:
        """A turn has ended."""
        if rest.call is not None:
            self._calls.set_earlier(thread, now + rest.call)
        if rest.beat is None:
            self._beats.drop(thread)
        else:
            self._beats.set(thread, rest.beat, now)

    def first(self) -> tuple[ThreadId, float] | None:
        """The thread whose turn was asked for first, and for when; None while none waits."""
        waiting = [one for one in (self._calls.first(), self._beats.first()) if one is not None]
        return min(waiting, key=lambda one: one[1], default=None)

    def next_due(self) -> float | None:
        """When `take` gives the next thread; None while none waits."""
        dues = [due for due in (self._calls.next_due(), self._beats.next_due()) if due is not None]
        return min(dues, default=None)

    def take(self, now: float) -> ThreadId | None:
        """Remove and return the thread whose turn it is; None when it is nobody's yet."""
        thread = self._take(now)
        if thread is not None:
            self._calls.drop(thread)
            self._beats.skip(thread)
        return thread

    def _take(self, now: float) -> ThreadId | None:
        if self._in_a_row < CALLS_IN_A_ROW and (thread := self._calls.pop_due(now)) is not None:
            self._in_a_row += 1
            return thread
        self._in_a_row = 0
        return self._beats.take(now) or self._calls.pop_due(now)


def sooner(a: float | None, b: float | None) -> float | None:
    """Return the shorter of two pauses; None is no pause."""
    return b if a is None else a if b is None else min(a, b)
