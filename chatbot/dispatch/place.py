"""Where something stands in an author's code, as `file:line`; every refusal of a plugin begins with it."""

from __future__ import annotations

import functools
import inspect
import os
import sys


def place_of(function: object) -> str:
    """Where a function is defined: the first line of its decorators, `file:line`.

    The file is given relative to the working directory when it lies below it, as editors and terminals link it.
    """
    plain = inspect.unwrap(function) if callable(function) else function
    while isinstance(plain, functools.partial):
        plain = plain.func
    code = getattr(plain, "__code__", None)
    if code is None:
        return f"{plain!r}"
    return at(code.co_filename, code.co_firstlineno)


def place_of_caller(depth: int = 1) -> str:
    """Where the caller of the calling function stands (`depth` 1), or callers further out."""
    frame = sys._getframe(depth + 1)
    return at(frame.f_code.co_filename, frame.f_lineno)


def at(filename: str, line: int | None) -> str:
    """`file:line`, the file relative to the working directory when it lies below it."""
    below = os.path.relpath(filename) if os.path.isabs(filename) and _same_drive(filename) else filename
    shown = filename if below.startswith("..") else below
    return f"{shown}:{line}" if line else shown


def _same_drive(filename: str) -> bool:
    return os.path.splitdrive(filename)[0] == os.path.splitdrive(os.getcwd())[0]
