"""Where something stands in an author's code, as `file:line`; every refusal of a plugin begins with it."""

from __future__ import annotations

import functools
import importlib
import inspect
import linecache
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted under us: then nothing lies below it
        return os.devnull


_HERE: Final = _working_directory() + os.sep  # asked once: asking again would be a system call on a running loop


_FOREIGN: Final = (
    *{os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib", "purelib", "platlib")},
    os.path.join(str(Path(__file__).parents[1]), ""),
)
"""Where code is that no author of a plugin has written: Python, installed packages, chatbot."""


_OF_PYTHON: Final = ("<string>", "<unknown>", "<stdin>")
_FROZEN: Final = re.compile(r"<frozen [\w.]+>")


def place_of(function: object) -> str:
    """Where a function is defined: the first line of its decorators, `file:line`."""
    plain = inspect.unwrap(function) if callable(function) else function
    while isinstance(plain, functools.partial):
        plain = plain.func
    code = getattr(plain, "__code__", None) or getattr(vars(type(plain)).get("__call__"), "__code__", None)
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


def place_of_error(error: BaseException) -> str | None:
    """The innermost line of an author's own code that an error came from, rather than of Python, chatbot or a package.

    None where it came from no code that stands in a file.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_machinery(frame.filename)]
    own = [frame for frame in frames if not frame.filename.startswith(_FOREIGN)] or frames
    return at(own[-1].filename, own[-1].lineno) if own else None


def _is_machinery(filename: str) -> bool:
    """Whether Python runs a module there: that is never what went wrong."""
    return filename.startswith("<") or filename == importlib.__file__


def is_known_source(filename: str) -> bool:
    """Whether code of this name stands in a file, or is Python's own; code made at run time may have any name."""
    return filename in _OF_PYTHON or bool(_FROZEN.fullmatch(filename)) or bool(linecache.getlines(filename))


def at(filename: str, line: int | None) -> str:
    """`file:line`, or the file alone; relative to where the program was started, as terminals link it."""
    shown = filename.removeprefix(_HERE)
    return f"{shown}:{line}" if line else shown
