"""How the latest reload went, for whoever wonders whether a change is in force."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reloaded:
    """One reload.

    Args:
        at: epoch seconds, when it was over.
        is_refused: nothing was changed, because something was wrong.
        postponed: settings that are in force after a restart only.
    """

    at: float
    is_refused: bool
    postponed: tuple[str, ...] = ()


class LastReload:
    """Remembers it; None until there was one.

    Args:
        clock: epoch seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.reloaded: Reloaded | None = None

    def note(self, *, is_refused: bool, postponed: tuple[str, ...] = ()) -> None:
        """A reload is over; what an earlier one has postponed still waits when this one was refused."""
        if is_refused and self.reloaded is not None:
            postponed = self.reloaded.postponed
        self.reloaded = Reloaded(self._clock(), is_refused, postponed)
