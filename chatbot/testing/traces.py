"""The traceback of a handler's error as its author wants to see it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, TypeVar

X = TypeVar("X", bound=Exception)

_CHATBOT: Final = str(Path(__file__).parents[1]) + os.sep


def from_the_author_on(error: X) -> X:
    """The error without the calls of chatbot that led to the author's code, if it came so far."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_CHATBOT):
        trace = trace.tb_next
    return error.with_traceback(trace or error.__traceback__)
