"""Events that call a function by its name, as timers and schedules do; no other handler is asked."""

from __future__ import annotations

from chatbot.errors import StateError
from chatbot.events import Event, ScheduleFired, TimerFired


def called_by(event: Event) -> str | None:
    """The function that an event calls by its name; None if whoever matches gets it."""
    match event:
        case TimerFired():
            return event.timer
        case ScheduleFired():
            return event.schedule
        case _:
            return None


def nobody_called(event: Event, name: str) -> StateError:
    """The error of an event whose function is gone."""
    return StateError(
        f"{type(event).__name__} calls {name}, which is no timer or schedule of this bot any more: put the function"
        " back, then revive this letter"
    )
