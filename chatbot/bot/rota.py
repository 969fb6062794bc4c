"""Whose turn it is next. Pure: times are arguments, in seconds of one monotonic clock.

A *call* is a turn that something asks for (the bell, a timer, a wish, another try), due at its own time. A *beat* is
a look that nobody asked for, paced by `Beats`. Calls go first, but never so many in a row that beats would starve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chatbot.bot.beats import Beats
from chatbot.bot.schedule import Schedule
from chatbot.model import ThreadId

CALLS_IN_A_ROW: Final = 8
"""So many calls are answered before a beat that is due gets its turn."""


@dataclass(frozen=True, slots=True)
class Rest:
    """When a lane needs its next turn.

    Args:
        call: in so many seconds, because something is to be done then; None when nothing is.
        beat: after so many seconds, before they are stretched, to see what nobody told; None for not at all.
    """

    call: float | None = None
    beat: float | None = None


class Rota:
    """The turns that are waited for; each thread has at most one call and one beat, and a turn serves both.

    Args:
        rate: beats a second, at most.
    """

    __slots__ = ("_beats", "_calls", "_in_a_row")

    def __init__(self, rate: float) -> None:
        self._calls = Schedule()
        self._beats = Beats(rate)
        self._in_a_row = 0

    def __contains__(self, thread: ThreadId) -> bool:
        return thread in self._calls or thread in self._beats

    @property
    def stretch(self) -> float:
        """By how much beats are slower than they were asked for."""
        return self._beats.stretch

    def call(self, thread: ThreadId, due: float) -> None:
        """Give the thread a turn at `due`, or earlier if that was said before."""
        self._calls.set(thread, due)

    def spread(self, thread: ThreadId, pause: float, now: float, *, phase: float) -> None:
        """Begin the beat of a thread, when only a part (0 to 1) of its pause is still to come."""
        self._beats.set(thread, pause, now, phase=phase)

    def rest(self, thread: ThreadId, rest: Rest, now: float) -> None:
        """A turn has ended."""
        if rest.call is not None:
            self._calls.set(thread, now + rest.call)
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
        if self._in_a_row < CALLS_IN_A_ROW and (thread := self._calls.take(now)) is not None:
            self._in_a_row += 1
            return thread
        self._in_a_row = 0
        return self._beats.take(now) or self._calls.take(now)
