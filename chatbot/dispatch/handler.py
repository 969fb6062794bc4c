"""Handlers: plugin functions with parameters, middleware and providers resolved when plugins are loaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import takewhile
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from chatbot.conversation.dialog import CANCEL_WORDS, Dialog
from chatbot.dispatch.argument_types import plain_type
from chatbot.dispatch.arguments import NO_VALUES, BadArguments, ParticipantResolver, TimerPayload, names_in
from chatbot.dispatch.binding import (
    Bind,
    Match,
    States,
    arguments_of,
    bind_arguments,
    bind_groups,
    bind_payload,
    payload_of,
    states_of,
)
from chatbot.dispatch.context import Context, ContextDialogHost
from chatbot.dispatch.event_view import CommandInfo, EventView
from chatbot.dispatch.filters import NOTHING, Filter, Found, finder
from chatbot.dispatch.middleware import BoundMiddleware, MiddlewareChain, Proceed, compose, compose_once
from chatbot.dispatch.outcome import PASS, Ack, Pass, Reply, Retry, not_a_reply
from chatbot.dispatch.parameters import Function, name_of, read_signature, refuse
from chatbot.dispatch.provider import Injector, Needs, Provider, ProviderCache, Scope, check_contexts, needs_of
from chatbot.dispatch.source_location import place_of, qualified_name
from chatbot.events import Event, ScheduleFired, TimerFired
from chatbot.model import Participant, Value

if TYPE_CHECKING:
    from chatbot.conversation.schedules import Schedule
    from chatbot.conversation.unit_of_work import UnitOfWork
    from chatbot.dispatch.error_handler import ErrorHandler

BOT_TIMEOUT: Final = timedelta(minutes=10)
"""The default of a handler's `timeout`: the bot's setting in bots.yaml, which is ten minutes by default.

It is compared by identity: a handler that sets ten minutes itself gets them regardless of bots.yaml.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Options(Value):
    """Options of a handler.

    Args:
        from_bots: whether it also receives events caused by other bots.
        ack: when the messages it handles are marked as read; None uses the bot's setting.
        retry: how failures are retried; None is the default policy.
        timeout: the time limit of one attempt; None is unlimited, `BOT_TIMEOUT` is the bot's setting.
    """

    from_bots: bool = False
    ack: Ack | None = None
    retry: Retry | None = None
    timeout: timedelta | None = BOT_TIMEOUT


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Registration(Value):
    """The arguments of a decorator; the function has not been inspected yet.

    Args:
        function: the function of the plugin's author.
        event: the class of events that it handles.
        filter: selects among these events; None selects all.
        command: the command's name without the slash; None if it is not a command.
        options: the options of the handler.
        schedule: when it is due, if it runs on a schedule.
        needs_text: whether messages that only have attachments are skipped.
    """

    function: Function
    event: type[Event]
    filter: Filter | None = None
    command: str | None = None
    options: Options = Options()
    schedule: Schedule | None = None
    needs_text: bool = False

    @property
    def role(self) -> str:
        """Return the name of its kind for error messages."""
        if self.event is TimerFired:
            return "timer"
        return "handler" if self.command is None else "command"

    @property
    def is_called_by_name(self) -> bool:
        """Return whether its events name the handler, so that no other handler is tried."""
        return self.event in (TimerFired, ScheduleFired)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PluginScope(Value):
    """The middleware, providers and error handlers that a plugin and its including plugins apply to handlers.

    Args:
        middleware: outermost first.
        providers: the providers visible to handlers.
        errors: the error handlers, the nearest first.
        cancel_words: the answers that cancel a dialog.
        fixed: types whose provider is fixed for all plugins and takes precedence over their own.
    """

    middleware: tuple[BoundMiddleware, ...] = ()
    providers: Scope = field(default_factory=dict)
    errors: tuple[ErrorHandler, ...] = ()
    cancel_words: tuple[str, ...] = CANCEL_WORDS
    fixed: frozenset[object] = frozenset()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Handler(Value):
    """A registration with its signature resolved and its middleware composed.

    Args:
        registration: the arguments of the decorator.
        name: the qualified name of the function. Reply keys contain it, so a renamed function is a new handler.
        find: applies the filter; returns the named texts, or None if the event does not match. None without a filter.
        bind: converts the named texts to the function's arguments.
        needs: the parameters that providers supply.
        states: the parameters that are state.
        leading: the parameters passed by position, up to the first that keeps its default.
        layers: the middleware, outermost first.
        middleware: the composed middleware; None if providers supply values of it for each event.
        errors: the error handlers called when retries are exhausted, the nearest first.
        info: the entry in the list of commands, if it is a command.
        takes_people: whether a parameter is a participant, typed as a name.
        payload: the parameters of a timer's function, if it is a timer.
        is_dialog: whether it is a dialog.
        cancel_words: the answers that cancel the dialog.
        is_direct: whether a call needs nothing beside its context, unless arguments were typed, and only makes a
            coroutine: the function and its middleware are written with `async def`.
    """

    registration: Registration
    name: str
    find: Callable[[EventView], Found | None] | None
    bind: Bind
    needs: Needs
    states: States
    leading: tuple[str, ...]
    layers: tuple[BoundMiddleware, ...]
    middleware: MiddlewareChain | None
    errors: tuple[ErrorHandler, ...]
    info: CommandInfo | None
    takes_people: bool
    payload: TimerPayload | None = None
    is_dialog: bool = False
    cancel_words: tuple[str, ...] = CANCEL_WORDS
    is_direct: bool = False

    @property
    def place(self) -> str:
        """Return where the function is defined, as `file:line`."""
        return place_of(self.registration.function)

    @property
    def providers(self) -> Iterator[Provider]:
        """Yield all providers needed by the function, its middleware and its error handlers."""
        for needs in (self.needs, *(layer.needs for layer in self.layers), *(handler.needs for handler in self.errors)):
            yield from needs.values()

    def timeout(self, of_bot: float | None) -> float | None:
        """Return the time limit of an attempt in seconds; None is unlimited.

        Args:
            of_bot: the bot's limit, used if the handler does not set one.
        """
        limit = self.registration.options.timeout
        if limit is BOT_TIMEOUT:
            return of_bot
        return None if limit is None else limit.total_seconds()

    def match(self, view: EventView) -> Match | None:
        """Return the arguments of the call, or None if the event does not match."""
        found = NOTHING if self.find is None else self.find(view)
        return None if found is None else self.bind(view, found)

    def answer(
        self, ctx: Context[Any], match: Match, provider_cache: ProviderCache, unit_of_work: UnitOfWork
    ) -> Coroutine[Any, Any, Reply]:
        """Return a coroutine that calls the function through its middleware; what it returns is not `checked` yet."""
        if self.is_direct and match is NO_VALUES:
            function: Any = self.registration.function
            chain: Any = self.middleware
            return chain(ctx, partial(function, ctx)) if self.layers else function(ctx)  # type: ignore[no-any-return]
        return self._answer(ctx, match, provider_cache, unit_of_work)

    async def _answer(
        self, ctx: Context[Any], match: Match, provider_cache: ProviderCache, unit_of_work: UnitOfWork
    ) -> Reply:
        if self.needs or self.middleware is None:
            injector = provider_cache.injector(ctx)
            chain = self.middleware or compose([layer.bind(injector) for layer in self.layers])
            return await chain(ctx, partial(self._proceed, ctx, match, unit_of_work, injector))
        proceed: Proceed = partial(self._proceed, ctx, match, unit_of_work)
        return await (self.middleware(ctx, proceed) if self.layers else proceed())

    def checked(self, reply: object) -> Reply:
        """Return what the function has returned, if it is a reply.

        Raises:
            TypeError: it is none.
        """
        if reply is None or isinstance(reply, str | Pass):
            return reply
        raise not_a_reply(reply, f"{self.place}: {self.name}")

    async def _proceed(
        self, ctx: Context[Any], match: Match, unit_of_work: UnitOfWork, injector: Injector | None = None
    ) -> Reply:
        """Call the function; this is the `proceed` of the innermost middleware."""
        values = await self._with_people(ctx, match) if self.takes_people else match
        if isinstance(values, BadArguments):
            return str(values)
        named = dict(values.named)
        for name, kind in self.states.items():
            named[name] = await unit_of_work.state(kind)
        if injector is None:
            return await self._call(ctx, named, values.many, unit_of_work)
        async with injector.resolve(self.needs) as provided:
            return await self._call(ctx, {**named, **provided}, values.many, unit_of_work)

    async def _with_people(self, ctx: Context[Any], match: Match) -> Match:
        """Replace typed names in the match with participants of the thread."""
        if isinstance(match, BadArguments) or not any(names_in(match)):
            return match
        try:
            return ParticipantResolver(await ctx.participants()).fill(match)
        except BadArguments as error:
            return BadArguments(f"{error}\nUsage: {self.info.usage}" if self.info else str(error))

    def _call(
        self, ctx: Context[Any], named: dict[str, Any], many: Sequence[Any], unit_of_work: UnitOfWork
    ) -> Coroutine[Any, Any, Reply]:
        function = self.registration.function
        first = [named.pop(name) for name in takewhile(named.__contains__, self.leading)] if named else ()
        if self.is_dialog:
            return self._talk(ctx, lambda talk: function(talk, *first, *many, **named), unit_of_work)
        called: Coroutine[Any, Any, Reply] = function(ctx, *first, *many, **named)
        return called

    async def _talk(self, ctx: Context[Any], function: Callable[[Dialog], Any], unit_of_work: UnitOfWork) -> Reply:
        reply: Reply = await unit_of_work.run_dialog(
            self.name, ctx.text, self.cancel_words, function, ContextDialogHost(ctx)
        )
        return None if reply is PASS and unit_of_work.has_dialog_step else reply


def prepare(registration: Registration, scope: PluginScope) -> Handler:
    """Resolve a registration to a handler.

    Args:
        registration: the arguments of the decorator.
        scope: the middleware, providers and error handlers of its plugin and of the plugins that include it.

    Raises:
        PluginError: the signature is invalid, or a parameter has no source.
    """
    function = registration.function
    signature = read_signature(function, registration.event, registration.role)
    parameters = signature.parameters
    needs = needs_of(parameters, scope.providers)
    check_contexts(function, registration.event, needs)
    states = states_of(
        function, registration.event, [parameter for parameter in parameters if parameter.name not in needs]
    )
    others = [parameter for parameter in parameters if parameter.name not in needs and parameter.name not in states]
    if signature.is_dialog:
        _check_no_people(function, others)
    payload = payload_of(function, others) if registration.event is TimerFired else None
    bind, info = (bind_payload(payload), None) if payload else _binding(registration, others)
    middleware = compose_once(scope.middleware)

    def what() -> str:
        return f"{place_of(function)}: the filter of {qualified_name(function)}"

    return Handler(
        registration,
        qualified_name(function),
        finder(registration.filter, what) if registration.filter else None,
        bind,
        needs,
        states,
        _leading(parameters),
        scope.middleware,
        middleware,
        scope.errors,
        info,
        _takes_people(others),
        payload,
        signature.is_dialog,
        scope.cancel_words,
        is_direct=not (parameters or signature.is_dialog)
        and middleware is not None
        and all(map(_is_coroutine_function, (function, *(layer.function for layer in scope.middleware)))),
    )


def _binding(registration: Registration, parameters: Sequence[inspect.Parameter]) -> tuple[Bind, CommandInfo | None]:
    function = registration.function
    if registration.command is None:
        names = registration.filter.names if registration.filter else frozenset[str]()
        return bind_groups(function, names, parameters), None
    arguments = arguments_of(function, registration.command, parameters)
    summary = (inspect.getdoc(function) or "").partition("\n")[0].strip()
    return bind_arguments(arguments), CommandInfo(registration.command, arguments.usage, summary)


def _check_no_people(function: Function, parameters: Sequence[inspect.Parameter]) -> None:
    """Reject participants as arguments of a dialog.

    The arguments are parsed again for every answer, and the participants of the thread may have changed by then.
    """
    for parameter in parameters:
        if _takes_people([parameter]):
            refuse(
                function,
                f"parameter {parameter.name!r} of {name_of(function)} is a Participant, but a dialog outlives who is in"
                " the thread; take a str, or begin with a command that takes a Context",
            )


def _takes_people(parameters: Iterable[inspect.Parameter]) -> bool:
    return any(plain_type(parameter.annotation) is Participant for parameter in parameters)


def _is_coroutine_function(function: object) -> bool:
    """Return whether a call makes a coroutine and runs nothing: not so if code of a plugin makes the coroutine."""
    return isinstance(function, FunctionType) and bool(function.__code__.co_flags & inspect.CO_COROUTINE)


def _leading(parameters: Sequence[inspect.Parameter]) -> tuple[str, ...]:
    return tuple(
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    )
