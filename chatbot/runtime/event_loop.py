"""The event loop that bots run on: uvloop if it is installed (the extra `uvloop`), else asyncio."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from importlib.util import find_spec
from typing import Final, TypeVar, TypeVarTuple

import anyio

from chatbot.distribution import install_command
from chatbot.errors import ConfigError

T = TypeVar("T")
Args = TypeVarTuple("Args")

VARIABLE: Final = "CHATBOT_EVENT_LOOP"
"""The environment variable that chooses the event loop: `asyncio` or `uvloop`."""

ASYNCIO: Final = "asyncio"
UVLOOP: Final = "uvloop"


def chosen(environ: Mapping[str, str]) -> str:
    """Return the event loop to use, `asyncio` or `uvloop`.

    Args:
        environ: may hold `CHATBOT_EVENT_LOOP`.

    Raises:
        ConfigError: the variable names an unknown event loop, or one that is not installed.
    """
    named = environ.get(VARIABLE, "")
    is_installed = find_spec(UVLOOP) is not None
    if not named:
        return UVLOOP if is_installed else ASYNCIO
    if named not in (ASYNCIO, UVLOOP):
        msg = f"the environment variable {VARIABLE} is {named!r}; it can be {ASYNCIO} or {UVLOOP}"
        raise ConfigError(msg)
    if named == UVLOOP and not is_installed:
        remedy = install_command("uvloop")
        msg = f"the environment variable {VARIABLE} asks for uvloop, which is not installed: {remedy}"
        raise ConfigError(msg)
    return named


def running() -> str:
    """Return the event loop that runs now, `asyncio` or `uvloop`."""
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


def run(loop: str, function: Callable[[*Args], Awaitable[T]], *args: *Args) -> T:
    """Run a coroutine function on an event loop from `chosen`, and return its result."""
    streams = sys.stdout, sys.stderr
    try:
        return anyio.run(function, *args, backend_options={"use_uvloop": loop == UVLOOP})
    finally:
        # A handler may have replaced them, and Python exits with a code of its own if it cannot flush them at the end.
        sys.stdout, sys.stderr = streams
