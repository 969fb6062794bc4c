"""Whether a bot is in a thread, and when it is worth asking again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final

from chatbot.polling.doorbell import rings

FIRST_PROBE_PAUSE: Final = 2.0
MAX_PROBE_PAUSE: Final = 300.0


class Presence(Enum):
    """What is known of a bot's being in a thread."""

    UNKNOWN = "unknown"
    IN = "in"
    OUT = "out"


@dataclass(slots=True)
class Membership:
    """A bot's being in one thread.

    Threads the bot was removed from stay listed for ever and look like any other, so one that moves is probed
    again, at most every few minutes while the probes fail.

    Args:
        presence: what is known.
        was_told: whether the handlers take the bot to be out: they were told so, or never told otherwise.
    """

    presence: Presence
    was_told: bool = True
    _probed_stamp: datetime | None = None
    _probes: int = 0
    _not_before: float = 0.0

    def is_worth_a_probe(self, stamp: datetime | None, left_ms: int | None, now: float) -> bool:
        """Whether a thread the bot is out of has moved since, so that the bot may be in it again."""
        if self.presence is not Presence.OUT or now < self._not_before:
            return False
        return stamp != self._probed_stamp and rings(stamp, left_ms)

    def probe(self, stamp: datetime | None) -> None:
        """The bot may be in again: the next turn finds out."""
        self.presence = Presence.UNKNOWN
        self._probed_stamp = stamp

    def enter(self) -> None:
        """The bot is in. Its next probe, once it is out again, may come at the very stamp of this one."""
        self.presence, self.was_told, self._probes = Presence.IN, False, 0
        self._probed_stamp = None

    def leave(self, now: float) -> None:
        """The bot is out, and the handlers know."""
        self.presence, self.was_told = Presence.OUT, True
        self._not_before = now + min(MAX_PROBE_PAUSE, FIRST_PROBE_PAUSE * 2 ** min(self._probes, 8))
        self._probes += 1
