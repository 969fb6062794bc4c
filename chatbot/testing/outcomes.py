"""Exceptions that end a test at once when a handler raises them: pytest's own outcomes, and a real Ctrl-C.

Every other `BaseException` is a failure of the handler, in tests as in production.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from chatbot.dispatch.author_code import FatalError, leaf_errors

__tracebackhide__ = True  # pytest: what is of interest is the author's test and code

_interrupts: list[bool] = []


def ends_the_test(error: BaseException) -> bool:
    """Return whether an error of a handler ends the test, rather than being a failure of its event."""
    if isinstance(error, KeyboardInterrupt):
        return bool(_interrupts)  # an exception that a handler raises itself is a failure like any other
    outcomes: Any = sys.modules.get("_pytest.outcomes")
    return outcomes is not None and isinstance(error, outcomes.OutcomeException | outcomes.Exit)


@contextmanager
def raising_test_outcomes() -> Iterator[None]:
    """Raise an exception that ends the test as it was raised, without the groups and errors around it."""
    try:
        yield
    except BaseException as error:
        ending = next((leaf.raised for leaf in leaf_errors(error) if isinstance(leaf, FatalError)), None)
        if ending is None:
            raise
        raise ending.with_traceback(ending.__traceback__) from None


@contextmanager
def detecting_interrupts() -> Iterator[None]:
    """Tell a real Ctrl-C from a `KeyboardInterrupt` that code raises, by going along with the handler of SIGINT."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> Any:
        _interrupts.append(True)
        return before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        _interrupts.clear()
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, before)
