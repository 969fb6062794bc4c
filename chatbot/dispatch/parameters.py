"""Inspection of the signatures of handlers and other plugin functions, once when plugins are loaded.

A mistake raises `PluginError`, which names file and line, the parameter, and the correction. All of these mistakes are
found at load time, before the first event.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias, Union, get_args, get_origin, get_type_hints

from chatbot.conversation.dialog import Dialog
from chatbot.dispatch.context import Context
from chatbot.dispatch.outcome import Pass
from chatbot.dispatch.source_location import place_of, without_partial
from chatbot.errors import PluginError
from chatbot.events import Event, MessageReceived, ThreadEvent, ThreadLeft
from chatbot.model import Value

Function: TypeAlias = Callable[..., Any]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Signature(Value):
    """The parameters of a handler.

    Args:
        parameters: the parameters after the context, with resolved annotations.
        is_dialog: whether its first parameter is a dialog instead of a context.
    """

    parameters: tuple[inspect.Parameter, ...]
    is_dialog: bool = False


def check_async(function: Function, role: str) -> None:
    """Reject a function that is not an `async def`.

    Raises:
        PluginError: it is a synchronous function, an async generator, or not a function.
    """
    if inspect.iscoroutinefunction(function):
        return
    if not callable(function) or not hasattr(without_partial(function), "__code__"):
        refuse(function, f"{function!r} is not a function; a {role} is an `async def`")
    name = name_of(function)
    if inspect.isasyncgenfunction(function):
        refuse(
            function,
            f"{role} {name} yields; let it return its reply, or await ctx.reply() for each of several",
        )
    if name == "<lambda>":
        refuse(function, f"a lambda cannot be a {role}, which is async; write a separate `async def`")
    refuse(function, f"{role} {name} is not async; write `async def {name}`")


def read_signature(function: Function, event: type[Event], role: str) -> Signature:
    """Return the parameters of a handler for this event.

    Raises:
        PluginError: an annotation cannot be resolved, the first parameter is not a Context that fits the event, or
            the return annotation is not a type that a handler may return.
    """
    hints = hints_of(function)
    parameters = [
        parameter.replace(annotation=hints.get(parameter.name, parameter.annotation))
        for parameter in inspect.signature(function).parameters.values()
    ]
    is_dialog = bool(parameters) and parameters[0].annotation is Dialog
    if is_dialog:
        _check_dialog(function, event, role)
    else:
        _check_context(function, parameters, event, role)
    check_return(function, event, hints, role)
    return Signature(tuple(parameters[1:]), is_dialog)


def check_middleware(function: Function) -> None:
    """Reject a middleware that cannot wrap every handler.

    Raises:
        PluginError: it is not async, or does not take a `Context[Event]` and `proceed`.
    """
    check_async(function, "middleware")
    parameters = list(inspect.signature(function).parameters.values())
    name = name_of(function)
    if len(parameters) < 2:
        refuse(
            function,
            f"middleware {name} takes two parameters: `async def {name}(ctx: Context[Event], proceed: Proceed)`",
        )
    accepted = events_of(hints_of(function).get(parameters[0].name))
    if accepted is None or Event not in accepted:
        refuse(
            function,
            f"parameter {parameters[0].name!r} of middleware {name} must take every event;"
            f" write `{parameters[0].name}: Context[Event]`",
        )


def name_of(function: Function) -> str:
    """Return the name of a function for error messages."""
    return getattr(without_partial(function), "__name__", None) or repr(function)


def refuse(function: Function, reason: str) -> NoReturn:
    """Raise a `PluginError` that begins with the file and line of the function."""
    msg = f"{place_of(function)}: {reason}"
    raise PluginError(msg)


def shown(value: object) -> str:
    """Describe an invalid argument of a decorator; a function means that its parentheses are missing."""
    return f"the function {value.__name__}" if inspect.isfunction(value) else repr(value)


def type_name(annotation: object) -> str:
    """Return a type as it is written in source code."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " | ".join("None" if argument is type(None) else type_name(argument) for argument in arguments)
    if isinstance(annotation, type) and not arguments:
        return annotation.__qualname__
    if isinstance(origin, type) and all(isinstance(argument, type) for argument in arguments):
        return f"{origin.__qualname__}[{', '.join(map(type_name, arguments))}]"
    return str(annotation).replace("typing.", "")


def hints_of(function: Function) -> dict[str, Any]:
    """Return the resolved annotations of a function.

    Raises:
        PluginError: an annotation cannot be resolved.
    """
    try:
        return get_type_hints(without_partial(function), include_extras=True)
    except NameError as error:
        refuse(
            function,
            f"the annotation of {_unresolved_name(function, str(error.name))} in {name_of(function)} cannot be"
            f" resolved: there is no {error.name!r} in the module;"
            " import it at the top of the file, not under TYPE_CHECKING",
        )
    except Exception as error:  # evaluating an annotation may raise anything
        refuse(function, f"the annotations of {name_of(function)} cannot be resolved: {error}")


def _unresolved_name(function: Function, missing: str) -> str:
    annotations = getattr(inspect.unwrap(function), "__annotations__", {})
    for name, annotation in annotations.items():
        if missing in str(annotation):
            return "the return" if name == "return" else f"parameter {name!r}"
    return "a parameter"


def _check_context(function: Function, parameters: list[inspect.Parameter], event: type[Event], role: str) -> None:
    wanted = "Context" if event is MessageReceived else f"Context[{event.__name__}]"
    name = name_of(function)
    first = parameters[0] if parameters else None
    if first is None or first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
        refuse(function, f"{role} {name} takes no context; its first parameter is `ctx: {wanted}`")
    if first.name in ("self", "cls") and "." in function.__qualname__.rpartition("<locals>.")[2]:
        refuse(function, f"{role} {name} is a method; move it out of its class, or register a bound method")
    if first.annotation is first.empty:
        refuse(function, f"parameter {first.name!r} of {name} has no type; write `{first.name}: {wanted}`")
    accepted = events_of(first.annotation)
    if accepted is None:
        refuse(
            function,
            f"parameter {first.name!r} of {name} is {type_name(first.annotation)}; its first parameter"
            f" is the context: write `ctx: {wanted}`",
        )
    if not issubclass(event, accepted):
        names = " | ".join(event.__name__ for event in accepted)
        refuse(
            function,
            f"parameter {first.name!r} of {name} is Context[{names}], but it is registered for {event.__name__};"
            f" write `{first.name}: {wanted}`",
        )


def _check_dialog(function: Function, event: type[Event], role: str) -> None:
    if event is not MessageReceived:
        refuse(
            function,
            f"{role} {name_of(function)} takes a Dialog, but it is registered for {event.__name__}, which is not"
            " a message: dialogs begin with a message or a command",
        )


def events_of(annotation: object) -> tuple[type[Event], ...] | None:
    """Return the events that a context annotation accepts, or None if it is not a context."""
    if annotation is Context:
        return (MessageReceived,)
    if get_origin(annotation) is not Context:
        return None
    (wanted,) = get_args(annotation)
    members = get_args(wanted) if get_origin(wanted) in (Union, types.UnionType) else (wanted,)
    events = tuple(Event if member is Any else member for member in members)
    return events if all(isinstance(event, type) and issubclass(event, Event) for event in events) else None


def _says_something(annotation: object) -> bool:
    return annotation is str or any(argument is str for argument in get_args(annotation))


def check_return(function: Function, event: type[Event], hints: dict[str, Any], role: str) -> None:
    """Reject a return annotation that is not a reply, or a reply to an event without a thread.

    Raises:
        PluginError: the annotation is invalid.
    """
    if "return" not in hints:
        return
    if not issubclass(event, ThreadEvent) and event is not Event and _says_something(hints["return"]):
        refuse(
            function,
            f"{role} {name_of(function)} returns a reply, but {event.__name__} happens in no thread; return None, and"
            " use ctx.reply(…, thread=…)",
        )
    if event is ThreadLeft and _says_something(hints["return"]):
        refuse(
            function,
            f"{role} {name_of(function)} returns a reply, but after ThreadLeft the bot is not in the thread any more;"
            " return None",
        )
    if not _may_be_returned(hints["return"]):
        refuse(
            function,
            f"{role} {name_of(function)} returns {type_name(hints['return'])}; it may return str (a reply), None,"
            " or PASS (annotated `Pass`)",
        )


def _may_be_returned(annotation: object) -> bool:
    if annotation in (Any, None, type(None), str, Pass, NoReturn):
        return True
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return all(map(_may_be_returned, get_args(annotation)))
    if origin is Literal:
        return all(argument is None or isinstance(argument, str | Pass) for argument in get_args(annotation))
    return isinstance(annotation, type) and issubclass(annotation, str)
