"""Queue of turns: due work of threads first, then periodic polls limited to a rate.

A *request* asks for a turn at a certain time: for a change in the thread list, a timer, an action or a retry. A
*periodic poll* needs no request and is paced by `RateLimitedPolls`. Requests go first, but never so many in a row that
periodic polls starve.

Active and silent threads have a rate each: how late a change in a silent thread is noticed does not depend on how many
people talk elsewhere.

Rules of this module:

1. Times are arguments, in seconds of one monotonic clock. There is no wall clock, so a step of the wall clock cannot
   make all polls due at once.
2. If the periodic polls exceed the rate together, all pauses are stretched by the same factor. An active thread stays
   ahead of an idle one, and no thread waits forever.
3. However many polls are due at once (after a start, a suspended process, long throttling), they pass at the rate, the
   one that has waited longest first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from chatbot.conversation.due_queue import DueQueue
from chatbot.model import ThreadId

BURST: Final = 0.5
"""Seconds of the rate that may pass at once after an idle time: a tick of silent threads, and some time for an event
loop that is late for it. Of a tick that is later than that, polls would be lost, and all would be late from then on."""

TICK: Final = 0.2
"""Silent threads are polled at multiples of this many seconds, many at once: polls one by one find the processor's
caches cold, and cost half as much again."""


class RateLimitedPolls:
    """Schedule of the periodic polls of all threads, limited to a common rate.

    Args:
        rate: Maximum polls per second, over any time longer than `BURST`.
        tick: Seconds; due polls wait for the next multiple of it, to pass together. 0 for no wait.
    """

    __slots__ = ("_demand", "_demands", "_free_at", "_rate", "_schedule", "_tick")

    def __init__(self, rate: float, tick: float = 0.0) -> None:
        self._rate = rate
        self._tick = tick
        self._schedule = DueQueue[ThreadId, float]()
        self._demands: dict[ThreadId, float] = {}
        self._demand = 0.0
        self._free_at = -math.inf

    def __len__(self) -> int:
        return len(self._schedule)

    def __contains__(self, thread: ThreadId) -> bool:
        return thread in self._schedule

    @property
    def stretch(self) -> float:
        """Factor by which all pauses are stretched; 1 if the rate suffices."""
        return max(1.0, self._demand / self._rate)

    def set(self, thread: ThreadId, pause: float, now: float, *, phase: float = 1.0) -> None:
        """Schedule a poll of the thread after a pause; an earlier scheduled poll stays.

        Args:
            thread: The thread.
            pause: Seconds before stretching; greater than 0.
            now: The time.
            phase: Remaining part of the pause, 0 to 1. Random values spread threads that start together.
        """
        self._set_demand(thread, 1.0 / pause)
        self._schedule.set_earlier(thread, now + pause * self.stretch * phase)

    def skip(self, thread: ThreadId) -> None:
        """Cancel the scheduled poll, because the thread is being polled for another reason.

        The thread keeps its share of the demand until `set` or `drop`, so that the stretch stays stable.
        """
        self._schedule.drop(thread)

    def drop(self, thread: ThreadId) -> None:
        """Stop polling the thread."""
        if thread in self._demands:  # all that are scheduled are
            self._schedule.drop(thread)
            self._set_demand(thread, 0.0)

    def first(self) -> tuple[ThreadId, float] | None:
        """Return the thread that is due first, and when; None if none is scheduled."""
        return self._schedule.first()

    def next_due(self) -> float | None:
        """Return when to take the due threads: not before `pop` returns the next one; None if none is scheduled."""
        due = self._schedule.next_due()
        if due is None:
            return None
        due = max(due, self._free_at)
        # Never earlier than `due`, however the product is rounded: the caller would ask again and again.
        return max(due, math.ceil(due / self._tick) * self._tick) if self._tick else due

    def pop(self, now: float) -> ThreadId | None:
        """Remove and return the thread that has been due for longest; None if none may be polled yet.

        The thread keeps its share of the demand until `set` or `drop`.
        """
        due = self.next_due()
        if due is None or now < due:  # also between two ticks: turns that end then would take polls one by one
            return None
        thread = self._schedule.pop_due(now)
        # A token bucket: idle time is credited, but never more than `BURST`.
        self._free_at = max(self._free_at, now - BURST) + 1.0 / self._rate
        return thread

    def _set_demand(self, thread: ThreadId, wanted: float) -> None:
        self._demand += wanted - self._demands.pop(thread, 0.0)
        if wanted:
            self._demands[thread] = wanted
        if not self._demands:
            self._demand = 0.0  # clear the accumulated rounding error


REQUESTS_IN_A_ROW: Final = 8
"""Maximum number of requests served in a row before a due periodic poll gets its turn."""


@dataclass(frozen=True, slots=True)
class NextRun:
    """When a lane needs its next turn.

    Args:
        due_in: Seconds until work is due; None if there is none.
        poll_in: Seconds, before stretching, until the next periodic poll; None for no poll.
    """

    due_in: float | None = None
    poll_in: float | None = None


class PollQueue:
    """Queue of turns. A thread has at most one request and one periodic poll, and one turn serves both.

    Args:
        rate: Maximum periodic polls per second of silent threads, and of active ones.
        idle: Pause between periodic polls of a silent thread.
    """

    __slots__ = ("_active_polls", "_idle", "_in_a_row", "_requests", "_silent_polls")

    def __init__(self, rate: float, idle: float) -> None:
        self._requests = DueQueue[ThreadId, float]()
        self._active_polls, self._silent_polls = RateLimitedPolls(rate), RateLimitedPolls(rate, TICK)
        self._idle = idle
        self._in_a_row = 0

    def __contains__(self, thread: ThreadId) -> bool:
        return thread in self._requests or thread in self._silent_polls or thread in self._active_polls

    @property
    def stretch(self) -> float:
        """Factor by which periodic polls of silent threads are stretched."""
        return self._silent_polls.stretch

    def request(self, thread: ThreadId, due: float) -> None:
        """Request a turn at `due`; an earlier request stays."""
        self._requests.set_earlier(thread, due)

    def start_periodic(self, thread: ThreadId, pause: float, now: float, *, phase: float) -> None:
        """Start the periodic polls of a thread; `phase` (0 to 1) is the remaining part of its first pause."""
        self._set_periodic(thread, pause, now, phase)

    def drop(self, thread: ThreadId) -> None:
        """Remove all turns of a thread."""
        self._requests.drop(thread)
        self._silent_polls.drop(thread)
        self._active_polls.drop(thread)

    def schedule(self, thread: ThreadId, next_run: NextRun, now: float, *, begun_at: float | None = None) -> None:
        """Schedule the next turn of a thread after a turn has ended.

        Args:
            thread: The thread.
            next_run: When it needs the next turn.
            now: The time.
            begun_at: When the turn began; the pause between periodic polls counts from there.
        """
        if next_run.due_in is not None:
            self._requests.set_earlier(thread, now + next_run.due_in)
        if next_run.poll_in is None:
            self._silent_polls.drop(thread)
            self._active_polls.drop(thread)
        else:
            self._set_periodic(thread, next_run.poll_in, now if begun_at is None else begun_at)

    def _set_periodic(self, thread: ThreadId, pause: float, now: float, phase: float = 1.0) -> None:
        polls, others = self._silent_polls, self._active_polls
        if pause < self._idle:
            polls, others = others, polls
        others.drop(thread)
        polls.set(thread, pause, now, phase=phase)

    def first(self) -> tuple[ThreadId, float] | None:
        """Return the thread whose turn is due first, and when; None if none waits. Ignores the rate limit."""
        queues = (self._requests, self._active_polls, self._silent_polls)
        turns = [turn for queue in queues if (turn := queue.first()) is not None]
        return min(turns, key=lambda turn: turn[1], default=None)

    def next_due(self) -> float | None:
        """Return when `take` returns the next thread; None if none waits."""
        queues = (self._requests, self._active_polls, self._silent_polls)
        dues = [due for queue in queues if (due := queue.next_due()) is not None]
        return min(dues, default=None)

    def pop(self, now: float) -> ThreadId | None:
        """Remove and return the thread whose turn it is; None if no turn is due."""
        thread = self._pop(now)
        if thread is not None:
            self._requests.drop(thread)
            self._active_polls.skip(thread)
            self._silent_polls.skip(thread)
        return thread

    def _pop(self, now: float) -> ThreadId | None:
        if self._in_a_row < REQUESTS_IN_A_ROW and (thread := self._requests.pop_due(now)) is not None:
            self._in_a_row += 1
            return thread
        self._in_a_row = 0
        first, second = self._active_polls, self._silent_polls
        if (second.next_due() or math.inf) < (first.next_due() or math.inf):
            first, second = second, first
        return first.pop(now) or second.pop(now) or self._requests.pop_due(now)


def earliest(a: float | None, b: float | None) -> float | None:
    """Return the shorter of two pauses; None means no pause."""
    return b if a is None else a if b is None else min(a, b)
