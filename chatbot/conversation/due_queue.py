"""An agenda: what is due when, and what is due next. Pure; times are epoch ms.

Which thread is to be looked at when. Pure: times are arguments, in seconds of one monotonic clock.
"""

from __future__ import annotations

import heapq

from chatbot.model import ThreadId


class Agenda:
    """Due times by key; each key has one at most."""

    __slots__ = ("_due", "_heap")

    def __init__(self) -> None:
        self._due: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def set(self, key: str, due: int) -> None:
        """Note that something is due then, whatever was noted of it before."""
        if self._due.get(key) != due:
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))

    def drop(self, key: str) -> None:
        """Cross something out; it need not be there."""
        self._due.pop(key, None)

    def next_due(self) -> int | None:
        """When the first thing is due; None when nothing is."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now: int) -> str | None:
        """Cross out and return the first thing that is due by now; None when nothing is."""
        due = self.next_due()
        if due is None or due > now:
            return None
        _, key = heapq.heappop(self._heap)
        del self._due[key]
        return key


class Schedule:
    """Due times of threads; each thread has at most one, and an earlier one replaces a later one."""

    __slots__ = ("_due", "_heap")

    def __init__(self) -> None:
        self._due: dict[ThreadId, float] = {}
        self._heap: list[tuple[float, ThreadId]] = []

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, thread: ThreadId) -> bool:
        return thread in self._due

    def set(self, thread: ThreadId, due: float) -> None:
        """Look at the thread at `due`, or earlier if that was said before."""
        if due < self._due.get(thread, float("inf")):
            self._due[thread] = due
            heapq.heappush(self._heap, (due, thread))

    def drop(self, thread: ThreadId) -> None:
        """Do not look at the thread."""
        self._due.pop(thread, None)

    def next_due(self) -> float | None:
        """When the earliest thread is due; None when none is."""
        first = self.first()
        return first[1] if first is not None else None

    def first(self) -> tuple[ThreadId, float] | None:
        """The earliest thread, and when it is due; None when none is."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return (self._heap[0][1], self._heap[0][0]) if self._heap else None

    def take(self, now: float) -> ThreadId | None:
        """Remove and return a thread that is due; None when none is."""
        due = self.next_due()
        if due is None or due > now:
            return None
        _, thread = heapq.heappop(self._heap)
        del self._due[thread]
        return thread
