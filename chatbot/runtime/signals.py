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
"""Signals that stop a process; SIGBREAK is Ctrl-Break of Windows, where SIGTERM cannot be sent."""

RELOAD_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGHUP",) if hasattr(signal, name))
"""Signals that reload the configuration; Windows has none."""


@contextmanager
def hangups(on_hangup: Callable[[str], None], on_lost_terminal: Callable[[str], None]) -> Iterator[None]:
    """Handle SIGHUP while the block runs; afterwards restore the previous handler. Does nothing on Windows.

    The signal has two meanings: it was sent to a daemon, or the terminal of the process has closed. Call this in the
    main thread, inside a running event loop.

    Args:
        on_hangup: called on the loop with the signal's name if it was sent.
        on_lost_terminal: called instead if the terminal has closed.
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
    """Return the standard streams that are open terminals."""
    streams = {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr}
    return {name for name, stream in streams.items() if stream and not stream.closed and stream.isatty()}
