"""An agenda: what is due when, and what is due next. Pure; times are epoch ms."""

from __future__ import annotations

import heapq


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
