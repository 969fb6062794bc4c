"""What a bot tells whoever watches it: frozen facts, said as they happen. Watching never changes what a bot does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class EventNoticed:
    """A look has shown something that handlers are to hear of.

    Args:
        latency: seconds from the change on the service to now; a restart's backlog counts with its age.
    """

    latency: float


@dataclass(frozen=True, slots=True)
class EventHandled:
    """Handlers have run on an event.

    Args:
        handler: the qualified name of the one that answered; None when none did.
        seconds: how long that took, waiting for a free place included.
        error: the class of its failure; None when it succeeded.
    """

    handler: str | None
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class HandlerSlow:
    """A handler has run for more than a minute, and has not ended.

    Args:
        handler: its qualified name.
        is_abandoned: it did not end although it was told to stop.
    """

    handler: str
    is_abandoned: bool = False


@dataclass(frozen=True, slots=True)
class EventBuried:
    """An event was given up and became a dead letter."""


@dataclass(frozen=True, slots=True)
class DoubleHealed:
    """A reply that was there twice is there once again."""


Fact = EventNoticed | EventHandled | HandlerSlow | EventBuried | DoubleHealed


class Observer(Protocol):
    """Hears facts."""

    def note(self, fact: Fact) -> None:
        """Take a fact in; quick, and never raising, because it is called in the middle of the work."""
        ...


class Unobserved:
    """Nobody watches."""

    def note(self, fact: Fact) -> None:
        """Let it pass."""
