"""Signals of the operating system, as calls on the event loop: to stop, and to take note of changes."""

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
def stop_signals(on_first: Callable[[str], None], on_second: Callable[[str], None]) -> Iterator[None]:
    """Catch SIGTERM and Ctrl-C while the block runs; afterwards they do again what they did before.

    Call it in the main thread, inside a running event loop. It works where loops have no signal handlers of
    their own (Windows), because a Python-level handler wakes the loop itself.

    Args:
        on_first: called on the loop with the signal's name, at the first signal.
        on_second: called on the loop at every further one.
    """
    count = 0

    def caught(name: str) -> None:
        nonlocal count
        count += 1
        (on_first if count == 1 else on_second)(name)

    with _catching(STOP_SIGNALS, caught):
        yield


@contextmanager
def hangups(on_hangup: Callable[[str], None], on_lost_terminal: Callable[[str], None]) -> Iterator[None]:
    """Catch SIGHUP while the block runs, where there is such a signal; otherwise as `stop_signals`.

    It has two meanings: somebody sent it to a daemon, or the terminal that a process was started from is gone.

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
