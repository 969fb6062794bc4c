"""A plugin: a group of handlers, registered with decorators, in the order in which they are tried.

A plugin is a value: it does not know its bots and does nothing by itself. Decorators return the function unchanged, so
that tests can call it directly. Their arguments are validated at once; the signatures of functions are checked when the
plugin is loaded.

The types of the decorators let type checkers reject a wrong event, first parameter or return type:
`Concatenate[Context[E], P]` binds the first parameter to the event and leaves the others to the author.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Protocol, TypeVar, cast, overload

from chatbot.conversation.dialog import Dialog
from chatbot.dispatch.context import Context
from chatbot.dispatch.filters import Filter, FilterLike, as_filter, name_of_filter
from chatbot.dispatch.handler import BOT_TIMEOUT, Handler, Options, PluginScope, Registration, prepare
from chatbot.dispatch.middleware import Middleware, Proceed, prepare_layer
from chatbot.dispatch.outcome import Ack, Reply, Retry
from chatbot.dispatch.parameters import Function, check_async, check_middleware, refuse, shown
from chatbot.dispatch.provider import fixed_provider, resolve_providers
from chatbot.dispatch.source_location import place_of, place_of_caller
from chatbot.errors import PluginError
from chatbot.events import DialogTimedOut, Event, MessageReceived, ScheduleFired, TimerFired
from chatbot.normalization import is_word, normalize

if TYPE_CHECKING:
    from chatbot.conversation.schedules import Schedule
    from chatbot.dispatch.error_handler import ErrorHandler

P = ParamSpec("P")
R = TypeVar("R", bound=Reply)
E = TypeVar("E", bound=Event)
X = TypeVar("X", bound=Exception)


class Registers(Protocol[E]):
    """A decorator for handlers of one class of events; it returns the handler unchanged."""

    def __call__(
        self, handler: Callable[Concatenate[Context[E], P], Coroutine[Any, Any, R]], /
    ) -> Callable[Concatenate[Context[E], P], Coroutine[Any, Any, R]]:
        """Register the handler."""
        ...


class RegistersMessages(Protocol):
    """A decorator for handlers of messages, which may hold dialogs; it returns the handler unchanged."""

    @overload
    def __call__(
        self, handler: Callable[Concatenate[Context[MessageReceived], P], Coroutine[Any, Any, R]], /
    ) -> Callable[Concatenate[Context[MessageReceived], P], Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(
        self, handler: Callable[Concatenate[Dialog, P], Coroutine[Any, Any, R]], /
    ) -> Callable[Concatenate[Dialog, P], Coroutine[Any, Any, R]]: ...

    def __call__(self, handler: Any, /) -> Any:
        """Register the handler."""
        ...


class RegistersError(Protocol[X]):
    """A decorator for error handlers; it returns the function unchanged."""

    def __call__(
        self, handler: Callable[Concatenate[Context[Event], X, P], Coroutine[Any, Any, R]], /
    ) -> Callable[Concatenate[Context[Event], X, P], Coroutine[Any, Any, R]]:
        """Register the error handler."""
        ...


def validate_name(name: object, place: str) -> str:
    """Validate the name of a plugin.

    Raises:
        PluginError: it is not a valid name.
    """
    if not isinstance(name, str) or not name.strip():
        msg = f'{place}: {shown(name)} is not a plugin name; write Plugin("dice")'
        raise PluginError(msg)
    return name


def validate_words(words: Sequence[str] | None, place: str) -> tuple[str, ...]:
    """Validate the words that cancel dialogs; None gives an empty tuple.

    Raises:
        PluginError: the value is not a sequence of texts.
    """
    if isinstance(words, str) or not all(isinstance(word, str) and word.strip() for word in words or ()):
        msg = f"{place}: cancel_words is {words!r}; give several words, as in cancel_words=('cancel', 'stop')"
        raise PluginError(msg)
    return tuple(words or ())


def validate_command(name: object, place: str) -> str:
    """Validate the name of a command and return it normalized for lookup.

    Raises:
        PluginError: it cannot be typed as a command.
    """
    typed = normalize(name).removeprefix("/").lower() if isinstance(name, str) else ""
    if not is_word(typed.replace("-", "_")) or typed[0] in "-_":
        msg = (
            f"{place}: {shown(name)} cannot be typed as a command; use letters, digits, - and _, as in"
            ' @plugin.command("roll")'
        )
        raise PluginError(msg)
    return typed


def validate_filter(filter: FilterLike | None, place: str) -> Filter | None:
    """Validate the filter of a handler, if it has one.

    Raises:
        PluginError: it is not a filter; a handler means that the decorator's parentheses are missing.
    """
    if inspect.iscoroutinefunction(filter):
        msg = (
            f"{place}: {name_of_filter(filter)} is used as a filter, but it is async: a handler's decorator"
            " needs its parentheses, as in @plugin.message(), and a filter is a plain function from an event to a bool"
        )
        raise PluginError(msg)
    try:
        return None if filter is None else as_filter(filter)
    except TypeError as error:
        msg = f"{place}: {error}"
        raise PluginError(msg) from None


def check_options(options: Options, place: str) -> None:
    """Reject invalid options at load time, because some would only fail once a handler fails.

    Raises:
        PluginError: an option is invalid.
    """
    timeout, retry, ack = options.timeout, options.retry, options.ack
    wrong = None
    if timeout is not None and not (isinstance(timeout, timedelta) and timeout > timedelta()):
        wrong = f"timeout={timeout!r} is not a time; write timeout=timedelta(seconds=60)"
    elif retry is not None and not isinstance(retry, Retry):
        wrong = f"retry={retry!r} does not say how to retry; write retry=Retry(attempts=3)"
    elif ack is not None and not isinstance(ack, Ack):
        wrong = f"ack={ack!r} is not when to acknowledge; write ack=Ack.HANDLED, or another one of Ack"
    elif not isinstance(options.from_bots, bool):
        wrong = f"from_bots={options.from_bots!r} is neither True nor False"
    if wrong is not None:
        msg = f"{place}: {wrong}"
        raise PluginError(msg)


F = TypeVar("F", bound=Callable[..., AsyncIterator[object] | Coroutine[Any, Any, object]])

_CALLED_BY_NAME: Final[Mapping[type[Event], str]] = {
    TimerFired: "a timer calls the function it was set for; decorate that with @plugin.timer",
    ScheduleFired: "a schedule calls its own function; decorate that with @plugin.every or @plugin.cron",
    DialogTimedOut: "the dialog that waits gets it; `await talk.ask(…)` raises DialogTimeout there",
}


class Plugin:
    """A group of handlers.

    Args:
        name: its name in logs and errors.
        cancel_words: words with which people cancel its dialogs, in any case. By default those of the plugin that
            includes it, or `cancel` and `/cancel`.

    Raises:
        PluginError: the name is not a `str`, or the words are not a sequence.
    """

    def __init__(self, name: str, *, cancel_words: Sequence[str] | None = None) -> None:
        self.place = place_of_caller()
        self.name = validate_name(name, self.place)
        self._cancel_words = validate_words(cancel_words, self.place)
        self._parts: list[Registration | Plugin] = []
        self._middleware: list[Middleware] = []
        self._providers: list[Function] = []
        self._errors: list[ErrorHandler] = []

    def __repr__(self) -> str:
        return f"Plugin({self.name!r})"

    def message(
        self,
        filter: FilterLike | None = None,
        *,
        from_bots: bool = False,
        ack: Ack | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = BOT_TIMEOUT,
    ) -> RegistersMessages:
        """Register a handler for messages with text that no command takes.

        Args:
            filter: which of them; all by default. Its named groups fill the handler's parameters of these names.
            from_bots: whether it also receives messages of other chatbots; it never receives the bot's own.
            ack: when messages it answers are shown as read; by default as the bot's `ack` says.
            retry: how often it is tried when it fails; by default three times.
            timeout: how long an attempt may run before it is canceled and counts as failed; by default as the bot's
                `timeout` says (10 minutes). None is without limit.
        """
        registers = self._register(
            MessageReceived,
            filter,
            needs_text=True,
            options=Options(from_bots=from_bots, ack=ack, retry=retry, timeout=timeout),
        )
        return cast("RegistersMessages", registers)  # it takes both, and leaves the rest to the load

    def command(
        self,
        name: str,
        filter: FilterLike | None = None,
        *,
        from_bots: bool = False,
        ack: Ack | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = BOT_TIMEOUT,
    ) -> RegistersMessages:
        """Register a handler for `/name`; its further parameters are the arguments of the command.

        Parameters may be str, int, float, bool, date, timedelta, UUID, an Enum or a Literal; a `Participant` is a
        person in the thread, typed by name. `Rest` takes the remaining text, `*many` all words, and keyword-only
        parameters are `--options`. Invalid input is answered with the usage. /help shows the docstring's first line.

        Args:
            name: without the slash; people may type it in any case.
            filter: which messages; a command that its filter refuses is a message like any other.
            from_bots: whether it also answers other chatbots.
            ack: when messages it answers are shown as read; by default as the bot's `ack` says.
            retry: how often it is tried when it fails; by default three times.
            timeout: how long an attempt may run before it is canceled and counts as failed; by default as the bot's
                `timeout` says (10 minutes). None is without limit.

        Raises:
            PluginError: the name cannot be typed as a command, or the plugin has it already.
        """
        registers = self._register(
            MessageReceived,
            filter,
            command=name,
            options=Options(from_bots=from_bots, ack=ack, retry=retry, timeout=timeout),
        )
        return cast("RegistersMessages", registers)  # it takes both, and leaves the rest to the load

    def on(
        self,
        event: type[E],
        filter: FilterLike | None = None,
        *,
        from_bots: bool = False,
        ack: Ack | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = BOT_TIMEOUT,
    ) -> Registers[E]:
        """Register a handler for a class of events and its subclasses.

        As with messages, the first handler that matches answers; `return PASS` hands on.

        Args:
            event: the class; `on(MessageReceived)` also gets messages without text, in its turn.
            filter: which of them; all by default.
            from_bots: whether what other chatbots did counts too, and other bots are among the participants.
            ack: when messages it answers are shown as read; by default as the bot's `ack` says.
            retry: how often it is tried when it fails; by default three times.
            timeout: how long an attempt may run before it is canceled and counts as failed; by default as the bot's
                `timeout` says (10 minutes). None is without limit.
        """
        if event in _CALLED_BY_NAME:
            msg = f"{place_of_caller()}: on({event.__name__}) gets nothing: {_CALLED_BY_NAME[event]}"
            raise PluginError(msg)
        options = Options(from_bots=from_bots, ack=ack, retry=retry, timeout=timeout)
        return self._register(event, filter, options=options)

    @overload
    def timer(
        self, function: Callable[Concatenate[Context[TimerFired], P], Coroutine[Any, Any, R]], /
    ) -> Callable[Concatenate[Context[TimerFired], P], Coroutine[Any, Any, R]]: ...

    @overload
    def timer(
        self, *, retry: Retry | None = None, timeout: timedelta | None = BOT_TIMEOUT
    ) -> Registers[TimerFired]: ...

    def timer(
        self, function: Any = None, *, retry: Retry | None = None, timeout: timedelta | None = BOT_TIMEOUT
    ) -> Any:
        """Register a function that `ctx.later` can schedule: `@plugin.timer`.

        Its parameters after the context are arguments of `ctx.later`, state, or provided values. A timer is stored
        with the function's qualified name: if the function is renamed before it is due, it becomes a dead letter.

        Args:
            function: passed by the decorator if it is used without parentheses.
            retry: how often it is tried when it fails; by default three times.
            timeout: how long an attempt may run before it is canceled and counts as failed; by default as the bot's
                `timeout` says (10 minutes). None is without limit.
        """
        register = self._register(TimerFired, None, options=Options(retry=retry, timeout=timeout))
        return register if function is None else register(function)

    def every(
        self, period: timedelta, *, retry: Retry | None = None, timeout: timedelta | None = BOT_TIMEOUT
    ) -> Registers[ScheduleFired]:
        """Register a function to be called periodically, first one period after the bot's first start with it.

        The event has no thread: use `ctx.reply(…, thread=…)`. The times do not shift when the bot is restarted; if
        calls were missed while it was not running, the function is called once.

        Args:
            period: at least a second.
            retry: how often it is tried when it fails; by default three times.
            timeout: how long an attempt may run before it is canceled and counts as failed; by default as the bot's
                `timeout` says (10 minutes). None is without limit.

        Raises:
            PluginError: the period is too short.
        """
        from chatbot.conversation.schedules import Every

        return self._register_schedule(lambda: Every(period), Options(retry=retry, timeout=timeout))

    def cron(
        self, expression: str, *, tz: str = "UTC", retry: Retry | None = None, timeout: timedelta | None = BOT_TIMEOUT
    ) -> Registers[ScheduleFired]:
        """Register a function to be called by local time: `@plugin.cron("0 9 * * 1-5", tz="Europe/Paris")`.

        The event has no thread: use `ctx.reply(…, thread=…)`. If calls were missed while the bot was not running, the
        function is called once. A time that a clock change skips is due right after it; a time that occurs twice is
        due the first time.

        Args:
            expression: minute, hour, day of month, month, day of week, as in cron.
            tz: the time zone of the clock, by its name in the IANA database.
            retry: how often it is tried when it fails; by default three times.
            timeout: how long an attempt may run before it is canceled and counts as failed; by default as the bot's
                `timeout` says (10 minutes). None is without limit.

        Raises:
            PluginError: the expression or the time zone is invalid.
        """
        from chatbot.conversation.schedules import Cron

        return self._register_schedule(lambda: Cron(expression, tz), Options(retry=retry, timeout=timeout))

    def middleware(
        self, function: Callable[Concatenate[Context[Event], Proceed, P], Coroutine[Any, Any, R]], /
    ) -> Callable[Concatenate[Context[Event], Proceed, P], Coroutine[Any, Any, R]]:
        """Register a function around all handlers of this plugin and of those it includes; the first is outermost.

        It is `async def around(ctx: Context[Event], proceed: Proceed) -> Reply` and returns what `await proceed()`
        returned, or another reply. Further parameters are supplied by providers; a value that is created for the event
        is shared by the middleware and the handler.
        """
        check_middleware(function)
        self._middleware.append(function)
        return function

    def provide(self, function: F) -> F:
        """Register a provider of values that handlers ask for by type, in this plugin and those it includes.

        It is an `async def` annotated with the type of its value. One that yields its value, annotated with
        `AsyncIterator[…]`, tears it down after the `yield`. With a context as its first parameter it is called for
        every handled event, otherwise once per bot. Further parameters are supplied by other providers.
        """
        self._providers.append(function)
        return function

    @overload
    def error(self) -> RegistersError[Exception]: ...

    @overload
    def error(self, *errors: type[X]) -> RegistersError[X]: ...

    def error(self, *errors: type[Exception]) -> RegistersError[Any]:
        """Register an error handler for handlers of this plugin, and of those it includes, whose retries have failed.

        It is `async def sorry(ctx: Context[Event], error: ValueError) -> Reply`, called once, after the last retry
        and before the event becomes a dead letter. The actions of the failed handler are discarded. The first one for
        the error answers, those of the nearest plugin first; `return PASS` hands on. Further parameters are filled
        by providers.

        Args:
            errors: the exceptions that it handles; all by default.

        Raises:
            PluginError: one of them is not an exception class.
        """
        from chatbot.dispatch.error_handler import check_errors, prepare_error_handler

        check_errors(errors, place_of_caller())

        def register(function: Function) -> Function:
            self._errors.append(prepare_error_handler(function, errors or (Exception,)))
            return function

        return register

    def include(self, other: Plugin) -> None:
        """Include another plugin's handlers at this place in the order, within this plugin's middleware.

        Raises:
            PluginError: it is not a plugin, would include itself, or is included already.
        """
        place = place_of_caller()
        if not isinstance(other, Plugin):
            msg = f"{place}: include() takes a Plugin, not {other!r}; write `from plugins.other import plugin as other`"
            raise PluginError(msg)
        if other is self or other.includes(self):
            chain = f"{self.name!r} includes {other.name!r}" + (
                "" if other is self else f", which includes {self.name!r}"
            )
            msg = f"{place}: plugins cannot include each other in a circle: {chain}; remove one of the includes"
            raise PluginError(msg)
        if self.includes(other):
            msg = f"{place}: plugin {self.name!r} includes {other.name!r} already; remove this include"
            raise PluginError(msg)
        self._parts.append(other)

    def includes(self, other: Plugin) -> bool:
        """Return whether this plugin includes the other one, directly or through others."""
        return any(part is other or part.includes(other) for part in self._parts if isinstance(part, Plugin))

    def handlers(self, provide: Mapping[Any, object] = MappingProxyType({})) -> Sequence[Handler]:
        """Return all handlers, ready to run, in order; also those of included plugins.

        Args:
            provide: values by type that replace those of providers; for tests.

        Raises:
            PluginError: a parameter of a handler has no source; the message names file, line and remedy.
        """
        scope = {type: fixed_provider(type, value) for type, value in provide.items()}
        return self._prepared(PluginScope(providers=scope, fixed=frozenset(scope)))

    def _prepared(self, outer: PluginScope) -> list[Handler]:
        scope = resolve_providers(self._providers, outer.providers, outer.fixed)
        around = PluginScope(
            (*outer.middleware, *(prepare_layer(function, scope) for function in self._middleware)),
            scope,
            (*(error_handler.within(scope) for error_handler in self._errors), *outer.errors),
            self._cancel_words or outer.cancel_words,
            outer.fixed,
        )
        handlers: list[Handler] = []
        for part in self._parts:
            if isinstance(part, Plugin):
                handlers += part._prepared(around)
            else:
                handlers.append(prepare(part, around))
        return handlers

    def _register_schedule(self, make: Callable[[], Schedule], options: Options) -> Registers[ScheduleFired]:
        try:
            schedule = make()
        except (ValueError, TypeError) as error:
            msg = f"{place_of_caller(2)}: {error}"
            raise PluginError(msg) from None
        return self._register(ScheduleFired, None, options=options, schedule=schedule)

    def _register(
        self,
        event: type[E],
        filter: FilterLike | None,
        *,
        needs_text: bool = False,
        command: str | None = None,
        options: Options,
        schedule: Schedule | None = None,
    ) -> Registers[E]:
        place = place_of_caller(3 if schedule else 2)
        if not (isinstance(event, type) and issubclass(event, Event)):
            msg = f"{place}: on() takes a class of events, as in @plugin.on(ParticipantsAdded), not {shown(event)}"
            raise PluginError(msg)
        check_options(options, place)
        wanted = validate_filter(filter, place)
        name = None if command is None else validate_command(command, place)

        def register(function: Function) -> Function:
            registration = Registration(function, event, wanted, name, options, schedule, needs_text)
            check_async(function, registration.role)
            self._check_unique(registration)
            self._parts.append(registration)
            return function

        return register

    def _check_unique(self, new: Registration) -> None:
        for old in self._parts:
            if isinstance(old, Registration) and old.command is not None and old.command == new.command:
                refuse(
                    new.function,
                    f"command /{new.command} is taken already, by {place_of(old.function)}; rename one of them",
                )
