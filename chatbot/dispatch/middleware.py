"""Functions around every handler of a plugin: for logging, access, timing. Composed once, when plugins are loaded.

A middleware is `async def around(ctx: Context[Event], proceed: Proceed) -> Reply`. It awaits `proceed()`, which is
the next middleware or the handler, and returns what that returned, or something else instead. Further parameters are
filled by providers.
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

Proceed: TypeAlias = Callable[[], Awaitable[Reply]]
"""Goes on to the next middleware, or to the handler."""

Middleware: TypeAlias = Callable[Concatenate[Context[Event], Proceed, ...], Awaitable[Reply]]
"""A function around handlers."""

MiddlewareChain: TypeAlias = Callable[[Context[Event], Proceed], Awaitable[Reply]]
"""A middleware whose further parameters are filled."""


@dataclass(frozen=True, slots=True)
class BoundMiddleware:
    """A middleware, resolved at load.

    Args:
        function: the author's.
        needs: the parameters that providers fill.
    """

    function: Middleware
    needs: Needs

    def bind(self, injector: Injector) -> MiddlewareChain:
        """The function with its needs met, for one event."""
        return partial(self._around, injector) if self.needs else self.function

    async def _around(self, injector: Injector, ctx: Context[Event], proceed: Proceed) -> Reply:
        async with injector.resolve(self.needs) as provided:
            return await self.function(ctx, proceed, **provided)


def prepare_layer(function: Middleware, scope: Scope) -> BoundMiddleware:
    """A middleware that is ready to run.

    Raises:
        PluginError: it asks for something that nobody provides, or that is not made for every event.
    """
    needs = needs_behind(function, 2, scope, "middleware")
    check_contexts(function, Event, needs)
    return BoundMiddleware(function, needs)


def compose(middleware: Sequence[MiddlewareChain]) -> MiddlewareChain:
    """One middleware out of many; the first is the outermost."""
    composed: MiddlewareChain = _straight
    for outer in reversed(middleware):
        composed = outer if composed is _straight else partial(_around, outer, composed)
    return composed


def compose_once(layers: Sequence[BoundMiddleware]) -> MiddlewareChain | None:
    """One middleware for all events; None if providers fill something of it, for every event anew."""
    return None if any(layer.needs for layer in layers) else compose([layer.function for layer in layers])


async def _straight(ctx: Context[Event], proceed: Proceed) -> Reply:
    return await proceed()


async def _around(outer: MiddlewareChain, inner: MiddlewareChain, ctx: Context[Event], proceed: Proceed) -> Reply:
    return await outer(ctx, partial(inner, ctx, proceed))
