"""Decide what fills each parameter of a handler, once, when plugins are loaded.

Parameters are typed arguments of a command, named groups that a filter found, the payload of a timer, or state
(`cart: State[Cart]`). A parameter that nothing can fill is refused then, with file and line.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, get_args

from chatbot.conversation.state import StateType, state_type_of, why_unavailable
from chatbot.dispatch.argument_types import CONVERTIBLE, plain_type
from chatbot.dispatch.arguments import NO_VALUES, Argument, Arguments, BadArguments, TimerPayload, Values, argument_for
from chatbot.dispatch.event_view import EventView
from chatbot.dispatch.filters import Found
from chatbot.dispatch.parameters import Function, name_of, refuse, type_name
from chatbot.dispatch.plugin_tasks import call_as_plugin
from chatbot.events import Event, TimerFired
from chatbot.model import Participant
from chatbot.stores.serialization import Form, form_of

Match: TypeAlias = Values | BadArguments
"""What a matching handler is called with; or, of a command, what is wrong with what was typed."""

Bind: TypeAlias = Callable[[EventView, Found], Match | None]
"""Makes a handler's arguments of an event and what the filter found in it; None if they do not convert.

Types of parameters may be classes of a plugin: what converts to them is called as code of a plugin.
"""


def arguments_of(function: Function, command: str, parameters: Sequence[inspect.Parameter]) -> Arguments:
    """What may be typed behind a command.

    Raises:
        PluginError: a parameter's type cannot be typed, or something stands behind a `Rest`.
    """
    arguments = tuple(_command_argument(function, parameter) for parameter in parameters)
    for argument in [argument for argument in arguments if not argument.is_option][:-1]:
        if argument.is_rest:
            refuse(
                function,
                f"parameter {argument.name!r} of {name_of(function)} is Rest, which takes everything still to come;"
                " make it the last one",
            )
    return Arguments(command, arguments)


def bind_arguments(arguments: Arguments) -> Bind:
    """Fill a command's parameters with what was typed."""

    def bind(view: EventView, found: Found) -> Match | None:
        line = view.command_line
        if line is None:
            return None
        if not (line.arguments or arguments.arguments):
            return NO_VALUES
        try:
            if arguments.arguments:
                return call_as_plugin(arguments.parse, line.arguments)
            return arguments.parse(line.arguments)
        except BadArguments as error:
            return error

    return bind


def bind_groups(function: Function, names: frozenset[str], parameters: Sequence[inspect.Parameter]) -> Bind:
    """Fill a message handler's parameters with the named texts that its filter found.

    Raises:
        PluginError: a parameter has no such text, or its type cannot be made of parameter.
    """
    arguments: dict[str, tuple[Argument, object]] = {}
    for parameter in parameters:
        if parameter.name not in names:
            found = ", ".join(sorted(names))
            has = f" (its filter finds {found})" if names else ""
            refuse(
                function,
                _why_unfillable(
                    function, parameter, f"provide it, make it a State, or have a regex find a text of its name{has}"
                ),
            )
        argument = argument_for(parameter)
        if argument is None or argument.is_many or plain_type(parameter.annotation) is Participant:
            refuse(
                function,
                _why_unfillable(function, parameter, f"a text that a filter found becomes {CONVERTIBLE}"),
            )
        arguments[parameter.name] = (argument, parameter.default)

    def bind(view: EventView, found: Found) -> Match | None:
        return call_as_plugin(_read_groups, arguments, found) if arguments else NO_VALUES

    return bind


def payload_of(function: Function, parameters: Sequence[inspect.Parameter]) -> TimerPayload:
    """What a timer's function takes besides its context.

    Raises:
        PluginError: a parameter has no type, or one that cannot be stored.
    """
    forms: dict[str, Form] = {}
    for parameter in parameters:
        place = f"parameter {parameter.name!r} of {name_of(function)}"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            refuse(function, f"{place} has no name of its own; timers are called with named arguments")
        if parameter.annotation is parameter.empty:
            refuse(function, f"{place} has no type; annotate it with the type of the argument of ctx.later")
        try:
            forms[parameter.name] = form_of(parameter.annotation, place)
        except TypeError as error:
            refuse(function, str(error))
    required = frozenset(parameter.name for parameter in parameters if parameter.default is parameter.empty)
    return TimerPayload(name_of(function), forms, required)


def bind_payload(payload: TimerPayload) -> Bind:
    """Fill a timer's parameters with what it was set with."""

    def bind(view: EventView, found: Found) -> Match | None:
        return call_as_plugin(payload.decode, view.event.payload) if isinstance(view.event, TimerFired) else None

    return bind


def _read_groups(arguments: Mapping[str, tuple[Argument, object]], found: Found) -> Values | None:
    named: dict[str, Any] = {}
    for name, (argument, default) in arguments.items():
        word = found.get(name)
        if word is None and default is not inspect.Parameter.empty:
            continue
        try:
            named[name] = argument.read(word or "")
        except BadArguments:
            return None
    return Values(named)


def _command_argument(function: Function, parameter: inspect.Parameter) -> Argument:
    argument = argument_for(parameter)
    if argument is None:
        remedy = f"a command's arguments are {CONVERTIBLE}, Participant, or Rest; provide anything else"
        refuse(function, _why_unfillable(function, parameter, remedy))
    _check_default(function, parameter)
    return argument


def _check_default(function: Function, parameter: inspect.Parameter) -> None:
    default, plain = parameter.default, plain_type(parameter.annotation)
    if default is parameter.empty or default is None or (plain is float and isinstance(default, int)):
        return
    fits = isinstance(default, plain) if isinstance(plain, type) else default in get_args(plain)
    if not fits:
        shown = type_name(parameter.annotation)
        refuse(
            function,
            f"parameter {parameter.name!r} of {name_of(function)} is {shown}, but its default is {default!r};"
            " write a default of that type",
        )


def _why_unfillable(function: Function, parameter: inspect.Parameter, remedy: str) -> str:
    if parameter.annotation is parameter.empty:
        return f"parameter {parameter.name!r} of {name_of(function)} has no type; {remedy}"
    return (
        f"parameter {parameter.name!r} of {name_of(function)} is {type_name(parameter.annotation)},"
        f" which nothing can fill; {remedy}"
    )


States: TypeAlias = Mapping[str, StateType]
"""The parameters of a handler that are state, by name."""


def states_of(function: Function, event: type[Event], parameters: Iterable[inspect.Parameter]) -> States:
    """Which parameters are state, and of which kind.

    Raises:
        PluginError: the value cannot be stored, or events of this class have no such state.
    """
    states: dict[str, StateType] = {}
    for parameter in parameters:
        try:
            kind = state_type_of(parameter.annotation)
        except TypeError as error:
            refuse(function, f"parameter {parameter.name!r} of {name_of(function)}: {error}")
        if kind is None:
            continue
        reason = why_unavailable(kind.handle, event)
        if reason is not None:
            refuse(
                function,
                f"parameter {parameter.name!r} of {name_of(function)} is a {kind.handle.__name__}, but {reason}",
            )
        states[parameter.name] = kind
    return states
