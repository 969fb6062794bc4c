"""Functions around every handler of a plugin: for logging, access, timing. Composed once, when plugins are loaded.

A middleware is `async def around(ctx: Context[Event], proceed: Proceed) -> Reply`. It awaits `proceed()`, which is
the next middleware or the handler, and returns what that returned, or something else instead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias

from chatbot.dispatch.context import Context
from chatbot.dispatch.reply import Reply
from chatbot.events import Event

Proceed: TypeAlias = Callable[[], Awaitable[Reply]]
"""Goes on to the next middleware, or to the handler."""

Middleware: TypeAlias = Callable[[Context[Event], Proceed], Awaitable[Reply]]
"""A function around handlers."""


def compose(middleware: Sequence[Middleware]) -> Middleware:
    """One middleware out of many; the first is the outermost."""
    composed: Middleware = _straight
    for one in reversed(middleware):
        composed = one if composed is _straight else partial(_around, one, composed)
    return composed


async def _straight(ctx: Context[Event], proceed: Proceed) -> Reply:
    return await proceed()


async def _around(outer: Middleware, inner: Middleware, ctx: Context[Event], proceed: Proceed) -> Reply:
    return await outer(ctx, partial(inner, ctx, proceed))
