"""Failures that come again: said in full once, then counted, and summed up from time to time.

Says once that something is wrong and once that it is right again, however often it is met in between.

What the service has refused or failed for minutes is a reason to be degraded: `list_threads:403`, `send_message:503`.
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


class RepeatedFailures:
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


_OPERATIONS: Final[Mapping[str, str]] = {
    "list threads": "list_threads",
    "read": "list_messages",
    "send": "send_message",
}
"""The operation of the service that a kind of work depends on, as metrics call it."""


@dataclass(slots=True)
class _Failing:
    """A place where a kind of work fails.

    Args:
        since: when it began.
        label: how it failed last: `403`, `unreachable`; "" if the service is not to blame.
        error: what the service answered last.
    """

    since: float
    label: str = ""
    error: str = ""


@dataclass(slots=True)
class _Work:
    """A kind of work that does not succeed everywhere at the moment."""

    kinds: list[str] = field(default_factory=list)
    places: dict[str, _Failing] = field(default_factory=dict)
    failures: int = 0


class OngoingFailures:
    """What a bot is in trouble with, by kind of work.

    The same work may be done in many places (threads): it is in trouble until it has succeeded in every place where
    it had failed, so that one place that works does not take back what another one has to say.

    Args:
        log: where it is said.
        clock: seconds of a monotonic clock.
    """

    def __init__(self, log: FilteringBoundLogger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._works: dict[str, _Work] = {}

    def record_failure(self, work: str, error: Exception, *, place: str = "") -> None:
        """The work failed: said when it had not before, or never in this way since the trouble began.

        Args:
            work: what kind of.
            error: how.
            place: the thread, if it was in one; only that of the first failure is said.
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
        """The work succeeded, or is not wanted there any more: said when it had failed, and fails nowhere now."""
        trouble = self._works.get(work)
        if trouble is None or place not in trouble.places:
            return
        del trouble.places[place]
        if not trouble.places:
            del self._works[work]
            self._log.info("trouble.ended", work=work, kind=trouble.kinds[-1], failures=trouble.failures)

    @property
    def current(self) -> dict[str, str]:
        """What does not work at the moment: work to the latest new kind of failure."""
        return {work: trouble.kinds[-1] for work, trouble in self._works.items()}

    def degraded(self, now: float) -> Iterable[Degraded]:
        """What has failed for `LASTING_SECONDS`, without a success in the same place."""
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
    """What the service answered, without its own words: they may quote a request."""
    if isinstance(error, ServiceError) and error.status is not None:
        return f"the service answers {error.status}" + (f" ({error.code})" if error.code else "")
    return str(error)


def _label_of(error: Exception) -> str:
    """How the service failed, for a metric: a status, or why there was no usable answer."""
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
