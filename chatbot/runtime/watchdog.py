"""Detect a blocked event loop from a thread, and find the line of code that blocks it.

The loop calls `heartbeat` once a second. When heartbeats stop, the thread reads the stack of the loop's thread, logs
the blocking line and writes it to `.chatbot/`, where `chatbot status` reads it if the daemon does not answer. Code that
holds the GIL (a backtracking regular expression) also stops this thread. Then `chatbot status` sends SIGUSR2, and
faulthandler, which does not need the GIL, writes the stack to a file. This module does not use faulthandler's timer:
there is one per process, and `forced_exit` needs it.

The thread never waits for the event loop, and the loop never waits for the thread.
"""

from __future__ import annotations

import faulthandler
import linecache
import os
import re
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Final

from msgspec import Struct

import chatbot
from chatbot.runtime.run_directory import ControlDirectory

HEARTBEAT_SECONDS: Final = 1.0
"""Seconds between two heartbeats of the loop."""

RECORDED_SECONDS: Final = 2.0
"""Seconds without a heartbeat after which the blocking line is written to a file for `chatbot status`."""

LOGGED_SECONDS: Final = 5.0
"""Seconds without a heartbeat after which the blocking line is logged."""

BLOCKED_SECONDS: Final = 60.0
"""Seconds without a heartbeat after which a restart is due: `/healthz` fails and systemd is notified."""

CHECK_SECONDS: Final = 0.5
FACTS: Final = "watchdog"
"""Name of the file with the state of the watchdog: `.chatbot/watchdog.json`."""

STACK: Final = "watchdog.stack"
"""Name of the file in `.chatbot/` that faulthandler writes stacks to."""

STACK_SIGNAL: Final[int | None] = getattr(signal, "SIGUSR2", None)
"""Signal that makes faulthandler write the stacks; None on Windows."""

STACK_SECONDS: Final = 0.4
"""Seconds `last_known_place` waits for the stack."""

_CALL: Final = re.compile(r"[\w.]+(?=\()")
_THREAD: Final = re.compile(r"(?:Current thread|Thread) 0x(?P<id>[0-9a-f]+)")
_FRAME: Final = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.*)')
_PACKAGE: Final = str(Path(chatbot.__file__).parent) + os.sep
_LIBRARY: Final = tuple(
    str(Path(sysconfig.get_path(name)).resolve()) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


class CodePlace(Struct, frozen=True):
    """A line of code.

    Args:
        file: Path of the file, relative to the directory of bots.yaml if below it.
        line: Line number, from 1.
        function: Name of the enclosing function.
        call: Dotted name of the function called there; "" if unknown.
    """

    file: str
    line: int
    function: str
    call: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line} ({self.function})"
        return f"{self.call} in {place}" if self.call else place


class Blocked(Struct, frozen=True):
    """State of a blocked event loop.

    Args:
        seconds: Time since its last heartbeat.
        place: The blocking line; None if it could not be read.
    """

    seconds: float
    place: CodePlace | None

    def __str__(self) -> str:
        where = f": {self.place}" if self.place else ""
        return f"the event loop has been blocked for {self.seconds:.0f} s{where}"


class LoopWatchdog:
    """Watch the event loop of the daemon from a thread. Create this object on the thread of the loop.

    Args:
        control: Directory to write the blocking line to.
        directory: Directory of bots.yaml; paths below it are shortened.
        on_check: Called by the watchdog thread at every check, with the problems that a restart solves. Must be quick.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self,
        control: ControlDirectory,
        directory: Path,
        *,
        on_check: Callable[[Mapping[str, object]], object] = lambda _problems: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._control = control
        self._directory = directory
        self._on_check = on_check
        self._clock = clock
        self._thread_id = threading.get_ident()
        self._heartbeat_at = clock()
        self._missed: Mapping[str, object] = {}
        self._signal: int | None = None
        self._place: CodePlace | None = None
        self._written: CodePlace | None = None
        self._logged: set[float] = set()
        self._ended = threading.Event()
        import structlog  # imported here to keep `chatbot status` fast: it imports this module

        self._log = structlog.get_logger()

    # ── on the loop ───────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the block runs."""
        self.heartbeat({})
        with self._stack_on_signal() as number:
            self._signal = number
            self._write(None)
            thread = threading.Thread(target=self._run, name="chatbot-loop-watchdog", daemon=True)
            thread.start()
            try:
                yield
            finally:
                self._ended.set()
                thread.join(CHECK_SECONDS * 4)
                self._control.delete_facts(FACTS)

    def heartbeat(self, missed: Mapping[str, object]) -> None:
        """Record that the loop runs.

        Args:
            missed: Other problems that a restart solves.
        """
        # Two plain assignments, no lock: a lock that the blocked loop holds would stop the thread that watches it.
        self._heartbeat_at = self._clock()
        self._missed = missed

    @contextmanager
    def _stack_on_signal(self) -> Iterator[int | None]:
        """Make faulthandler write all stacks on a signal while the block runs; yield the signal or None."""
        path = self._control.path / STACK
        if STACK_SIGNAL is None or threading.current_thread() is not threading.main_thread():
            yield None
            return
        try:
            # O_APPEND, so that the process that requests a stack can truncate the file.
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        except OSError as error:
            self._log.warning("watchdog.stack_disabled", error=str(error))
            yield None
            return
        self._control.adopt(path)
        # Ignore the signal for good: one that arrives after faulthandler is unregistered must not kill the process.
        signal.signal(STACK_SIGNAL, signal.SIG_IGN)
        faulthandler.register(STACK_SIGNAL, file=file, all_threads=True, chain=False)
        try:
            yield STACK_SIGNAL
        finally:
            faulthandler.unregister(STACK_SIGNAL)
            os.close(file)
            path.unlink(missing_ok=True)

    # ── any thread ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def blocked(self) -> Blocked | None:
        """State of the loop if it is blocked; None while it runs."""
        seconds = self._clock() - self._heartbeat_at
        return Blocked(seconds, self._place) if seconds >= RECORDED_SECONDS else None

    @property
    def problems(self) -> Mapping[str, object]:
        """Problems that a restart solves."""
        blocked = self.blocked
        if blocked is not None and blocked.seconds > BLOCKED_SECONDS:
            return {**self._missed, "event loop": str(blocked)}
        return self._missed

    # ── the thread ────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while not self._ended.wait(CHECK_SECONDS):
            try:
                self.look()
            except Exception:
                self._log.exception("watchdog.failed")

    def look(self) -> None:
        """Look once whether the loop runs, and say so if it does not."""
        seconds = self._clock() - self._heartbeat_at
        if seconds < RECORDED_SECONDS:
            self._unblocked()
        else:
            frame = sys._current_frames().get(self._thread_id)
            self._place = place_of(frame, self._directory) if frame is not None else None
            # A kept frame would keep the locals of the blocked code alive.
            del frame
            if self._place != self._written:
                self._write(self._place)
            for limit in (LOGGED_SECONDS, BLOCKED_SECONDS):
                if seconds >= limit and limit not in self._logged:
                    self._logged.add(limit)
                    self._log.error("loop.blocked", seconds=round(seconds), at=str(self._place))
        self._on_check(self.problems)

    def _write(self, place: CodePlace | None) -> None:
        self._written = place
        facts = {"pid": os.getpid(), "thread": self._thread_id, "signal": self._signal}
        self._control.write_facts(FACTS, {**facts, "place": str(place) if place else None})

    def _unblocked(self) -> None:
        if self._logged:
            self._log.warning("loop.unblocked", at=str(self._place))
            self._logged.clear()
        self._place = None
        if self._written is not None:
            self._write(None)


def last_known_place(control: ControlDirectory, directory: Path, *, may_signal: bool = True) -> str | None:
    """Return the line that blocks the daemon of this directory, or None if it does not appear blocked.

    For use by other processes.

    Args:
        control: The control directory that the daemon holds.
        directory: Directory of bots.yaml; paths below it are shortened.
        asks: Signal the process to write its stack if its watchdog has recorded nothing.

    Raises:
        StoreError: The directory cannot be read.
    """
    match control.read_facts(FACTS):
        case {"place": str(place)}:
            return place
        case {"pid": int(pid), "thread": int(thread), "signal": int(number)} if may_signal:
            frames = _frames_of(thread, _ask_for_stack(control.path / STACK, pid, number))
        case _:
            return None
    if not frames or is_waiting(frames[0][0]):
        return None
    file, line, function = _frame_to_blame(frames)
    return str(CodePlace(_shortened(file, directory), line, function))


def _ask_for_stack(file: Path, pid: int, number: int) -> str:
    """Signal the daemon, and return the stacks that its faulthandler writes; "" on failure."""
    try:
        os.truncate(file, 0)
        os.kill(pid, number)
        ends_at = time.monotonic() + STACK_SECONDS
        text = ""
        while time.monotonic() < ends_at:
            time.sleep(STACK_SECONDS / 10)
            before, text = text, file.read_text("utf-8", errors="replace")
            if text and text == before:
                break
        return text
    except OSError:
        return ""


def _frames_of(thread: int, text: str) -> list[tuple[str, int, str]]:
    """Parse the frames of one thread from the output of faulthandler, innermost first."""
    frames, is_ours = [], False
    for line in text.splitlines():
        if begun := _THREAD.match(line):
            is_ours = int(begun["id"], 16) == thread
        elif is_ours and (match := _FRAME.match(line)):
            frames.append((match["file"], int(match["line"]), match["function"]))
    return frames


def is_waiting(file: str) -> bool:
    """Return whether a thread whose innermost frame is in this file is an idle event loop."""
    return file.endswith(
        (
            "selectors.py",
            os.path.join("asyncio", "runners.py"),
            os.path.join("_backends", "_asyncio.py"),
            os.path.join("chatbot", "runtime", "event_loop.py"),  # with uvloop, whose own frames are no Python
        )
    )


def place_of(frame: FrameType, directory: Path) -> CodePlace:
    """Return the line that keeps a thread busy.

    That is the innermost line of plugin code, or else the innermost line outside the standard library.

    Args:
        frame: The innermost frame of the thread.
        directory: Paths below it are shortened.
    """
    frames: list[FrameType] = []
    here: FrameType | None = frame
    while here is not None:
        frames.append(here)
        here = here.f_back
    found = [(one.f_code.co_filename, one.f_lineno, one.f_code.co_name) for one in frames]
    best = _frame_to_blame(found)
    chosen = frames[found.index(best)]
    return CodePlace(_shortened(best[0], directory), best[1], best[2], _call_in(chosen))


def _frame_to_blame(frames: Sequence[tuple[str, int, str]]) -> tuple[str, int, str]:
    """Choose the frame to blame from at least one frame, innermost first."""

    def is_python(file: str) -> bool:
        return file.startswith("<") or (file.startswith(_LIBRARY) and not _is_installed(file))

    authors = [one for one in frames if not is_python(one[0]) and not one[0].startswith(_PACKAGE)]
    own = [one for one in authors if not _is_installed(one[0])]
    rest = [one for one in frames if not is_python(one[0])]
    return [*own, *authors, *rest, *frames][0]


def _is_installed(file: str) -> bool:
    return "site-packages" in file or "dist-packages" in file


def _shortened(file: str, directory: Path) -> str:
    try:
        return str(Path(file).relative_to(directory))
    except ValueError:
        return file


def _call_in(frame: FrameType) -> str:
    """Return the call in progress, such as `time.sleep`; only a dotted name, so that no literals are shown."""
    positions = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None), None)
    if positions is None or positions[0] is None or positions[2] is None:
        return ""
    line = linecache.getline(frame.f_code.co_filename, positions[0])
    text = line.encode()[positions[2] :].decode(errors="replace")
    found = _CALL.match(text)
    return found[0] if found else ""
