"""Source locations in plugin code, as `file:line`. Every error about a plugin begins with one."""

from __future__ import annotations

import functools
import importlib
import inspect
import linecache
import os
import re
import sys
from collections.abc import Callable
from typing import Any, Final


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # the directory was deleted: no file can be below it
        return os.devnull


_HERE: Final = _working_directory() + os.sep  # read once: `os.getcwd` would be a system call on the event loop


_OF_PYTHON: Final = ("<string>", "<unknown>", "<stdin>")
_FROZEN: Final = re.compile(r"<frozen [\w.]+>")


def place_of(function: object) -> str:
    """Return where a function is defined: the line of its first decorator, as `file:line`."""
    plain = inspect.unwrap(function) if callable(function) else function
    while isinstance(plain, functools.partial):
        plain = plain.func
    code = getattr(plain, "__code__", None) or getattr(vars(type(plain)).get("__call__"), "__code__", None)
    return f"{plain!r}" if code is None else location(code.co_filename, code.co_firstlineno)


def qualified_name(function: Callable[..., Any]) -> str:
    """Return module and qualified name. Reply keys contain it, so a renamed function is a new handler."""
    plain = without_partial(function)
    return f"{plain.__module__}.{plain.__qualname__}"


def without_partial(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that a `functools.partial` wraps."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def place_of_caller(depth: int = 1) -> str:
    """Return the location of the caller of the calling function (`depth` 1), or of an outer caller."""
    frame = sys._getframe(depth + 1)
    return location(frame.f_code.co_filename, frame.f_lineno)


def place_of_error(error: BaseException, *, is_own: bool = False) -> str | None:
    """Return the innermost location of an error in plugin code, skipping Python, chatbot and installed packages.

    Return None if the error did not come from code in a file; with `is_own`, also if it did not come from plugin code.
    """
    import traceback  # here, because plugins are imported without it

    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_machinery(frame.filename)]
    own = [frame for frame in frames if not frame.filename.startswith(_foreign())]
    own = own if is_own else own or frames
    return location(own[-1].filename, own[-1].lineno) if own else None


@functools.cache
def _foreign() -> tuple[str, ...]:
    """Return the directories of code that is not plugin code: Python, installed packages, chatbot."""
    import sysconfig  # here, because plugins are imported without it

    of_python = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    of_chatbot = os.path.dirname(os.path.dirname(__file__))
    return tuple(os.path.join(directory, "") for directory in (*of_python, of_chatbot))


def _is_machinery(filename: str) -> bool:
    """Return whether a frame belongs to Python's module runner or import system, which never causes the error."""
    return filename.startswith("<") or filename == importlib.__file__


def is_known_source(filename: str) -> bool:
    """Return whether a file name denotes a file or Python's own code; generated code may have any name."""
    return filename in _OF_PYTHON or bool(_FROZEN.fullmatch(filename)) or bool(linecache.getlines(filename))


def location(filename: str, line: int | None) -> str:
    """Return `file:line` or the file alone, relative to the start directory so that terminals can link it."""
    shown = filename.removeprefix(_HERE)
    return f"{shown}:{line}" if line else shown
