"""Failures that come again: said in full once, then counted, and summed up from time to time."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chatbot.errors import kind_of

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

FORGOTTEN_SECONDS: Final = 3600.0
"""A failure that was not met for so long is news again."""

MOST: Final = 1000
"""So many different failures are told apart; beyond, the one not met for longest is forgotten."""


@dataclass(slots=True)
class _Failure:
    """One way to fail.

    Args:
        met_at: when it was met last.
        unsaid: how often it was met since something was said of it.
        said_at: when something was said of it.
    """

    met_at: float
    said_at: float
    unsaid: int = 0


class Recurrence:
    """Which failures of handlers are known already. Failures are the same if handler, error and line of code are.

    Args:
        log: where they are summed up.
    """

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._known: OrderedDict[tuple[str, str, str], _Failure] = OrderedDict()

    def is_news(self, handler: str, error: Exception, now: float) -> bool:
        """Count a failure; whether it should be said in full."""
        key = (handler, kind_of(error), _place_of(error))
        known = self._known.get(key)
        if known is None or now - known.met_at >= FORGOTTEN_SECONDS:
            self._known[key] = _Failure(now, now)
            self._known.move_to_end(key)
            if len(self._known) > MOST:
                self._known.popitem(last=False)
            return True
        known.met_at, known.unsaid = now, known.unsaid + 1
        self._known.move_to_end(key)
        return False

    def sum_up(self, now: float) -> None:
        """Say how often what is known was met again since the last time; nothing of what was not."""
        for (handler, kind, place), known in self._known.items():
            if known.unsaid:
                seconds = round(now - known.said_at)
                self._log.error(
                    "handler.failed_again", handler=handler, error=kind, at=place, times=known.unsaid, seconds=seconds
                )
                known.unsaid, known.said_at = 0, now


def _place_of(error: Exception) -> str:
    """The line of code that raised it, as `file:line`; "" if it was never raised."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
