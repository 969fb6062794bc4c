"""Doing something once: an effect whose result is remembered at once, so that a retry gets it without the effect."""

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
    """How the result of a function is stored: as the function's annotation says, else as plain JSON.

    Raises:
        TypeError: it is annotated with a type that cannot be stored.
    """
    plain: Any = function
    while isinstance(plain, functools.partial):
        plain = plain.func
    try:
        hint = get_type_hints(plain).get("return", Any)
    except (NameError, TypeError):  # written for type checkers only, or no function of Python's
        hint = Any
    name = getattr(plain, "__name__", "the function")
    return form_of(hint, f"the result of {name}") if hint is not type(None) else _NOTHING


async def perform(caller: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function, async or not.

    Args:
        caller: what an author has written to call it, such as `talk.run`.
    """
    with _inside(caller):
        result = function(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result


_CALLER: Final[ContextVar[str | None]] = ContextVar("caller", default=None)
"""What the running code was called by, if it is called once only. A context variable, not a flag of the event:
what another task of the same handler does meanwhile is not inside."""


@contextmanager
def _inside(caller: str) -> Iterator[None]:
    token = _CALLER.set(caller)
    try:
        yield
    finally:
        _CALLER.reset(token)


def refuse_inside_effect(call: str, *, remedy: str) -> None:
    """Refuse a call whose effect waits for the commit, or is a step of a dialog, inside of a function called once.

    The result of that function is committed before the handler ends. If the handler fails after it, or is killed,
    the next attempt gets the result without calling the function, so that what the function asked for is lost.

    Args:
        call: what was done, such as `ctx.reply()`.
        remedy: what to write instead.

    Raises:
        StateError: it is called there.
    """
    caller = _CALLER.get()
    if caller is not None:
        msg = (
            f"{call} happened inside {caller}(…), which a later attempt does not call again, so that it would be lost;"
            f" {remedy}"
        )
        raise StateError(msg)


_NOTHING = Form(lambda value, place: None, lambda value, place: None)
