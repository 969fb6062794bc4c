"""A handler, ready to run: an author's function, resolved once at load, and what decides whether it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from chatbot.dispatch.arguments import Argument, Arguments, BadArguments, Values, argument_for
from chatbot.dispatch.context import Context, Pass
from chatbot.dispatch.conversion import CONVERTIBLE
from chatbot.dispatch.filters import Filter, Found
from chatbot.dispatch.middleware import Middleware, Reply, compose
from chatbot.dispatch.occasion import CommandInfo, Occasion
from chatbot.dispatch.outcome import Ack
from chatbot.dispatch.place import place_of
from chatbot.dispatch.signature import Function, name_of, read_signature, refuse, type_name
from chatbot.events import Event

Match: TypeAlias = Values | BadArguments
"""What a matching handler is called with; or, of a command, what is wrong with what was typed."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What a decorator noted down; nothing of the function has been looked at yet.

    Args:
        function: the author's.
        event: the class of events it is for.
        filter: which of them; None is all.
        command: the command's name without the slash; None if it is none.
        from_bots: whether it also gets what other bots did.
        ack: when messages it handles are shown as read; None leaves it to the bot.
    """

    function: Function
    event: type[Event]
    filter: Filter | None = None
    command: str | None = None
    from_bots: bool = False
    ack: Ack | None = None

    @property
    def role(self) -> str:
        """What messages call it."""
        return "handler" if self.command is None else "command"


@dataclass(frozen=True, slots=True)
class Handler:
    """A registration with its signature resolved and its middleware composed.

    Args:
        registration: what the author asked for.
        name: the function's qualified name; reply keys are built on it.
        bind: makes the function's arguments of what the filter found; None if they do not convert.
        around: the middleware, as one.
        info: what people are told of it, if it is a command.
    """

    registration: Registration
    name: str
    bind: Callable[[Occasion, Found], Match | None]
    around: Middleware
    info: CommandInfo | None

    @property
    def place(self) -> str:
        """Where the function is defined, `file:line`."""
        return place_of(self.registration.function)

    def match(self, occasion: Occasion) -> Match | None:
        """What to call the handler with; None if it does not want the event."""
        if self.registration.filter is None:
            return self.bind(occasion, {})
        found = self.registration.filter.match(occasion)
        return None if found is None else self.bind(occasion, found)

    async def answer(self, ctx: Context[Any], match: Match) -> Reply:
        """Call the function, through its middleware.

        Raises:
            TypeError: it returned something that is no reply.
        """
        reply = await self.around(ctx, lambda: self._call(ctx, match))
        if reply is None or isinstance(reply, str | Pass):
            return reply
        msg = f"{self.place}: {self.name} returned {type(reply).__name__}; a handler returns str, None or PASS"
        raise TypeError(msg)

    def _call(self, ctx: Context[Any], match: Match) -> Coroutine[Any, Any, Reply]:
        if isinstance(match, BadArguments):
            return _say(str(match))
        call: Coroutine[Any, Any, Reply] = self.registration.function(ctx, *match.positional, **match.options)
        return call


def prepare(registration: Registration, middleware: Sequence[Middleware] = ()) -> Handler:
    """A handler that is ready to run.

    Args:
        registration: what the author asked for.
        middleware: around it, outermost first.

    Raises:
        PluginError: the function asks for something that nobody can give.
    """
    function = registration.function
    parameters = read_signature(function, registration.event, registration.role).parameters
    if registration.command is None:
        bind, info = _bind_groups(registration, parameters), None
    else:
        arguments = Arguments(registration.command, tuple(_command_argument(function, one) for one in parameters))
        _check_order(function, arguments)
        bind, info = (
            _bind_command(arguments),
            CommandInfo(registration.command, arguments.usage, _summary(function)),
        )
    return Handler(registration, f"{function.__module__}.{function.__qualname__}", bind, compose(middleware), info)


async def _say(text: str) -> Reply:
    return text


def _summary(function: Function) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0].strip()


def _command_argument(function: Function, parameter: inspect.Parameter) -> Argument:
    argument = argument_for(parameter)
    if argument is None:
        refuse(function, _unfillable(function, parameter, f"a command's arguments are {CONVERTIBLE}, or Rest"))
    return argument


def _check_order(function: Function, arguments: Arguments) -> None:
    positional = [one for one in arguments.arguments if not one.is_option]
    for one in positional[:-1]:
        if one.is_rest:
            refuse(
                function,
                f"parameter {one.name!r} of {name_of(function)} is Rest, which takes everything still to come;"
                " make it the last one",
            )


def _bind_command(arguments: Arguments) -> Callable[[Occasion, Found], Match | None]:
    def bind(occasion: Occasion, found: Found) -> Match | None:
        line = occasion.command_line
        if line is None:
            return None
        try:
            return arguments.parse(line.arguments)
        except BadArguments as error:
            return error

    return bind


def _bind_groups(
    registration: Registration, parameters: Sequence[inspect.Parameter]
) -> Callable[[Occasion, Found], Match | None]:
    function = registration.function
    names = registration.filter.names if registration.filter else frozenset[str]()
    arguments: dict[str, tuple[Argument, object]] = {}
    for one in parameters:
        argument = argument_for(one)
        if one.name not in names:
            has = (
                f"the filter finds {', '.join(sorted(names))}" if names else "no filter of it finds a text of this name"
            )
            refuse(function, _unfillable(function, one, has))
        if argument is None or one.kind in (one.VAR_POSITIONAL, one.POSITIONAL_ONLY):
            refuse(function, _unfillable(function, one, f"a text that a filter found becomes {CONVERTIBLE}"))
        arguments[one.name] = (argument, one.default)

    def bind(occasion: Occasion, found: Found) -> Match | None:
        options = _read_groups(arguments, found)
        return None if options is None else Values(options=options)

    return bind


def _read_groups(arguments: Mapping[str, tuple[Argument, object]], found: Found) -> dict[str, Any] | None:
    options: dict[str, Any] = {}
    for name, (argument, default) in arguments.items():
        word = found.get(name)
        if word is None and default is not inspect.Parameter.empty:
            continue
        try:
            options[name] = argument.read(word or "")
        except BadArguments:
            return None
    return options


def _unfillable(function: Function, parameter: inspect.Parameter, remedy: str) -> str:
    if parameter.annotation is parameter.empty:
        return f"parameter {parameter.name!r} of {name_of(function)} has no type; {remedy}"
    return (
        f"parameter {parameter.name!r} of {name_of(function)} is {type_name(parameter.annotation)},"
        f" which nothing can fill; {remedy}"
    )
