"""Log repeated and ongoing failures without flooding the log.

`RepeatedFailures` logs a failure of a handler in full once, then counts it and logs a summary from time to time.

`OngoingFailures` logs the start and the end of a trouble once each, however often it occurs in between. Service
operations that have failed for minutes become degraded reasons: `list_threads:403`, `send_message:503`.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from chatbot.bot.degraded import LANE_FAILING, LASTING_SECONDS, Degraded
from chatbot.errors import OutcomeUnknown, ProtocolError, ServiceError, Unreachable, kind_of

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

FORGOTTEN_SECONDS: Final = 3600.0
"""Seconds without an occurrence after which a failure is logged in full again."""

MAX_FAILURES: Final = 1000
"""Number of distinct failures remembered; beyond it, the least recent one is forgotten."""


@dataclass(slots=True)
class _Failure:
    """A known failure.

    Args:
        last_at: Time of its last occurrence.
        logged_at: Time of its last log line.
        unsaid: Occurrences since that log line.
    """

    last_at: float
    logged_at: float
    unlogged: int = 0


class RepeatedFailures:
    """Known failures of handlers. Two failures are the same if handler, error class and line of code are.

    Args:
        log: Where summaries are logged.
    """

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._known: OrderedDict[tuple[str, str, str], _Failure] = OrderedDict()

    def is_new(self, handler: str, error: Exception, now: float) -> bool:
        """Count a failure, and return whether to log it in full."""
        key = (handler, kind_of(error), _place_of(error))
        known = self._known.get(key)
        if known is None or now - known.last_at >= FORGOTTEN_SECONDS:
            self._known[key] = _Failure(now, now)
            self._known.move_to_end(key)
            if len(self._known) > MAX_FAILURES:
                self._known.popitem(last=False)
            return True
        known.last_at, known.unlogged = now, known.unlogged + 1
        self._known.move_to_end(key)
        return False

    def log_summary(self, now: float) -> None:
        """Log how often each failure has recurred since its last log line; skip those that have not."""
        for (handler, kind, place), known in self._known.items():
            if known.unlogged:
                seconds = round(now - known.logged_at)
                self._log.error(
                    "handler.failed_again", handler=handler, error=kind, at=place, times=known.unlogged, seconds=seconds
                )
                known.unlogged, known.logged_at = 0, now


def _place_of(error: Exception) -> str:
    """Return the line of code that raised the error, as `file:line`; "" if it was never raised."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


_OPERATIONS: Final[Mapping[str, str]] = {
    "list threads": "list_threads",
    "read": "list_messages",
    "send": "send_message",
}
"""Service operation, as named in metrics, that each kind of work depends on."""


@dataclass(slots=True)
class _Failing:
    """An ongoing failure of a kind of work in one place.

    Args:
        since: Time of the first failure.
        label: Kind of the last failure: `403`, `unreachable`; "" if the service is not the cause.
        error: Last answer of the service, or the error text.
    """

    since: float
    label: str = ""
    error: str = ""


@dataclass(slots=True)
class _Work:
    """A kind of work that fails in at least one place."""

    kinds: list[str] = field(default_factory=list)
    places: dict[str, _Failing] = field(default_factory=dict)
    failures: int = 0


class OngoingFailures:
    """Ongoing failures of a bot, by kind of work.

    The same work may run in many places (threads). It counts as failing until it has succeeded in every place where
    it had failed: a success in one thread must not end the trouble in another.

    Args:
        log: Where start and end of each trouble are logged.
        clock: Seconds of a monotonic clock.
    """

    def __init__(self, log: FilteringBoundLogger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._works: dict[str, _Work] = {}

    def record_failure(self, work: str, error: Exception, *, place: str = "") -> None:
        """Record a failure, and log it if this kind of error is new since the trouble began.

        Args:
            work: The kind of work.
            error: The error.
            place: The thread, if any; the log names only the first one.
        """
        trouble = self._works.setdefault(work, _Work())
        failing = trouble.places.setdefault(place, _Failing(self._clock()))
        failing.label, failing.error = _label_of(error), _answer_of(error)
        trouble.failures += 1
        kind = type(error).__name__
        if kind not in trouble.kinds:
            trouble.kinds.append(kind)
            where = {"thread": place} if place else {}
            self._log.warning("trouble.began", work=work, kind=kind, error=error, **where)

    def record_success(self, work: str, *, place: str = "") -> None:
        """Record that the work succeeded, or is no longer needed, in a place; log it if it now fails nowhere."""
        trouble = self._works.get(work)
        if trouble is None or place not in trouble.places:
            return
        del trouble.places[place]
        if not trouble.places:
            del self._works[work]
            self._log.info("trouble.ended", work=work, kind=trouble.kinds[-1], failures=trouble.failures)

    @property
    def current(self) -> dict[str, str]:
        """Failing work, with the latest new kind of error."""
        return {work: trouble.kinds[-1] for work, trouble in self._works.items()}

    def degraded(self, now: float) -> Iterable[Degraded]:
        """Yield degraded reasons for work that has failed for `LASTING_SECONDS` without a success in the same place."""
        for work, trouble in self._works.items():
            lasting = [failing for failing in trouble.places.values() if now - failing.since >= LASTING_SECONDS]
            for label, count in Counter(failing.label for failing in lasting).items():
                alike = [failing for failing in lasting if failing.label == label]
                where = f" in {count} threads" if count > 1 else ""
                detail = f"{alike[-1].error}{where}"
                since = min(failing.since for failing in alike)
                reason = f"{_OPERATIONS.get(work, work)}:{label}" if label else LANE_FAILING
                yield Degraded(reason, detail, now - since)


def _answer_of(error: Exception) -> str:
    """Return the status and code of the answer without the service's text, which may quote a request."""
    if isinstance(error, ServiceError) and error.status is not None:
        return f"the service answers {error.status}" + (f" ({error.code})" if error.code else "")
    return str(error)


def _label_of(error: Exception) -> str:
    """Return the kind of service failure as a metric label: a status, or why there was no usable answer."""
    match error:
        case Unreachable():
            return "unreachable"
        case ProtocolError():
            return "protocol_error"
        case ServiceError(status=int(status)):
            return str(status)
        case OutcomeUnknown():
            return "no_answer"
        case ServiceError():
            return "failed"
        case _:
            return ""
