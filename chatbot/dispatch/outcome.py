"""What a handler returns, and the result of dispatching one event: actions to commit, or an error to retry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, StrEnum
from typing import Final, TypeAlias

from chatbot.actions import Action, KeyedAction
from chatbot.stores.writes import Write


class Pass(Enum):
    """The type of `PASS`, for return annotations: `-> str | Pass`."""

    PASS = "pass"  # noqa: S105 -- not a password


PASS: Final = Pass.PASS
"""Returned by a handler that does not want to answer after all: the next one that matches gets the event."""

Reply: TypeAlias = str | Pass | None
"""What a handler returns: a text is a reply, None is none, PASS hands the event on."""


class Ack(StrEnum):
    """When people see that their message was read.

    RECEIVED: as soon as the bot has it. HANDLED: after its handling was committed. MANUAL: when a handler says so.
    """

    RECEIVED = "received"
    HANDLED = "handled"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Retry:
    """How a failing handler is tried again, before its event becomes a dead letter.

    Args:
        attempts: how often it is run at most, the first time included.
        first: the pause after the first failure; each further one is twice as long.
        longest: the longest pause.
    """

    attempts: int = 3
    first: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        if self.attempts < 1:
            msg = f"Retry(attempts={self.attempts}): a handler runs at least once; use 1 for no second try"
            raise ValueError(msg)

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures."""
        return min(self.longest.total_seconds(), self.first.total_seconds() * 2.0 ** min(failures - 1, 30))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one event.

    Args:
        wishes: what is to be done, in order; a read receipt comes last. A failed handler's wishes are not among
            them.
        handler: the qualified name of the handler that answered or failed; None if none wanted the event.
        error: why it failed; None if it did not.
        retry: how often a failed handler is to be tried.
        is_final: trying again cannot help.
        writes: what is to be remembered, together with the wishes; or, of a failure, if the event is given up.
    """

    keyed_actions: tuple[KeyedAction, ...] = ()
    handler: str | None = None
    error: Exception | None = None
    retry: Retry = Retry()
    is_final: bool = False
    writes: tuple[Write, ...] = ()

    @property
    def actions(self) -> list[Action]:
        """What is to be done, without the keys."""
        return [keyed.action for keyed in self.keyed_actions]
