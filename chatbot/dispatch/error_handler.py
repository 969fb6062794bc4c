"""Error handlers: functions called when the retries of an event are exhausted, for example to apologize to the user."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from chatbot.dispatch.context import Context
from chatbot.dispatch.outcome import Pass, Reply, not_a_reply
from chatbot.dispatch.parameters import (
    Function,
    check_async,
    check_return,
    events_of,
    hints_of,
    name_of,
    refuse,
    shown,
    type_name,
)
from chatbot.dispatch.provider import Needs, ProviderCache, Scope, check_contexts, needs_behind
from chatbot.dispatch.source_location import place_of, qualified_name
from chatbot.errors import PluginError
from chatbot.events import Event

ROLE: Final = "error handler"


@dataclass(frozen=True, slots=True)
class ErrorHandler:
    """A plugin's error handler, validated at load time.

    Args:
        function: the function of the plugin's author.
        name: the qualified name of the function; reply keys contain it.
        errors: the exceptions that it handles.
        needs: the parameters that providers supply.
    """

    function: Function
    name: str
    errors: tuple[type[Exception], ...]
    needs: Needs = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Return where the function is defined, as `file:line`."""
        return place_of(self.function)

    def within(self, scope: Scope) -> ErrorHandler:
        """Return a copy with its dependencies resolved.

        Raises:
            PluginError: a dependency has no provider, or its provider does not accept every event.
        """
        needs = needs_behind(self.function, 2, scope, ROLE)
        check_contexts(self.function, Event, needs)
        return replace(self, needs=needs)

    async def answer(self, ctx: Context[Event], error: Exception, provider_cache: ProviderCache) -> Reply:
        """Call the function with the values of its providers.

        Raises:
            TypeError: what it returns is no reply.
            Exception: any exception of the function.
        """
        async with provider_cache.injector(ctx).resolve(self.needs) as provided:
            reply = await self.function(ctx, error, **provided)
        if reply is None or isinstance(reply, str | Pass):
            return reply
        raise not_a_reply(reply, f"{self.place}: {self.name}")


def check_errors(errors: Iterable[object], place: str) -> None:
    """Reject values that are not exception classes; a function means that the decorator's parentheses are missing.

    Raises:
        PluginError: a value is not an exception class.
    """
    for error in errors:
        if not (isinstance(error, type) and issubclass(error, Exception)):
            msg = f"{place}: error() takes classes of exceptions, as in @plugin.error(OSError), not {shown(error)}"
            raise PluginError(msg)


def prepare_error_handler(function: Function, errors: tuple[type[Exception], ...]) -> ErrorHandler:
    """Validate a function and return it as an error handler.

    Raises:
        PluginError: it is not async, does not take a `Context[Event]` and the error, or does not return a reply.
    """
    role, name = ROLE, name_of(function)
    check_async(function, role)
    hints, parameters = hints_of(function), list(inspect.signature(function).parameters.values())
    wanted_error = errors[0].__name__
    if len(parameters) < 2:
        refuse(
            function,
            f"{role} {name} takes two parameters: `async def {name}(ctx: Context[Event], error: {wanted_error})`",
        )
    accepted = events_of(hints.get(parameters[0].name))
    if accepted is None or Event not in accepted:
        refuse(
            function,
            f"parameter {parameters[0].name!r} of {role} {name} must take every event; write `ctx: Context[Event]`",
        )
    wanted = hints.get(parameters[1].name, Exception)
    if isinstance(wanted, type) and not all(issubclass(error, wanted) for error in errors):
        refuse(
            function,
            f"parameter {parameters[1].name!r} of {role} {name} is {type_name(wanted)}, but it is registered for"
            f" {', '.join(error.__name__ for error in errors)}",
        )
    check_return(function, Event, hints, role)
    return ErrorHandler(function, qualified_name(function), errors)
