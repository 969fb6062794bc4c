"""What the daemon held in memory over time, and whether that stayed flat once everybody was there."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Final

WARM_UP_SECONDS: Final = 60.0
"""How long after the last thread was opened, and after a process has begun, its memory is not judged yet."""

SHORTEST_SECONDS: Final = 60.0
"""Of less than that, nothing is judged."""

MOST_GROWTH: Final = 1.05
"""How much more the later half may hold than the earlier one, as a ratio of their medians, and be called flat."""


@dataclass(slots=True)
class MemoryRecord:
    """Samples of one process after the other; the last one is judged.

    Args:
        settled_at: when the last thread was opened; None while they are being opened.
        silent_at: when people fell silent; None while they talk.
    """

    settled_at: float | None = None
    silent_at: float | None = None
    _pid: int | None = None
    _samples: list[tuple[float, float]] = field(default_factory=list)

    def note(self, pid: int, now: float, mebibytes: float) -> None:
        """Take a sample; one of another process begins anew."""
        if pid != self._pid:
            self._pid, self._samples = pid, []
        self._samples.append((now, mebibytes))

    @property
    def judged(self) -> list[tuple[float, float]]:
        """The samples of the last process, taken while all people were there and talked, and it was warm."""
        if not self._samples or self.settled_at is None:
            return []
        begun = max(self.settled_at, self._samples[0][0]) + WARM_UP_SECONDS
        return [(now, held) for now, held in self._samples if begun <= now <= (self.silent_at or now)]

    @property
    def seconds(self) -> float:
        """How long it is judged."""
        return self.judged[-1][0] - self.judged[0][0] if self.judged else 0.0

    @property
    def by_minute(self) -> list[float]:
        """The median of each of these minutes, in MiB; a last one that is not whole is left out."""
        minutes: dict[int, list[float]] = {}
        for now, held in self.judged:
            minutes.setdefault(int((now - self.judged[0][0]) // 60), []).append(held)
        return [
            statistics.median(held) for minute, held in sorted(minutes.items()) if (minute + 1) * 60 <= self.seconds
        ]

    @property
    def growth(self) -> float | None:
        """The median of the later half in relation to the earlier one's; None if it is too short to tell."""
        if self.seconds < SHORTEST_SECONDS:
            return None
        middle = self.judged[0][0] + self.seconds / 2
        earlier = [held for now, held in self.judged if now <= middle]
        later = [held for now, held in self.judged if now > middle]
        return statistics.median(later) / statistics.median(earlier)

    @property
    def is_flat(self) -> bool:
        """Whether it was not seen to grow."""
        return self.growth is None or self.growth <= MOST_GROWTH
