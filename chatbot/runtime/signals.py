"""Signals of the operating system: which ones stop a process, and hangups as calls on the event loop."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

STOP_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
)
"""What asks a process to end; SIGBREAK is Ctrl-Break of Windows, where SIGTERM cannot be sent."""

RELOAD_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGHUP",) if hasattr(signal, name))
"""What asks a process to read its configuration again; Windows has none."""


@contextmanager
def hangups(on_hangup: Callable[[str], None], on_lost_terminal: Callable[[str], None]) -> Iterator[None]:
    """Catch SIGHUP while the block runs, where there is such a signal; afterwards it does again what it did before.

    It has two meanings: somebody sent it to a daemon, or the terminal that a process was started from is gone.
    Call it in the main thread, inside a running event loop. It works where loops have no signal handlers of
    their own (Windows), because a Python-level handler wakes the loop itself.

    Args:
        on_hangup: called on the loop with the signal's name, when it was sent.
        on_lost_terminal: called instead when the terminal is gone.
    """
    terminals = _terminals()

    def caught(name: str) -> None:
        (on_hangup if terminals <= _terminals() else on_lost_terminal)(name)

    with _catching(RELOAD_SIGNALS, caught):
        yield


@contextmanager
def _catching(signals: Sequence[signal.Signals], on_signal: Callable[[str], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def caught(number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(on_signal, signal.Signals(number).name)

    before = {number: signal.signal(number, caught) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminals() -> set[str]:
    """Which of the standard streams are terminals that are there."""
    streams = {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr}
    return {name for name, stream in streams.items() if stream and not stream.closed and stream.isatty()}
