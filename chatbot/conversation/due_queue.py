"""A queue of due times: the heap behind timers and polls. Pure; the caller gives the time, of any one clock."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=str)
Time = TypeVar("Time", int, float)


class DueQueue(Generic[Key, Time]):
    """Due times by key; each key has at most one.

    A replaced or dropped time stays in the heap until it reaches the top: removing it from the middle would cost a
    search of the whole heap.
    """

    __slots__ = ("_due", "_heap")

    def __init__(self) -> None:
        self._due: dict[Key, Time] = {}
        self._heap: list[tuple[Time, Key]] = []

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: Key) -> bool:
        return key in self._due

    def set(self, key: Key, due: Time) -> None:
        """Set or replace the due time of a key."""
        if self._due.get(key) != due:
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))

    def set_earlier(self, key: Key, due: Time) -> None:
        """Set the due time of a key, unless it is due earlier already."""
        known = self._due.get(key)
        if known is None or due < known:
            self.set(key, due)

    def drop(self, key: Key) -> None:
        """Remove a key; it need not be there."""
        self._due.pop(key, None)

    def first(self) -> tuple[Key, Time] | None:
        """Return the key that is due first, and when; None when there is none."""
        return (self._heap[0][1], self._heap[0][0]) if self._has_first() else None

    def next_due(self) -> Time | None:
        """Return when the first key is due; None when there is none."""
        return self._heap[0][0] if self._has_first() else None

    def pop_due(self, now: Time) -> Key | None:
        """Remove and return the key that is due first; None when none is due by now."""
        if not self._has_first() or self._heap[0][0] > now:
            return None
        key = heapq.heappop(self._heap)[1]
        del self._due[key]
        return key

    def _has_first(self) -> bool:
        """Return whether there is a key; the one that is due first is then at the top of the heap."""
        heap, due = self._heap, self._due
        while heap and due.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return bool(heap)
