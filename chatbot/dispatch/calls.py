"""Events that call a function by its name, as timers and schedules do; no other handler is asked."""

from __future__ import annotations

from collections.abc import Iterable

from chatbot.dispatch.handler import Handler
from chatbot.errors import PluginError, StateError
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


def timed_of(handlers: Iterable[Handler]) -> dict[str, Handler]:
    """The timers and schedules among the handlers, by their qualified names.

    Raises:
        PluginError: two have the same name, so that what is stored would not say which is meant.
    """
    timed: dict[str, Handler] = {}
    for handler in handlers:
        if not handler.registration.is_called_by_name:
            continue
        first = timed.setdefault(handler.name, handler)
        if first is not handler:
            msg = (
                f"{handler.place}: {handler.registration.role} {handler.name} stands for two functions, the other at"
                f" {first.place}; give them different names, and register each once"
            )
            raise PluginError(msg)
    return timed
