"""Stop signals of the operating system, as two calls on the event loop: the first asks, the second insists."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

STOP_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
)
"""What asks a process to end; SIGBREAK is Ctrl-Break of Windows, where SIGTERM cannot be sent."""


@contextmanager
def stop_signals(on_first: Callable[[str], None], on_second: Callable[[str], None]) -> Iterator[None]:
    """Catch SIGTERM and Ctrl-C while the block runs; afterwards they do again what they did before.

    Call it in the main thread, inside a running event loop. It works where loops have no signal handlers of
    their own (Windows), because a Python-level handler wakes the loop itself.

    Args:
        on_first: called on the loop with the signal's name, at the first signal.
        on_second: called on the loop at every further one.
    """
    loop = asyncio.get_running_loop()
    count = 0

    def caught(number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        loop.call_soon_threadsafe(on_first if count == 1 else on_second, signal.Signals(number).name)

    before = {number: signal.signal(number, caught) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
