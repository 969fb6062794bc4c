"""Says once that something is wrong and once that it is right again, however often it is met in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


class Trouble:
    """What a bot is in trouble with, by kind of work.

    Args:
        log: where it is said.
    """

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._current: dict[str, tuple[str, int]] = {}

    def met(self, work: str, error: Exception) -> None:
        """The work failed: said when this is new, or another kind of failure than before."""
        kind = type(error).__name__
        known, count = self._current.get(work, ("", 0))
        self._current[work] = (kind, count + 1)
        if kind != known:
            self._log.warning("trouble.began", work=work, kind=kind, error=str(error))

    def over(self, work: str) -> None:
        """The work succeeded: said when it had failed before."""
        if work in self._current:
            kind, count = self._current.pop(work)
            self._log.info("trouble.ended", work=work, kind=kind, failures=count)

    @property
    def current(self) -> dict[str, str]:
        """What does not work at the moment: work to kind of failure."""
        return {work: kind for work, (kind, _) in self._current.items()}
