"""What came of one event: the wishes to commit with it, or the error to try again with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from chatbot.actions import Action, Wish


class Ack(StrEnum):
    """When people see that their message was read.

    RECEIVED: as soon as the bot has it. HANDLED: after its handling was committed. MANUAL: when a handler says so.
    """

    RECEIVED = "received"
    HANDLED = "handled"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one event.

    Args:
        wishes: what is to be done, in order; a read receipt comes last. A failed handler's wishes are not among
            them.
        handler: the qualified name of the handler that answered or failed; None if none wanted the event.
        error: why it failed; None if it did not.
    """

    wishes: tuple[Wish, ...] = ()
    handler: str | None = None
    error: Exception | None = None

    @property
    def actions(self) -> list[Action]:
        """What is to be done, without the keys."""
        return [wish.action for wish in self.wishes]
