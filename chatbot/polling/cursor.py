"""What of a thread is new: the arithmetic of ids and versions. Pure: it reads nothing and knows no clock.

Rules of this file
1. The service lists messages by descending *version* (last change); the *id* is the creation. Both are epoch
   milliseconds of one strictly rising counter per thread; an untouched message has version == id.
2. One high-water mark cannot say what was handled: in version order a correction hides the message it corrects, in
   id order a crash loses the smaller id. So every message whose version is above `low` is remembered by id.
3. `base` is a version below which everything is settled, less `slack`, because a read may be stale: a message may
   become visible later than its id says. What becomes visible later than `slack` is the documented limit.
4. `base` rises to the top of one whole look only after everything of the *next* whole look was committed: until
   then that look is still being classified against the old base.
5. Nothing here depends on how the service reads `startTime` (unknown: by creation or change, inclusive or not):
   looks that use it find news early, but only looks without it ("whole" ones) move the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from chatbot.model import ChatMessage

DEFAULT_SLACK_MS: Final = 60_000
"""How much later than its id says a message may become visible and still be noticed."""


class Change(Enum):
    """What a message, as a look shows it, means to somebody who knows what was seen before."""

    NONE = "none"
    RECEIVED = "received"
    EDITED = "edited"
    DELETED = "deleted"
    VANISHED = "vanished"
    """Created and deleted between two looks: there is nothing left to handle."""


@dataclass(frozen=True, slots=True)
class Settled:
    """How far the base has risen: everything seen at a version of `below` or less can be forgotten."""

    base: int
    below: int


class Cursor:
    """What was seen of one thread. Owned by the thread's lane.

    Args:
        floor: a message id; messages at or below it are older than the bot's history in this thread.
        base: a version; everything at or below it is settled, less the slack.
        seen: id to version of what was dealt with above `low`.
        slack_ms: see rule 3.
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
        """The version down to which every whole look reads."""
        return self.base - self.slack_ms

    def classify(self, message: ChatMessage) -> Change:
        """Say what this message, in this version, means; the answer changes only by `mark`."""
        identifier, version = message.number, message.version
        known = self.seen.get(identifier)
        if known is not None:
            return _touched(message) if version > known else Change.NONE
        history = max(self.floor, self.low)
        if identifier > history:
            return Change.VANISHED if message.deleted_on else Change.RECEIVED
        # Unseen and older than our memory: whatever was dealt with above `low` is in `seen`, so a higher version
        # is a change that nobody has dealt with.
        return _touched(message) if version > history else Change.NONE

    def mark(self, seen: Mapping[int, int]) -> None:
        """Remember that these messages were dealt with in these versions."""
        for identifier, version in seen.items():
            if version > self.seen.get(identifier, self.low):
                self.seen[identifier] = version
            self.top = max(self.top, version)

    def finish_full_poll(self, top: int | None) -> Settled | None:
        """A whole look was read *and* everything of it was committed.

        Args:
            top: the highest version that the look showed; None if it showed nothing.

        Returns:
            How far the base has risen, to be stored some time; None if it has not.
        """
        proven, self._next_base = self._next_base, top
        if proven is None or proven <= self.base:
            return None
        self.base = proven
        low = self.low
        self.seen = {identifier: version for identifier, version in self.seen.items() if version > low}
        return Settled(base=self.base, below=low)


def _touched(message: ChatMessage) -> Change:
    return Change.DELETED if message.deleted_on else Change.EDITED


def moment(change: Change, message: ChatMessage) -> tuple[int, int]:
    """Where a change stands in its thread's order: a creation when it was made, a change when it was changed."""
    return (message.number if change is Change.RECEIVED else message.version, message.number)
