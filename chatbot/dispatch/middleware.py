"""Middleware: functions that wrap every handler of a plugin, for logging, access control or timing.

A middleware is `async def around(ctx: Context[Event], proceed: Proceed) -> Reply`. It awaits `proceed()`, which calls
the next middleware or the handler, and returns that result or another one. Providers supply further parameters.
Middleware is composed once, when plugins are loaded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Concatenate, TypeAlias

from chatbot.dispatch.context import Context
from chatbot.dispatch.outcome import Reply
from chatbot.dispatch.provider import Injector, Needs, Scope, check_contexts, needs_behind
from chatbot.events import Event
from chatbot.model import Value

Proceed: TypeAlias = Callable[[], Awaitable[Reply]]
"""Calls the next middleware, or the handler."""

Middleware: TypeAlias = Callable[Concatenate[Context[Event], Proceed, ...], Awaitable[Reply]]
"""A function that wraps handlers."""

MiddlewareChain: TypeAlias = Callable[[Context[Event], Proceed], Awaitable[Reply]]
"""A middleware whose further parameters are supplied."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BoundMiddleware(Value):
    """A middleware with its dependencies resolved at load time.

    Args:
        function: the function of the plugin's author.
        needs: the parameters that providers supply.
    """

    function: Middleware
    needs: Needs

    def bind(self, injector: Injector) -> MiddlewareChain:
        """Return the middleware with its dependencies supplied for one event."""
        return partial(self._around, injector) if self.needs else self.function

    async def _around(self, injector: Injector, ctx: Context[Event], proceed: Proceed) -> Reply:
        async with injector.resolve(self.needs) as provided:
            return await self.function(ctx, proceed, **provided)


def prepare_layer(function: Middleware, scope: Scope) -> BoundMiddleware:
    """Resolve the dependencies of a middleware.

    Raises:
        PluginError: a dependency has no provider, or its provider does not accept every event.
    """
    needs = needs_behind(function, 2, scope, "middleware")
    check_contexts(function, Event, needs)
    return BoundMiddleware(function, needs)


def compose(middleware: Sequence[MiddlewareChain]) -> MiddlewareChain:
    """Compose middleware into one; the first is the outermost."""
    composed: MiddlewareChain = _call_directly
    for outer in reversed(middleware):
        composed = outer if composed is _call_directly else partial(_around, outer, composed)
    return composed


def compose_once(layers: Sequence[BoundMiddleware]) -> MiddlewareChain | None:
    """Compose middleware once for all events; return None if providers supply values for each event."""
    return None if any(layer.needs for layer in layers) else compose([layer.function for layer in layers])


async def _call_directly(ctx: Context[Event], proceed: Proceed) -> Reply:
    return await proceed()


async def _around(outer: MiddlewareChain, inner: MiddlewareChain, ctx: Context[Event], proceed: Proceed) -> Reply:
    return await outer(ctx, partial(inner, ctx, proceed))
