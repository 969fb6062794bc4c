"""What a handler returns, and the result of dispatching one event: actions to commit, or an error to retry."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from chatbot.actions import Action, KeyedAction, SendReadReceipt
from chatbot.model import MessageId, Value

if TYPE_CHECKING:
    from chatbot.stores.writes import Write


class Pass(Enum):
    """The type of `PASS`, for return annotations: `-> str | Pass`."""

    PASS = "pass"  # noqa: S105 -- not a password


PASS: Final = Pass.PASS
"""Returned by a handler that does not answer after all: the next handler that matches gets the event."""

Reply: TypeAlias = str | Pass | None
"""What a handler returns: a text is sent as a reply, None sends nothing, PASS hands the event on."""


def not_a_reply(returned: object, what: str) -> TypeError:
    """Return the error about a function of a plugin that has returned something else than a reply.

    Args:
        returned: what it has returned.
        what: the function, to begin the error with.
    """
    if isinstance(returned, Coroutine):
        returned.close()  # Python would warn that it was never awaited, far from here
    return TypeError(f"{what} returned {type(returned).__name__}; a handler returns str, None or PASS")


class Ack(StrEnum):
    """When messages are marked as read.

    RECEIVED: when the bot has received the message. HANDLED: after it was handled. MANUAL: on `ctx.acknowledge()`.
    """

    RECEIVED = "received"
    HANDLED = "handled"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Retry(Value):
    """How often a failing handler is retried before its event becomes a dead letter.

    Args:
        attempts: the maximal number of runs, the first one included.
        first: the delay after the first failure; it doubles with each further failure.
        longest: the longest delay.
    """

    attempts: int = 3
    first: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        if self.attempts < 1:
            msg = f"Retry(attempts={self.attempts}): a handler runs at least once; use 1 for no retry"
            raise ValueError(msg)

    def pause(self, failures: int) -> float:
        """Return the delay in seconds after so many failures."""
        return min(self.longest.total_seconds(), self.first.total_seconds() * 2.0 ** min(failures - 1, 30))


class Outcome(NamedTuple):  # made for each event: a frozen dataclass takes three times as long
    """The result of dispatching one event.

    Args:
        keyed_actions: the actions to commit, in order. Those of a failed handler are dropped.
        handler: the qualified name of the handler that answered or failed; None if no handler took the event.
        error: the error of a failed handler; None if it succeeded.
        retry: how often a failed handler is tried.
        is_final: a retry cannot succeed.
        writes: what to commit together with the actions; after a failure, what to commit if the event is given up.
        receipt: the message up to which a read receipt is due. It has no key: only the newest one of a thread is sent.
    """

    keyed_actions: tuple[KeyedAction, ...] = ()
    handler: str | None = None
    error: Exception | None = None
    retry: Retry = Retry()
    is_final: bool = False
    writes: tuple[Write, ...] = ()
    receipt: MessageId | None = None

    @property
    def actions(self) -> list[Action]:
        """The actions, without their keys; a read receipt comes last."""
        actions = [keyed.action for keyed in self.keyed_actions]
        return actions if self.receipt is None else [*actions, SendReadReceipt(self.receipt)]
