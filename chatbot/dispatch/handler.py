"""A handler that is ready to run: an author's function, resolved when plugins are loaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import takewhile
from typing import Any, Final

from chatbot.conversation.dialog import Dialog
from chatbot.conversation.schedules import Schedule
from chatbot.conversation.unit_of_work import CANCEL_WORDS, UnitOfWork
from chatbot.dispatch.argument_types import plain_type
from chatbot.dispatch.arguments import BadArguments, ParticipantResolver, names_in
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
from chatbot.dispatch.context import Context, ContextOfDialog
from chatbot.dispatch.error_handler import ErrorHandler
from chatbot.dispatch.event_view import CommandInfo, EventView
from chatbot.dispatch.filters import NOTHING, Filter, Found
from chatbot.dispatch.middleware import BoundMiddleware, MiddlewareChain, compose, compose_once
from chatbot.dispatch.outcome import PASS, Ack, Pass, Reply, Retry
from chatbot.dispatch.parameters import Function, name_of, read_signature, refuse
from chatbot.dispatch.provider import Injector, Needs, Provider, ProviderCache, Scope, check_contexts, needs_of
from chatbot.dispatch.source_location import place_of, qualified_name
from chatbot.dispatch.timer_payload import TimerPayload
from chatbot.events import Event, ScheduleFired, TimerFired
from chatbot.model import Participant

BOT_TIMEOUT: Final = timedelta(minutes=10)
"""The default of a handler's `timeout`: what bots.yaml says of the bot, which is ten minutes by default.

Known by its identity: a handler that asks for ten minutes itself gets them whatever bots.yaml says.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a handler is treated.

    Args:
        from_bots: whether it also gets what other bots did.
        ack: when messages it handles are shown as read; None leaves it to the bot.
        retry: how often it is tried when it fails; None is as usual.
        timeout: how long one attempt may run; None is as long as it likes, `BOT_TIMEOUT` is as the bot says.
    """

    from_bots: bool = False
    ack: Ack | None = None
    retry: Retry | None = None
    timeout: timedelta | None = BOT_TIMEOUT


@dataclass(frozen=True, slots=True)
class Registration:
    """What a decorator noted down; nothing of the function has been looked at yet.

    Args:
        function: the author's.
        event: the class of events it is for.
        filter: which of them; None is all.
        command: the command's name without the slash; None if it is none.
        options: how it is treated.
        schedule: when it is due, if it is due again and again.
        needs_text: whether messages that only carry attachments are not for it.
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
        """What messages call it."""
        if self.event is TimerFired:
            return "timer"
        return "handler" if self.command is None else "command"

    @property
    def is_called_by_name(self) -> bool:
        """Whether its events name it, so that no other handler is asked."""
        return self.event in (TimerFired, ScheduleFired)


@dataclass(frozen=True, slots=True)
class PluginScope:
    """What a plugin, and those that include it, put around its handlers.

    Args:
        middleware: outermost first.
        providers: what handlers may ask for.
        errors: who hears of failures, the nearest first.
        cancel_words: what people say to a dialog that they do not want to go on with.
        fixed: types of which the providers were chosen for all plugins, whatever they provide themselves.
    """

    middleware: tuple[BoundMiddleware, ...] = ()
    providers: Scope = field(default_factory=dict)
    errors: tuple[ErrorHandler, ...] = ()
    cancel_words: tuple[str, ...] = CANCEL_WORDS
    fixed: frozenset[object] = frozenset()


@dataclass(frozen=True, slots=True)
class Handler:
    """A registration with its signature resolved and its middleware composed.

    Args:
        registration: what the author asked for.
        name: the function's qualified name; reply keys are built on it.
        find: what its filter finds in an event; None if it does not want it.
        bind: makes the function's arguments of what the filter found.
        needs: the parameters that providers fill.
        states: the parameters that are state.
        leading: the parameters that are given by position, up to the first that keeps its default.
        layers: the middleware, outermost first.
        middleware: the middleware, as one; None if providers fill something of it, for every event anew.
        errors: who hears of it when it keeps failing, the nearest first.
        info: what people are told of it, if it is a command.
        takes_people: whether names of people may be typed for its parameters.
        payload: what it is called with, if it is a timer.
        is_dialog: whether it holds a dialog.
        cancel_words: what people say when they do not want to go on with it.
    """

    registration: Registration
    name: str
    find: Callable[[EventView], Found | None]
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

    @property
    def place(self) -> str:
        """Where the function is defined, `file:line`."""
        return place_of(self.registration.function)

    @property
    def providers(self) -> Iterator[Provider]:
        """All that it needs, with its middleware and its error handlers."""
        for needs in (self.needs, *(layer.needs for layer in self.layers), *(handler.needs for handler in self.errors)):
            yield from needs.values()

    def timeout(self, of_bot: float | None) -> float | None:
        """Return how long an attempt may run, in seconds; None is as long as it likes.

        Args:
            of_bot: what holds where the handler does not say.
        """
        limit = self.registration.options.timeout
        if limit is BOT_TIMEOUT:
            return of_bot
        return None if limit is None else limit.total_seconds()

    def match(self, view: EventView) -> Match | None:
        """What to call the handler with; None if it does not want the event."""
        found = self.find(view)
        return None if found is None else self.bind(view, found)

    async def answer(
        self, ctx: Context[Any], match: Match, provider_cache: ProviderCache, unit_of_work: UnitOfWork
    ) -> Reply:
        """Call the function, through its middleware.

        Raises:
            TypeError: it returned something that is no reply.
            Exception: what it raised itself.
        """
        if self.middleware is not None and not self.needs:
            reply = await self.middleware(ctx, partial(self._proceed, ctx, match, unit_of_work))
        else:
            injector = provider_cache.injector(ctx)
            chain = self.middleware or compose([layer.bind(injector) for layer in self.layers])
            reply = await chain(ctx, partial(self._proceed, ctx, match, unit_of_work, injector))
        if reply is None or isinstance(reply, str | Pass):
            return reply
        msg = f"{self.place}: {self.name} returned {type(reply).__name__}; a handler returns str, None or PASS"
        raise TypeError(msg)

    async def _proceed(
        self, ctx: Context[Any], match: Match, unit_of_work: UnitOfWork, injector: Injector | None = None
    ) -> Reply:
        """What the innermost middleware goes on to."""
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
        """The match, with people in the place of their names."""
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
        reply: Reply = await unit_of_work.hold_dialog(
            self.name, ctx.text, self.cancel_words, function, ContextOfDialog(ctx)
        )
        return None if reply is PASS and unit_of_work.has_dialog_step else reply


def prepare(registration: Registration, scope: PluginScope) -> Handler:
    """A handler that is ready to run.

    Args:
        registration: what the author asked for.
        scope: what its plugin, and those that include it, put around it.

    Raises:
        PluginError: the function asks for something that nobody can give.
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
    return Handler(
        registration,
        qualified_name(function),
        registration.filter.match if registration.filter else _any,
        bind,
        needs,
        states,
        _leading(parameters),
        scope.middleware,
        compose_once(scope.middleware),
        scope.errors,
        info,
        _takes_people(others),
        payload,
        signature.is_dialog,
        scope.cancel_words,
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
    """A dialog's arguments are read anew for every answer; who is in the thread may be others by then."""
    for parameter in parameters:
        if _takes_people([parameter]):
            refuse(
                function,
                f"parameter {parameter.name!r} of {name_of(function)} is a Participant, but a dialog outlives who is in"
                " the thread; take a str, or begin with a command that takes a Context",
            )


def _takes_people(parameters: Iterable[inspect.Parameter]) -> bool:
    return any(plain_type(parameter.annotation) is Participant for parameter in parameters)


def _any(view: EventView) -> Found:
    return NOTHING


def _leading(parameters: Sequence[inspect.Parameter]) -> tuple[str, ...]:
    return tuple(
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    )
