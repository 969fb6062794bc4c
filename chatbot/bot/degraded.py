"""Degraded reasons: why a bot is impaired in a way that a restart does not fix.

Reasons are reported by `chatbot status`, on `/status` and as `chatbot_degraded{reason}`. They do not affect `/healthz`
and `/readyz`. Code that detects a problem calls `begin` and `end`; a problem that can be computed at any time is
reported by a source. Performs no I/O; times are arguments, in seconds of one monotonic clock.

Rules of this module:

1. A reason is a metric label: one of a small set, listed in docs/how-to/monitor.md, without ids or texts.
2. A detail is one sentence for people: which thread or handler, and what to do. It never contains people's words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from msgspec import Struct

HANDLER_SLOW: Final = "handler_slow"
"""A handler has run for more than `SLOW_HANDLER_SECONDS`."""

HANDLER_ABANDONED: Final = "handler_abandoned"
"""A handler did not end after it was canceled; its lane starts no other work until it does."""

LANE_FAILING: Final = "lane_failing"
"""A lane keeps failing, or keeps retrying a handler, and the service is not the cause."""

BOT_RESTARTING: Final = "bot_restarting"
"""A bot ended unexpectedly and is restarted after a pause."""

RELOAD_REFUSED: Final = "reload_refused"
"""The last reload was refused and changed nothing."""

SETTINGS_POSTPONED: Final = "settings_postponed"
"""The last reload contained settings that only a restart applies."""

SHARDS_REFUSED: Final = "shards_refused"
"""This process takes no more threads, because its code cannot continue their dialogs or timers."""

CANARY_FAILED: Final = "canary_failed"
"""This process was a canary, and has given its threads back because its handlers failed more often than the others'."""

CANARY_ALONE: Final = "canary_alone"
"""This process is a canary, and no other process serves the rest of the threads."""

SLOW_HANDLER_SECONDS: Final = 60.0

LASTING_SECONDS: Final = 120.0
"""Seconds for which work must fail in one place before it is reported; shorter failures are common."""

SETTLED_SECONDS: Final = 60.0
"""Seconds for which a restarted bot must run before it is no longer reported."""


class Degraded(Struct, frozen=True):
    """One degraded reason.

    Args:
        reason: The metric label.
        detail: One sentence for people.
        seconds: How long the problem has lasted.
    """

    reason: str
    detail: str
    seconds: float


Source = Callable[[float], Iterable[Degraded]]
"""Returns the current problems; called with the time, in seconds of the event loop's clock."""


class _OngoingReason(Struct, frozen=True):
    detail: str
    since: float
    after: float


class DegradedReasons:
    """The degraded reasons of one bot, or of the process."""

    def __init__(self) -> None:
        self._begun: dict[tuple[str, str], _OngoingReason] = {}
        self._sources: list[Source] = []

    def begin(self, reason: str, detail: str, now: float, *, place: str = "", after: float = 0.0) -> None:
        """Record the start of a problem; repeated calls only update the detail.

        Args:
            reason: The metric label.
            detail: One sentence for people.
            now: The time.
            place: Distinguishes problems with the same reason, for example by thread.
            after: Seconds that the problem must last before it is reported.
        """
        known = self._begun.get((reason, place))
        self._begun[reason, place] = _OngoingReason(detail, now if known is None else known.since, after)

    def end(self, reason: str, *, place: str = "") -> None:
        """Record the end of a problem; does nothing if there is none."""
        self._begun.pop((reason, place), None)

    def add_source(self, source: Source) -> None:
        """Add a source that is called whenever the reasons are read."""
        self._sources.append(source)

    def current(self, now: float) -> tuple[Degraded, ...]:
        """Return all current reasons, longest first."""
        found = [
            Degraded(reason, ongoing.detail, now - ongoing.since)
            for (reason, _), ongoing in self._begun.items()
            if now - ongoing.since >= ongoing.after
        ]
        for source in self._sources:
            found += source(now)
        return tuple(sorted(found, key=lambda degraded: -degraded.seconds))
