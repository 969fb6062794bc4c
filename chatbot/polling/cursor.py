"""The cursor: decide what is new in a thread from ids and versions. Performs no I/O and uses no clock.

Rules of this module
1. The service lists messages by descending *version* (last change); the *id* is the creation. Both are epoch
   milliseconds of one strictly rising counter per thread; an unchanged message has version == id.
2. One high-water mark cannot say what was handled: in version order an edit hides the message that it edits, in id
   order a crash loses the smaller id. So every message whose version is above `low` is remembered by its id.
3. Everything at or below `base` is settled, less `slack`, because a read may be stale: a message may become visible
   later than its id says. Messages that become visible later than `slack` may be missed; this limit is documented.
4. `base` rises to the top of one full poll only after everything of the *next* full poll was committed. Until then
   messages are still being classified against the old base: a stale read may have hidden one below that top.
5. Nothing here depends on how the service reads `startTime` (unknown: by creation or by change, inclusive or not).
   Incremental polls use it and find news early; only full polls, which do not use it, move the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from msgspec import Struct

from chatbot.model import ChatMessage

DEFAULT_SLACK_MS: Final = 60_000
"""How much later than its id says a message may become visible without being missed."""


class Change(Enum):
    """Kind of change that a message shows, compared with the handled versions."""

    NONE = "none"
    RECEIVED = "received"
    EDITED = "edited"
    DELETED = "deleted"
    VANISHED = "vanished"
    """Created and deleted between two polls: there is nothing to handle."""


class Settled(Struct, frozen=True):
    """A rise of the base. Handled versions up to `below` can be deleted."""

    base: int
    below: int


class Cursor:
    """Handled messages of one thread; owned by the thread's lane.

    Args:
        floor: Message id; messages at or below it are older than the bot's history in this thread.
        base: Version; everything at or below it, less the slack, is settled.
        seen: Handled versions above `low`, by message id.
        slack_ms: See rule 3.
    """

    __slots__ = ("_next_base", "base", "floor", "seen", "slack_ms", "top")

    def __init__(
        self, floor: int, base: int, seen: Mapping[int, int] | None = None, *, slack_ms: int = DEFAULT_SLACK_MS
    ) -> None:
        self.floor = floor
        self.base = base
        self.seen = dict(seen or {})
        self.slack_ms = slack_ms
        self.top = max(self.seen.values(), default=base)
        self._next_base: int | None = None

    @property
    def low(self) -> int:
        """Version down to which every full poll reads."""
        return self.base - self.slack_ms

    @property
    def last_top(self) -> int | None:
        """Top of the last full poll; None if it read nothing, or if there was none."""
        return self._next_base

    def classify(self, message: ChatMessage) -> Change:
        """Return the change that this version of a message shows; only `mark` changes the result."""
        identifier, version = message.number, message.version
        known = self.seen.get(identifier)
        if known is not None:
            return _edited_or_deleted(message) if version > known else Change.NONE
        history = max(self.floor, self.low)
        if identifier > history:
            return Change.VANISHED if message.deleted_on else Change.RECEIVED
        # Not in `seen`, and created at or below `history`. Everything handled above `low` is in `seen`, so a higher
        # version is a change that was not handled.
        return _edited_or_deleted(message) if version > history else Change.NONE

    def mark(self, seen: Mapping[int, int]) -> None:
        """Remember that these versions of messages were handled."""
        for identifier, version in seen.items():
            if version > self.seen.get(identifier, self.low):
                self.seen[identifier] = version
            self.top = max(self.top, version)

    def finish_full_poll(self, top: int | None) -> Settled | None:
        """Record that a full poll was read *and* that everything it has shown was committed.

        Args:
            top: Highest version that the poll has read; None if it read nothing.

        Returns:
            The rise of the base; None if it has not risen. It need not be stored at once: a base that is too low only
            makes the next polls read more.
        """
        # The base rises to the top of the poll *before* this one. See rule 4: rising to `top` at once would lose a
        # message below it that this poll's reads did not show yet.
        proven, self._next_base = self._next_base, top
        if proven is None or proven <= self.base:
            return None
        self.base = proven
        low = self.low
        self.seen = {identifier: version for identifier, version in self.seen.items() if version > low}
        return Settled(base=self.base, below=low)


def _edited_or_deleted(message: ChatMessage) -> Change:
    return Change.DELETED if message.deleted_on else Change.EDITED


def order_key(change: Change, message: ChatMessage) -> tuple[int, int]:
    """Return the order key of a change: creations sort by id, edits and deletions by version."""
    return (message.number if change is Change.RECEIVED else message.version, message.number)
