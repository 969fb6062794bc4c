"""What went wrong in a plugin, shown where its author has written it, and not how chatbot came there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeVar

from chatbot.dispatch import HandlerSource, Roster
from chatbot.errors import PluginError

__tracebackhide__ = True  # pytest: what is of interest is the author's test and code

X = TypeVar("X", bound=Exception)

_CHATBOT: Final = str(Path(__file__).parents[1]) + os.sep


def check_together(plugins: Sequence[HandlerSource]) -> None:
    """See that these can be the plugins of one bot.

    Raises:
        PluginError: they cannot; raised here, with nothing in between, as its message has the place.
    """
    try:
        Roster(handler for plugin in plugins for handler in plugin.handlers())
    except PluginError as error:
        raise error.with_traceback(None) from None


def from_the_author_on(error: X) -> X:
    """The error without the calls of chatbot that led to the author's code, if it came so far."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_CHATBOT):
        trace = trace.tb_next
    return error.with_traceback(trace or error.__traceback__)
