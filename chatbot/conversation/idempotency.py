"""Call functions with effects once: their result is committed immediately, and a retry gets it without the effect."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, get_type_hints

from chatbot.errors import StateError
from chatbot.stores.serialization import Form, form_of


def result_form(function: Callable[..., Any]) -> Form:
    """Return the stored form of a function's result: by its return annotation, else as plain JSON.

    Raises:
        TypeError: it is annotated with a type that cannot be stored.
    """
    plain: Any = function
    while isinstance(plain, functools.partial):
        plain = plain.func
    try:
        hint = get_type_hints(plain).get("return", Any)
    except (NameError, TypeError):  # imported for type checkers only, or not a Python function
        hint = Any
    name = getattr(plain, "__name__", "the function")
    return form_of(hint, f"the result of {name}") if hint is not type(None) else _NOTHING


async def perform(caller: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function, async or not.

    Args:
        caller: the method that an author used to call it, such as `talk.run`.
    """
    with _inside(caller):
        result = function(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result


_CALLER: Final[ContextVar[str | None]] = ContextVar("caller", default=None)
"""The method that called the running code, if that code runs once only. A context variable rather than a flag of the
event: other tasks of the same handler that run at the same time are not inside that call."""


@contextmanager
def _inside(caller: str) -> Iterator[None]:
    token = _CALLER.set(caller)
    try:
        yield
    finally:
        _CALLER.reset(token)


def refuse_inside_effect(call: str, *, remedy: str) -> None:
    """Refuse a call that waits for the commit, or is a step of a dialog, inside a function that is called once.

    The result of that function is committed before the handler ends. If the handler fails after it, or is killed,
    the next attempt gets the result without calling the function, so the actions of the function would be lost.

    Args:
        call: the refused call, such as `ctx.reply()`.
        remedy: what to write instead.

    Raises:
        StateError: the call is inside such a function.
    """
    caller = _CALLER.get()
    if caller is not None:
        msg = (
            f"{call} happened inside {caller}(…), which a later attempt does not call again, so that it would be lost;"
            f" {remedy}"
        )
        raise StateError(msg)


_NOTHING = Form(lambda value, place: None, lambda value, place: None)
