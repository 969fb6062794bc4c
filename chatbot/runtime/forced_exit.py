"""Stop signals, and the last resort of a stop: end the process when it does not end by itself.

Author code can keep a stop from ever finishing: a handler in a thread, `time.sleep` on the event loop, a backtracking
regular expression that never releases the GIL, a coroutine that swallows its cancellation, a thread that a plugin
started. So the end of a stop depends neither on the event loop nor on the GIL:

* A watchdog thread, started before any author code runs, ends the process with exit code 1 once the time for an orderly
  stop is over. It says why with `os.write`, lets the store finish what was handed to it, and flushes the log.
* `faulthandler` ends it a little later if not even that thread gets to run; its timer is a C thread.

Both are armed by the signal handler itself, which Python runs between two bytecodes of the main thread, also while the
event loop is blocked.
"""

from __future__ import annotations

import asyncio
import atexit
import faulthandler
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import Final, Self

from chatbot.runtime.signals import STOP_SIGNALS
from chatbot.runtime.watchdog import is_waiting
from chatbot.standard_streams import StandardStreams

EXIT_CODE: Final = 1

SAME_STOP_SECONDS: Final = 0.5
"""Signals this close to the first one are the same request: `timeout` signals a process and its group, so twice."""

CUT_SECONDS: Final = 2.0
"""How long cutting the bots off after the drain timeout, and closing everything, may take."""

SECOND_SIGNAL_SECONDS: Final = 1.0
"""The same limit after a second signal."""

WRITE_SECONDS: Final = 1.0
"""How long the store may take to finish submitted writes, and the log to be flushed."""

LEFT_SECONDS: Final = 1.0
"""How long to wait for threads that end by themselves, as idle worker threads do."""

EXIT_HOOKS_SECONDS: Final = 5.0
"""How long functions that plugins registered with `atexit` may take; everything is closed by then."""

NO_GIL_SECONDS: Final = WRITE_SECONDS + 0.5
"""How much later than the watchdog thread faulthandler ends the process."""

LONGEST: Final = 10.0 * 24 * 3600
"""Seconds; longer drain timeouts are cut to this, because faulthandler refuses them."""


class ForcedExit:
    """Ends the process when a stop does not. Use it as `with`, in the main thread, around all author code.

    A stop signal that comes before `listening` ends the process at once with exit code 0, because nothing runs yet.

    Attributes:
        is_json: write every line to stderr as a JSON object.
        drain_seconds: returns how long an orderly stop may take; called when one begins.
        describe: returns what is still running, in a few words; called in the watchdog thread.
        on_stop: called in the watchdog thread when a stop begins.
        before_exit: called in the watchdog thread before the process is ended, with the seconds that it may take.
        streams: the standard streams of the process.
    """

    def __init__(self, *, is_json: bool = False) -> None:
        self.drain_seconds: Callable[[], float] = lambda: 0.0
        self.describe: Callable[[], str] = lambda: ""
        self.on_stop: Callable[[], None] = lambda: None
        self.before_exit: Callable[[float], None] = lambda _seconds: None
        self.is_json = is_json
        self._is_done = False
        self._first_at: float | None = None
        self._asked = self._is_shortened = False
        self._listener: Callable[[str, bool], None] | None = None
        self._has_listened = False
        # Put from signal handlers: unlike the locks of `threading`, this queue is safe to re-enter.
        self._deadlines: SimpleQueue[tuple[float, str] | None] = SimpleQueue()
        self._reasons: SimpleQueue[str | None] = SimpleQueue()
        self._reported: SimpleQueue[None] = SimpleQueue()
        self._threads: frozenset[threading.Thread] = frozenset()
        self._before: dict[signal.Signals, object] = {}
        self._recursion_limit = sys.getrecursionlimit()
        self.streams = StandardStreams()

    def __enter__(self) -> Self:
        """Catch stop signals from now on."""
        self._threads = frozenset(threading.enumerate())
        # Started here: a signal handler must not start a thread, which takes locks that may be held.
        for name, run in (("chatbot-stop-watchdog", self._watch), ("chatbot-exit-report", self._report)):
            threading.Thread(target=run, name=name, daemon=True).start()
        self._before = {number: signal.signal(number, self._caught) for number in STOP_SIGNALS}
        return self

    def restore(self) -> list[str]:
        """Undo what code of plugins did to settings that all of the process needs; return what was changed.

        Libraries often handle signals, and would keep the process from ever being stopped. Call it in the main thread.
        """
        changed: list[str] = []
        if self._first_at is None:
            for number in STOP_SIGNALS:
                if signal.getsignal(number) != self._caught:
                    signal.signal(number, self._caught)
                    changed.append(f"the handler of {number.name}")
        if hasattr(signal, "pthread_sigmask"):
            blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS) & set(STOP_SIGNALS)
            changed += [f"{signal.Signals(number).name}, which was blocked" for number in sorted(blocked)]
        changed += self.streams.restore()
        if sys.getrecursionlimit() < self._recursion_limit:
            sys.setrecursionlimit(self._recursion_limit)
            changed.append("the recursion limit")
        return changed

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _t: TracebackType | None) -> None:
        """Wait for threads that author code has left, as long as a stop may take; then end the watch."""
        ours = {"chatbot-stop-watchdog", "chatbot-exit-report"}
        left = [
            thread
            for thread in threading.enumerate()
            if not thread.daemon and thread not in self._threads and thread.name not in ours
        ]
        for thread in left:
            thread.join(LEFT_SECONDS / len(left))
        left = [thread for thread in left if thread.is_alive()]
        if left:
            # The interpreter would wait for them forever.
            self.describe = lambda: (
                "threads that plugins left behind: " + ", ".join(thread.name for thread in left if thread.is_alive())
            )
            self.begin()
            for thread in left:
                thread.join()
        self._is_done = True
        self._deadlines.put(None)
        self._reasons.put(None)
        faulthandler.cancel_dump_traceback_later()
        if self._has_listened:
            # Those that plugins have registered run after this one, and might hang.
            atexit.register(_limit_exit_hooks, self.streams.stderr)
        else:
            self.streams.close()
        for number, handler in self._before.items():
            # After a stop the process is about to exit: another signal must not change its exit code.
            signal.signal(number, handler if self._first_at is None else signal.SIG_IGN)  # type: ignore[arg-type]

    @contextmanager
    def listening(self, on_first: Callable[[str], None], on_second: Callable[[str], None]) -> Iterator[None]:
        """Call functions on the running event loop when stop signals arrive, with the signal's name.

        Args:
            on_first: for the first signal.
            on_second: for one that comes more than half a second later.
        """
        loop = asyncio.get_running_loop()

        def tell(name: str, is_first: bool) -> None:
            with suppress(RuntimeError):  # the loop is closed, so nothing is left to stop
                loop.call_soon_threadsafe(on_first if is_first else on_second, name)

        self._listener, self._has_listened = tell, True
        try:
            yield
        finally:
            self._listener = None

    def begin(self) -> None:
        """Start the time limit of a stop. Safe in signal handlers and threads; further calls have no effect."""
        if self._asked:
            return
        self._asked = True
        seconds = min(max(0.0, self.drain_seconds()), LONGEST)
        self._arm(seconds + CUT_SECONDS, f"the stop did not end within drain_timeout ({seconds:g} s)")

    def shorten(self) -> None:
        """Shorten the limit to `SECOND_SIGNAL_SECONDS`. Safe like `begin`."""
        if self._is_shortened:
            return
        self._asked = self._is_shortened = True
        self._arm(SECOND_SIGNAL_SECONDS, "a second signal came, and the stop did not end")

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        name, now = signal.Signals(number).name, time.monotonic()
        if not self._has_listened:
            self._stop_the_start(name)
        if self._first_at is None:
            self._first_at = now
            self.begin()
        elif now - self._first_at > SAME_STOP_SECONDS:
            self.shorten()
        else:
            return
        if self._listener is not None:
            self._listener(name, not self._is_shortened)

    def _stop_the_start(self, name: str) -> None:
        """End at once: plugins are being imported, and they could catch an exception raised here."""
        self._write_line("daemon.stop_requested", "info", f"stopped by {name} before anything ran", signal=name)
        os._exit(0)

    def _arm(self, seconds: float, reason: str) -> None:
        if self._is_done:
            return
        # Both: the thread logs the reason and lets the store finish, but needs the GIL; faulthandler needs nothing.
        self._deadlines.put((time.monotonic() + seconds, reason))
        with suppress(ValueError, OSError, AttributeError, RuntimeError):  # there may be no stderr to write to
            faulthandler.dump_traceback_later(seconds + NO_GIL_SECONDS, exit=True, file=self.streams.stderr)

    def _watch(self) -> None:
        """Wait for a stop, then exit when its latest deadline has passed."""
        asked = self._deadlines.get()
        if asked is not None:
            with suppress(Exception):
                self.on_stop()
        while asked is not None:
            deadline, reason = asked
            try:
                asked = self._deadlines.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                # In another thread: a full pipe that nobody reads blocks the thread that writes to stderr.
                self._reasons.put(reason)
                with suppress(Empty):
                    self._reported.get(timeout=NO_GIL_SECONDS - 0.2)
                os._exit(EXIT_CODE)

    def _report(self) -> None:
        reason = self._reasons.get()
        if reason is None:
            return
        running = ""
        with suppress(Exception):
            running = self.describe()
        place = place_of_main_thread()
        sentence = f"stopped by force: {reason}"
        sentence += "".join(f"; {part}" for part in (running and f"still running: {running}", place) if part)
        self._write_line("daemon.forced_exit", "error", sentence, reason=reason, running=running, main_thread=place)
        with suppress(Exception):
            self.before_exit(WRITE_SECONDS)
        self._flush()
        self._reported.put(None)

    def _write_line(self, event: str, level: str, sentence: str, **values: str) -> None:
        """Write one line to stderr without the log, whose locks a stuck thread may hold."""
        line = f"chatbot: {''.join(c if c.isprintable() else repr(c)[1:-1] for c in sentence)}"
        if self.is_json:
            stamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            line = json.dumps({"timestamp": stamp, "level": level, "event": event, **values})
        with suppress(OSError):
            os.write(self.streams.stderr, f"{line}\n".encode("utf-8", "backslashreplace"))

    def _flush(self) -> None:
        for handler in logging.getLogger().handlers:
            with suppress(Exception):
                handler.flush()
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()


def _limit_exit_hooks(stderr: int) -> None:
    """End the process if functions that plugins have registered with `atexit` do not."""
    with suppress(ValueError, OSError, AttributeError, RuntimeError):  # there may be no stderr to write to
        faulthandler.dump_traceback_later(EXIT_HOOKS_SECONDS, exit=True, file=stderr)


def place_of_main_thread() -> str:
    """Return the `file:line in function` that the main thread executes; "" if it is only in the event loop."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        file = frame.f_code.co_filename
        if is_waiting(file) or f"{os.sep}asyncio{os.sep}" in file:
            return ""
        if not file.startswith("<"):
            return f"the main thread is at {file}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    return ""
