"""Functions that are called when retries of an event are exhausted: for an apology, or a note to an operator."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from chatbot.dispatch.context import Context
from chatbot.dispatch.outcome import Reply
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
    """An author's function that hears of failures, checked once, at load.

    Args:
        function: the author's.
        name: its qualified name; reply keys are built on it.
        errors: the exceptions it is for.
        needs: the parameters that providers fill.
    """

    function: Function
    name: str
    errors: tuple[type[Exception], ...]
    needs: Needs = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where the function is defined, `file:line`."""
        return place_of(self.function)

    def within(self, scope: Scope) -> ErrorHandler:
        """The same one, with its further parameters resolved.

        Raises:
            PluginError: it asks for something that nobody provides, or that is not made for every event.
        """
        needs = needs_behind(self.function, 2, scope, ROLE)
        check_contexts(self.function, Event, needs)
        return replace(self, needs=needs)

    async def answer(self, ctx: Context[Event], error: Exception, provider_cache: ProviderCache) -> Reply:
        """Call the function."""
        reply: Reply
        async with provider_cache.injector(ctx).resolve(self.needs) as provided:
            reply = await self.function(ctx, error, **provided)
        return reply


def check_errors(errors: Iterable[object], place: str) -> None:
    """Refuse what is no class of exceptions; a function stands there if the decorator's parentheses are missing.

    Raises:
        PluginError: there is one.
    """
    for error in errors:
        if not (isinstance(error, type) and issubclass(error, Exception)):
            msg = f"{place}: error() takes classes of exceptions, as in @plugin.error(OSError), not {shown(error)}"
            raise PluginError(msg)


def prepare_error_handler(function: Function, errors: tuple[type[Exception], ...]) -> ErrorHandler:
    """An error handler that is ready to run.

    Raises:
        PluginError: it is not async, does not take a `Context[Event]` and the error, or returns no reply.
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
