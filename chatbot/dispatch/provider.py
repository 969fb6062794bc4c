"""Dependency injection by type: providers create what handlers need besides the event.

Rules:
    1. A provider is an `async def` annotated with its return type. A provider that yields its value resumes after
       `yield` for teardown when the lifetime of the value ends. An exception of the handler is raised at the `yield`
       of the values created for its event, so that a transaction can be rolled back; a provider cannot suppress it.
    2. A provider whose first parameter is a context is called for every handled event, and so is a provider that
       needs the value of such a provider. All others are called once per bot.
    3. Handlers, middleware, error handlers and providers request a value by the type of a parameter. They see the
       providers of their own plugin and of the plugins that include it; the nearest one takes precedence.
    4. A middleware and the handler that it calls share their values, which are torn down after the middleware
       returns.
"""

from __future__ import annotations

import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, NewType, TypeAlias, Union, get_args, get_origin

from chatbot.conversation.state import Remembered
from chatbot.dispatch.argument_types import conversion_for
from chatbot.dispatch.context import Context
from chatbot.dispatch.parameters import Function, events_of, hints_of, name_of, refuse, type_name
from chatbot.dispatch.source_location import place_of
from chatbot.errors import StateError
from chatbot.events import Event

Needs: TypeAlias = Mapping[str, "Provider"]
"""The parameters of a function that providers supply, by name."""

Scope: TypeAlias = Mapping[object, "Provider"]
"""The providers visible to the functions of a plugin, by the type of their value."""


@dataclass(frozen=True, slots=True, eq=False)
class Provider:
    """A provider function of a plugin, with its own dependencies resolved.

    Args:
        function: the function of the plugin's author.
        makes: the type of its value.
        needs: its parameters that other providers supply.
        accepts: the event types of its context; empty if it takes no context.
        is_per_event: whether it is called for every handled event rather than once per bot.
        is_given: whether its value was given by a test, which may stand in for the type.
    """

    function: Function
    makes: object
    needs: Needs
    accepts: tuple[type[Event], ...]
    is_per_event: bool
    is_given: bool = False

    def with_needed(self) -> Iterator[Provider]:
        """Yield its direct and indirect dependencies and then itself; a provider may appear more than once."""
        for needed in self.needs.values():
            yield from needed.with_needed()
        yield self


class ProviderCache:
    """The values that providers created for a bot. Enter it with `async with` before the first event is handled.

    Args:
        providers: the providers that the bot's handlers need.
    """

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._providers = [
            needed for provider in providers for needed in provider.with_needed() if not needed.is_per_event
        ]
        self._made: dict[Provider, Any] = {}
        self._teardown = AsyncExitStack()

    async def __aenter__(self) -> None:
        """Create all values that live as long as the bot; if one fails, tear down those created before it."""
        try:
            for provider in self._providers:
                if provider not in self._made:
                    self._made[provider] = await _make(provider, self._made, None, self._teardown)
        except BaseException:
            await self.__aexit__()
            raise

    async def __aexit__(self, *exc_info: object) -> None:
        self._made = {}
        await self._teardown.aclose()

    def injector(self, ctx: Context[Any]) -> Injector:
        """Return an injector for one event."""
        return Injector(dict(self._made), ctx)


class Injector:
    """Creates the values for one event, shared by a handler and its middleware.

    Args:
        made: the values that exist already.
        ctx: the context passed to providers.
    """

    __slots__ = ("_ctx", "_made")

    def __init__(self, made: dict[Provider, Any], ctx: Context[Any]) -> None:
        self._made = made
        self._ctx = ctx

    @asynccontextmanager
    async def resolve(self, needs: Needs) -> AsyncIterator[dict[str, Any]]:
        """Yield the values of a function's parameters; tear down those created for it on exit.

        Raises:
            StateError: a value that lives as long as the bot is missing, because the dispatcher was not entered.
            TypeError: a provider returned something else than its annotation says.
        """
        own: list[Provider] = []
        failure: BaseException | None = None
        try:
            async with AsyncExitStack() as stack:
                for provider in self._missing(needs):
                    self._made[provider] = await _make(provider, self._made, self._ctx, stack)
                    own.append(provider)
                try:
                    yield {name: self._made[provider] for name, provider in needs.items()}
                except BaseException as error:  # raised at each `yield`, and again below: a provider cannot suppress it
                    failure = error
                    raise
        finally:
            for provider in own:
                del self._made[provider]
        if failure is not None:
            raise failure

    def _missing(self, needs: Needs) -> Iterator[Provider]:
        """Yield the providers still to be called, dependencies first."""
        for needed in needs.values():
            for provider in needed.with_needed():
                if provider in self._made:
                    continue
                if not provider.is_per_event:
                    msg = f"{name_of(provider.function)} has not run: dispatch inside `async with dispatcher:`"
                    raise StateError(msg)
                yield provider


def needs_of(parameters: Iterable[inspect.Parameter], scope: Scope) -> Needs:
    """Return the provider of each parameter that has one."""
    return {
        parameter.name: scope[parameter.annotation]
        for parameter in parameters
        if _is_provided(parameter.annotation, scope)
    }


def needs_behind(function: Function, leading: int, scope: Scope, role: str) -> Needs:
    """Return the provider of each parameter after the leading ones.

    Args:
        function: a middleware, error handler or provider of a plugin.
        leading: the number of parameters passed by position.
        scope: the providers visible to it.
        role: the name of its kind in error messages.

    Raises:
        PluginError: a parameter has no provider.
    """
    hints, needs = hints_of(function), dict[str, Provider]()
    for parameter in list(inspect.signature(function).parameters.values())[leading:]:
        wanted = hints.get(parameter.name, parameter.empty)
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            refuse(
                function, f"parameter {parameter.name!r} of {role} {name_of(function)} has no name of its own; name it"
            )
        if not _is_provided(wanted, scope):
            refuse(function, f"parameter {parameter.name!r} of {role} {name_of(function)} {_unprovided(wanted)}")
        needs[parameter.name] = scope[wanted]
    return needs


def _unprovided(wanted: object) -> str:
    if wanted is inspect.Parameter.empty:
        return "has no type; annotate it, or remove it"
    origin = get_origin(wanted)
    if isinstance(origin, type) and issubclass(origin, Remembered):
        return f"is a {origin.__name__}, but only handlers have state; let the handler ask for it"
    return f"has {type_name(wanted)}, which no provider supplies; provide it, or remove it"


def check_contexts(function: Function, event: type[Event], needs: Needs) -> None:
    """Reject providers whose context does not fit the event that the function handles.

    Raises:
        PluginError: a needed provider takes the context of another event.
    """
    for name, needed in needs.items():
        for provider in needed.with_needed():
            if provider.accepts and not issubclass(event, provider.accepts):
                refuse(
                    function,
                    f"parameter {name!r} of {name_of(function)} is made by {name_of(provider.function)}, whose context"
                    f" is not one of {event.__name__}; give {name_of(provider.function)} a `Context[Event]`",
                )


def fixed_provider(type: object, value: object) -> Provider:
    """Return a provider of an existing value."""

    async def give() -> object:
        return value

    return Provider(give, type, {}, (), is_per_event=False, is_given=True)


def resolve_providers(functions: Sequence[Function], outer: Scope, fixed: Collection[object] = ()) -> Scope:
    """Return the providers visible to the functions of a plugin.

    Args:
        functions: the plugin's own provider functions.
        outer: the providers of the plugins that include it.
        fixed: types whose provider in `outer` takes precedence over the plugin's own.

    Raises:
        PluginError: a provider has no return type, its type has two providers or is also a type of command
            arguments, one of its dependencies has no provider, or it depends on itself.
    """
    own: dict[object, Function] = {}
    for function in functions:
        made = _type_made_by(function)
        if made in own:
            refuse(function, f"{type_name(made)} is provided already, by {place_of(own[made])}; remove one of them")
        own[made] = function
    own = {made: function for made, function in own.items() if made not in fixed}
    scope = {made: provider for made, provider in outer.items() if made not in own}
    for made in own:
        if made not in scope:
            _resolve(made, own, scope, ())
    return scope


def _resolve(
    made: object, own: Mapping[object, Function], scope: dict[object, Provider], path: tuple[object, ...]
) -> None:
    function = own[made]
    if made in path:
        circle = " needs ".join(map(type_name, (*path[path.index(made) :], made)))
        refuse(function, f"providers cannot need each other in a circle: {circle}; remove one parameter")
    hints, parameters = hints_of(function), list(inspect.signature(function).parameters.values())
    accepts = events_of(hints.get(parameters[0].name)) if parameters else None
    leading = 1 if accepts else 0
    for parameter in parameters[leading:]:
        wanted = hints.get(parameter.name)
        if _is_provided(wanted, own) and wanted not in scope:
            _resolve(wanted, own, scope, (*path, made))
    needs = needs_behind(function, leading, scope, "provider")
    is_per_event = accepts is not None or any(provider.is_per_event for provider in needs.values())
    scope[made] = Provider(function, made, needs, accepts or (), is_per_event)


def _is_provided(wanted: object, scope: Mapping[object, object]) -> bool:
    try:
        return wanted in scope
    except TypeError:  # an unhashable annotation, such as Annotated[int, {}]
        return False


def _type_made_by(function: Function) -> object:
    name = name_of(function)
    if not inspect.iscoroutinefunction(function) and not inspect.isasyncgenfunction(function):
        refuse(function, f"provider {name} is not async; write `async def {name}`")
    made = hints_of(function).get("return")
    is_iterator = get_origin(made) in (AsyncIterator, AsyncGenerator)
    if inspect.isasyncgenfunction(function) and not is_iterator:
        refuse(function, f"provider {name} yields, so annotate its return as AsyncIterator[…] of what it provides")
    if is_iterator and not inspect.isasyncgenfunction(function):
        refuse(function, f"provider {name} returns {type_name(made)}, but it never yields; yield what it provides once")
    made = get_args(made)[0] if is_iterator else made
    if made in (None, type(None), Any, object):
        refuse(function, f"provider {name} does not say what it provides; annotate what it returns")
    if conversion_for(made) is not None or events_of(made) is not None:
        refuse(
            function, f"provider {name} provides {type_name(made)}, which parameters are filled with already; wrap it"
        )
    return made


async def _make(
    provider: Provider, made: Mapping[Provider, Any], ctx: Context[Any] | None, teardown: AsyncExitStack
) -> Any:
    arguments = {name: made[needed] for name, needed in provider.needs.items()}
    leading = (ctx,) if provider.accepts else ()
    if not inspect.isasyncgenfunction(provider.function):
        return _checked(provider, await provider.function(*leading, **arguments))
    lifetime: AbstractAsyncContextManager[Any] = asynccontextmanager(provider.function)(*leading, **arguments)
    return _checked(provider, await teardown.enter_async_context(lifetime))


def _checked(provider: Provider, value: Any) -> Any:
    """Return the value of a provider, and reject one that is not of the type that its annotation promises."""
    if _fits(value, provider.makes) or (provider.is_given and value is not None):
        return value
    if isinstance(value, Coroutine):
        value.close()  # Python would warn that it was never awaited, far from here
    function = provider.function
    does = "yields" if inspect.isasyncgenfunction(function) else "returns"
    what = "None" if value is None else f"a {type(value).__qualname__}"
    remedy = (
        f"is there a `{does[:-1]}` missing, or a value behind it?"
        if value is None
        else "is there an `await` missing?"
        if isinstance(value, Awaitable)
        else "correct the annotation or the value"
    )
    msg = (
        f"{place_of(function)}: provider {name_of(function)} {does} {what} instead of {type_name(provider.makes)};"
        f" {remedy}"
    )
    raise TypeError(msg)


def _fits(value: object, wanted: Any) -> bool:
    """Return whether a value is of a type, as far as that can be told without looking into the value."""
    if wanted is None or wanted is type(None):
        return value is None
    while isinstance(wanted, NewType):
        wanted = wanted.__supertype__
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Annotated:
        return _fits(value, arguments[0])
    if origin in (Union, UnionType):
        return any(_fits(value, argument) for argument in arguments)
    kind = origin or wanted
    if value is None or not isinstance(kind, type):
        return value is not None
    try:
        return isinstance(value, _WIDER.get(kind, kind))
    except TypeError:  # a protocol that is for type checkers only
        return True


_WIDER: Mapping[type, tuple[type, ...]] = {float: (float, int), complex: (complex, float, int)}
"""Types whose annotation also allows others."""
