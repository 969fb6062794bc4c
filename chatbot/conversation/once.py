"""Doing something once: an effect whose result is remembered at once, so that a retry gets it without the effect."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from chatbot.stores.forms import Form
from chatbot.stores.values import form_of


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


async def perform(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function, async or not."""
    result = function(*args, **kwargs)
    return await result if inspect.isawaitable(result) else result


_NOTHING = Form(lambda value, place: None, lambda value, place: None)
