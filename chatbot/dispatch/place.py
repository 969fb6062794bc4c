"""Where something stands in an author's code, as `file:line`; every refusal of a plugin begins with it."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any, Final


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted under us: then nothing lies below it
        return os.devnull


_HERE: Final = _working_directory() + os.sep  # asked once: asking again would be a system call on a running loop


def place_of(function: object) -> str:
    """Where a function is defined: the first line of its decorators, `file:line`."""
    plain = inspect.unwrap(function) if callable(function) else function
    while isinstance(plain, functools.partial):
        plain = plain.func
    code = getattr(plain, "__code__", None)
    return f"{plain!r}" if code is None else at(code.co_filename, code.co_firstlineno)


def qualified_name(function: Callable[..., Any]) -> str:
    """The module and the name in it: what reply keys are built on, so that renaming a function is a new handler."""
    plain = without_partial(function)
    return f"{plain.__module__}.{plain.__qualname__}"


def without_partial(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that a partial function calls."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def place_of_caller(depth: int = 1) -> str:
    """Where the caller of the calling function stands (`depth` 1), or callers further out."""
    frame = sys._getframe(depth + 1)
    return at(frame.f_code.co_filename, frame.f_lineno)


def at(filename: str, line: int | None) -> str:
    """`file:line`, or the file alone; relative to where the program was started, as terminals link it."""
    shown = filename.removeprefix(_HERE)
    return f"{shown}:{line}" if line else shown
