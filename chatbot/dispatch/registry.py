"""The handlers of a bot by their names: every command, timer, schedule and dialog has one of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from chatbot.dispatch.handler import Handler
from chatbot.errors import PluginError, StateError
from chatbot.events import Event
from chatbot.normalization import fold_name


class HandlerRegistry:
    """All handlers of a bot, in order.

    Args:
        handlers: of all its plugins.

    Attributes:
        commands: the commands, by their names as `fold_name` compares them.
        timed: the timers and schedules, by their qualified names, under which they are stored.
        by_name: all handlers by their qualified names; the first one of each name.

    Raises:
        PluginError: two commands, dialogs, timers or schedules have the same name.
    """

    def __init__(self, handlers: Iterable[Handler]) -> None:
        self.everyone = tuple(handlers)
        self.commands = _commands_of(self.everyone)
        self.timed = _stored(handler for handler in self.everyone if handler.registration.is_called_by_name)
        _stored(handler for handler in self.everyone if handler.is_dialog)
        self.by_name: Mapping[str, Handler] = {handler.name: handler for handler in reversed(self.everyone)}


def _commands_of(handlers: Iterable[Handler]) -> dict[str, Handler]:
    commands: dict[str, Handler] = {}
    for handler in handlers:
        if handler.info is None:
            continue
        first = commands.setdefault(fold_name(handler.info.name), handler)
        if first is not handler:
            msg = (
                f"{handler.place}: command /{handler.info.name} is taken already, by {first.place}; rename one of them"
            )
            raise PluginError(msg)
    return commands


def _stored(handlers: Iterable[Handler]) -> dict[str, Handler]:
    """Index handlers whose qualified names are stored, and refuse duplicates: a restart could not distinguish them."""
    stored: dict[str, Handler] = {}
    for handler in handlers:
        first = stored.setdefault(handler.name, handler)
        function = handler.registration.function
        if handler.is_dialog and function is first.registration.function:  # registered for several things
            continue
        if first is not handler:
            what = "dialog" if handler.is_dialog else handler.registration.role
            msg = (
                f"{handler.place}: {what} {handler.name} names two functions, the other at {first.place}; give"
                " them different names, and register each once"
            )
            raise PluginError(msg)
    return stored


def unknown_function(event: Event, name: str) -> StateError:
    """Return the error of an event whose function does not exist any more."""
    return StateError(
        f"{type(event).__name__} calls {name}, which is no longer a timer or schedule of this bot: restore the"
        " function, then retry this dead letter"
    )
