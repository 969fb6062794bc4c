"""Types of a plugin's decorators, with which type checkers reject a wrong event, first parameter or return type.

`Concatenate[Context[E], P]` binds the first parameter to the event and leaves the others to the author.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from chatbot.conversation.dialog import Dialog
from chatbot.dispatch.context import Context
from chatbot.dispatch.outcome import Reply
from chatbot.events import Event, MessageReceived

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
