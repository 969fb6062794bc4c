"""What a plugin's decorators are to type checkers, which so flag a wrong event, first parameter or return.

`Concatenate[Context[E], P]` binds the first parameter to the event and leaves the others to the author.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from chatbot.dispatch.context import Context
from chatbot.dispatch.reply import Reply
from chatbot.events import Event

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


class RegistersError(Protocol[X]):
    """A decorator for error handlers; it returns the function unchanged."""

    def __call__(
        self, handler: Callable[[Context[Event], X], Coroutine[Any, Any, R]], /
    ) -> Callable[[Context[Event], X], Coroutine[Any, Any, R]]:
        """Register the error handler."""
        ...
