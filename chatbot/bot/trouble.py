"""Says once that something is wrong and once that it is right again, however often it is met in between."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


@dataclass(slots=True)
class _Work:
    """A kind of work that does not succeed everywhere at the moment."""

    kinds: list[str] = field(default_factory=list)
    places: set[str] = field(default_factory=set)
    failures: int = 0


class Trouble:
    """What a bot is in trouble with, by kind of work.

    The same work may be done in many places (threads): it is in trouble until it has succeeded in every place where
    it had failed, so that one place that works does not take back what another one has to say.

    Args:
        log: where it is said.
    """

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._works: dict[str, _Work] = {}

    def met(self, work: str, error: Exception, *, place: str = "") -> None:
        """The work failed: said when it had not before, or never in this way since the trouble began.

        Args:
            work: what kind of.
            error: how.
            place: the thread, if it was in one; only that of the first failure is said.
        """
        trouble = self._works.setdefault(work, _Work())
        trouble.places.add(place)
        trouble.failures += 1
        kind = type(error).__name__
        if kind not in trouble.kinds:
            trouble.kinds.append(kind)
            where = {"thread": place} if place else {}
            self._log.warning("trouble.began", work=work, kind=kind, error=str(error), **where)

    def over(self, work: str, *, place: str = "") -> None:
        """The work succeeded, or is not wanted there any more: said when it had failed, and fails nowhere now."""
        trouble = self._works.get(work)
        if trouble is None or place not in trouble.places:
            return
        trouble.places.discard(place)
        if not trouble.places:
            del self._works[work]
            self._log.info("trouble.ended", work=work, kind=trouble.kinds[-1], failures=trouble.failures)

    @property
    def current(self) -> dict[str, str]:
        """What does not work at the moment: work to the latest new kind of failure."""
        return {work: trouble.kinds[-1] for work, trouble in self._works.items()}
