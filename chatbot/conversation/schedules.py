"""Compute when a periodic schedule is due next. Pure.

Rules:
    1. `Every` keeps its phase: runs that were missed are made up for by one run, and the next times do not shift.
    2. `Cron` uses the local time of its time zone, as Debian's cron does: a time that a clock change skips is due right
       after the change, a time that occurs twice is due the first time, and what is due every hour or every minute is
       due in both hours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from chatbot.durations import LONGEST
from chatbot.model import milliseconds

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

MIN_PERIOD: Final = timedelta(seconds=1)
"""The shortest period: the service's own times are no finer."""

_FIELDS: Final = 5


@dataclass(frozen=True, slots=True)
class Every:
    """A schedule with a fixed period; first due one period after the bot's first start with it.

    Args:
        period: at least a second.

    Raises:
        ValueError: it is shorter, or longer than `MAX_QUOTE`.
        TypeError: it is no timedelta.
    """

    period: timedelta

    def __post_init__(self) -> None:
        if not isinstance(self.period, timedelta):
            msg = f"every({self.period!r}) is not a duration; write every(timedelta(seconds=60))"
            raise TypeError(msg)
        if self.period < MIN_PERIOD:
            msg = f"every({self.period}) is more often than every second; give a timedelta of at least {MIN_PERIOD}"
            raise ValueError(msg)
        if self.period > LONGEST:
            msg = f"every({self.period}) is never within {LONGEST.days} days; give a shorter timedelta"
            raise ValueError(msg)

    @property
    def text(self) -> str:
        """The stored and displayed form."""
        return f"every {self.period.total_seconds():g} s"

    def next_due(self, after_ms: int, last_ms: int | None = None) -> int | None:
        """Return the first time after `after_ms` that is a whole number of periods after `last_ms`; epoch ms."""
        period = self.period // timedelta(milliseconds=1)
        start = after_ms if last_ms is None else last_ms
        return start + period * max(1, (after_ms - start) // period + 1)


@dataclass(frozen=True, slots=True)
class Cron:
    """A schedule by local time, as a cron expression.

    Args:
        expression: minute, hour, day of month, month, day of week, as in cron: `0 9 * * 1-5`.
        tz: an IANA time zone, such as `Europe/Paris`.

    Raises:
        ValueError: the expression or the time zone is not valid, or the schedule would never be due.
    """

    expression: str
    tz: str = "UTC"
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # here, because most plugins have no such schedule

        from cronsim import CronSimError

        try:
            object.__setattr__(self, "_zone", ZoneInfo(self.tz))  # read from its file here, not when it is due
        except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
            msg = f"{self.tz!r} is not a time zone; give one of the IANA database, as in 'Europe/Paris'"
            raise ValueError(msg) from None
        shown = f"{self.expression!r} is not a cron expression"
        if not isinstance(self.expression, str) or len(self.expression.split()) != _FIELDS:
            msg = f"{shown}; give minute, hour, day of month, month, day of week, as in '0 9 * * 1-5'"
            raise ValueError(msg)
        try:
            due = self.next_due(0)
        except CronSimError as error:
            msg = f"{shown}: {str(error).lower()}; an example is '0 9 * * 1-5'"
            raise ValueError(msg) from None
        if due is None:
            msg = f"{self.expression!r} is never due: that day does not exist"
            raise ValueError(msg)

    @property
    def text(self) -> str:
        """The stored and displayed form."""
        return f"cron {self.expression} {self.tz}"

    def next_due(self, after_ms: int, last_ms: int | None = None) -> int | None:
        """Return the first due time after `after_ms`, epoch ms; None if there is none."""
        from cronsim import CronSim

        after = datetime.fromtimestamp(after_ms // 1000, UTC).astimezone(self._zone)
        due = next(CronSim(self.expression, after), None)
        return None if due is None else milliseconds(due)


Schedule: TypeAlias = Every | Cron
"""When a periodic function is due."""
