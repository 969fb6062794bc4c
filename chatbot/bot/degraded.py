"""Why a bot does not work as it should although a restart would not help.

A reason is reported in `chatbot status`, on `/status` and as `chatbot_degraded{reason}`. It turns neither `/healthz`
nor `/readyz` red. Code that notices a problem calls `begin` and `end`; what can be read off at any time is a source.
Pure: times are arguments, in seconds of one monotonic clock.

Rules of this file
1. A reason is a label of a metric: it is from a small set that docs/how-to/monitor.md lists, and holds no id nor text.
2. A detail is one sentence for people: which thread or handler, and what to do. No text that people wrote is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

HANDLER_SLOW: Final = "handler_slow"
"""A handler has run for more than `SLOW_HANDLER_SECONDS`."""

HANDLER_ABANDONED: Final = "handler_abandoned"
"""A handler did not end after it was canceled; its lane starts nothing until it does."""

LANE_FAILING: Final = "lane_failing"
"""A lane fails the same way again and again, for a reason that is no failure of a handler or of the service."""

BOT_RESTARTING: Final = "bot_restarting"
"""A bot ended unexpectedly, and is started again after a pause."""

RELOAD_REFUSED: Final = "reload_refused"
"""The last reload changed nothing, because something was wrong."""

SETTINGS_POSTPONED: Final = "settings_postponed"
"""Settings of the last reload that only a restart applies."""

SLOW_HANDLER_SECONDS: Final = 60.0

LASTING_SECONDS: Final = 120.0
"""How long a kind of work must fail in one place before that is a reason; shorter failures are common."""

SETTLED_SECONDS: Final = 60.0
"""A bot that was started again and has run for so long is well again."""


@dataclass(frozen=True, slots=True)
class Degraded:
    """One reason why something does not work as it should.

    Args:
        reason: the label of the metric.
        detail: one sentence for people.
        seconds: for how long this has been so.
    """

    reason: str
    detail: str
    seconds: float


Source = Callable[[float], Iterable[Degraded]]
"""Reads off at a moment (seconds of the event loop's clock) what is wrong."""


@dataclass(frozen=True, slots=True)
class _OngoingReason:
    detail: str
    since: float
    after: float


class DegradedReasons:
    """The reasons of one bot, or of the process."""

    def __init__(self) -> None:
        self._begun: dict[tuple[str, str], _OngoingReason] = {}
        self._sources: list[Source] = []

    def begin(self, reason: str, detail: str, now: float, *, place: str = "", after: float = 0.0) -> None:
        """Something is wrong from now on; said again, it only changes the detail.

        Args:
            reason: the label of the metric.
            detail: one sentence for people.
            now: the time.
            place: keeps reasons of the same kind apart, for example the thread.
            after: seconds that it must last before it is a reason.
        """
        known = self._begun.get((reason, place))
        self._begun[reason, place] = _OngoingReason(detail, now if known is None else known.since, after)

    def end(self, reason: str, *, place: str = "") -> None:
        """It is right again; nothing happens if it was not wrong."""
        self._begun.pop((reason, place), None)

    def add_source(self, source: Source) -> None:
        """Ask this whenever the reasons are read."""
        self._sources.append(source)

    def current(self, now: float) -> tuple[Degraded, ...]:
        """Everything that is wrong, the longest first."""
        found = [
            Degraded(reason, begun.detail, now - begun.since)
            for (reason, _), begun in self._begun.items()
            if now - begun.since >= begun.after
        ]
        for source in self._sources:
            found += source(now)
        return tuple(sorted(found, key=lambda degraded: -degraded.seconds))
