"""A thread that sees from outside whether the event loop runs, and where it is blocked.

The loop calls `beat` once a second. When beats stay away, the thread reads the stack of the loop's thread, logs the
line that blocks it, and writes it to `.chatbot/`, where `chatbot status` reads it when nobody answers. Code that holds
the GIL (a backtracking regular expression) stops this thread, too: then `chatbot status` sends SIGUSR2, at which
faulthandler, which needs no GIL, writes the stack to a file. faulthandler's timer is not used: a stop needs it.

Nothing here waits for the event loop, and nothing on the loop waits for this thread.
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
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Final

import chatbot
from chatbot.runtime.run_directory import ControlDirectory

HEARTBEAT_SECONDS: Final = 1.0
"""How often the loop says that it runs."""

NOTICED_SECONDS: Final = 2.0
"""Without a beat for so long, the place is written down for `chatbot status`."""

LOGGED_SECONDS: Final = 5.0
"""Without a beat for so long, the place is logged."""

BLOCKED_SECONDS: Final = 60.0
"""Without a beat for so long, a restart helps: `/healthz` is red and systemd is told."""

LOOK_SECONDS: Final = 0.5
FACTS: Final = "watchdog"
"""What the thread has seen, in `.chatbot/watchdog.json`."""

STACK: Final = "watchdog.stack"
"""Where faulthandler writes, in `.chatbot/`."""

STACK_SIGNAL: Final[int | None] = getattr(signal, "SIGUSR2", None)
"""The signal at which faulthandler writes; Windows has none."""

STACK_SECONDS: Final = 0.4
"""How long `last_known_place` waits for the stack."""

_CALL: Final = re.compile(r"[\w.]+(?=\()")
_THREAD: Final = re.compile(r"(?:Current thread|Thread) 0x(?P<id>[0-9a-f]+)")
_FRAME: Final = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.*)')
_PACKAGE: Final = str(Path(chatbot.__file__).parent) + os.sep
_LIBRARY: Final = tuple(
    str(Path(sysconfig.get_path(name)).resolve()) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


@dataclass(frozen=True, slots=True)
class CodePlace:
    """A line of code.

    Args:
        file: its path; relative to the directory of bots.yaml if it is below that.
        line: from 1.
        function: the function it is in.
        call: what is called there, as far as the source says; "" if that is not known.
    """

    file: str
    line: int
    function: str
    call: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line} ({self.function})"
        return f"{self.call} in {place}" if self.call else place


@dataclass(frozen=True, slots=True)
class Blocked:
    """The event loop is blocked.

    Args:
        seconds: for how long it has not run.
        place: where; None if that could not be read.
    """

    seconds: float
    place: CodePlace | None

    def __str__(self) -> str:
        where = f": {self.place}" if self.place else ""
        return f"the event loop has been blocked for {self.seconds:.0f} s{where}"


class LoopWatchdog:
    """Watches the event loop of the daemon. Make it on the thread of the loop.

    Args:
        control: where the place is written.
        directory: of bots.yaml; paths below it are shortened.
        on_look: called by the thread at every look, with the problems that a restart helps with; quick.
        clock: seconds of a monotonic clock.
    """

    def __init__(
        self,
        control: ControlDirectory,
        directory: Path,
        *,
        on_look: Callable[[Mapping[str, object]], object] = lambda _problems: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._control = control
        self._directory = directory
        self._on_look = on_look
        self._clock = clock
        self._thread_id = threading.get_ident()
        self._heartbeat_at = clock()
        self._missed: Mapping[str, object] = {}
        self._signal: int | None = None
        self._place: CodePlace | None = None
        self._written: CodePlace | None = None
        self._logged: set[float] = set()
        self._ended = threading.Event()
        import structlog  # here: `chatbot status` imports this module, and must answer soon

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
                thread.join(LOOK_SECONDS * 4)
                self._control.delete_facts(FACTS)

    def heartbeat(self, missed: Mapping[str, object]) -> None:
        """The loop runs.

        Args:
            missed: what else a restart helps with.
        """
        # Two plain assignments, no lock: a lock that the blocked loop holds would stop the thread that watches it.
        self._heartbeat_at = self._clock()
        self._missed = missed

    @contextmanager
    def _stack_on_signal(self) -> Iterator[int | None]:
        """Have faulthandler write all stacks at a signal while the block runs; gives the signal, None without."""
        path = self._control.path / STACK
        if STACK_SIGNAL is None or threading.current_thread() is not threading.main_thread():
            yield None
            return
        try:
            # Appended to, so that whoever asks may empty it.
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        except OSError as error:
            self._log.warning("watchdog.stack_disabled", error=str(error))
            yield None
            return
        self._control.adopt(path)
        # Ignored from now on: a signal that comes when faulthandler is gone must not end the process.
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
        """What is known of a loop that does not run; None while it does."""
        seconds = self._clock() - self._heartbeat_at
        return Blocked(seconds, self._place) if seconds >= NOTICED_SECONDS else None

    @property
    def problems(self) -> Mapping[str, object]:
        """What a restart helps with."""
        blocked = self.blocked
        if blocked is not None and blocked.seconds > BLOCKED_SECONDS:
            return {**self._missed, "event loop": str(blocked)}
        return self._missed

    # ── the thread ────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            try:
                self._look()
            except Exception:
                self._log.exception("watchdog.failed")

    def _look(self) -> None:
        seconds = self._clock() - self._heartbeat_at
        if seconds < NOTICED_SECONDS:
            self._unblocked()
        else:
            frame = sys._current_frames().get(self._thread_id)
            self._place = place_of(frame, self._directory) if frame is not None else None
            del frame
            if self._place != self._written:
                self._write(self._place)
            for limit in (LOGGED_SECONDS, BLOCKED_SECONDS):
                if seconds >= limit and limit not in self._logged:
                    self._logged.add(limit)
                    self._log.error("loop.blocked", seconds=round(seconds), at=str(self._place))
        self._on_look(self.problems)

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


def last_known_place(control: ControlDirectory, directory: Path, *, asks: bool = True) -> str | None:
    """Where the daemon of this directory is blocked, for other processes; None if it is not, as far as can be seen.

    Args:
        control: its directory, which it holds.
        directory: of bots.yaml; paths below it are shortened.
        asks: whether the process is made to write its stack, if its watchdog has not written anything down.

    Raises:
        StoreError: the directory cannot be read.
    """
    match control.read_facts(FACTS):
        case {"place": str(place)}:
            return place
        case {"pid": int(pid), "thread": int(thread), "signal": int(number)} if asks:
            frames = _frames_of(thread, _ask_for_stack(control.path / STACK, pid, number))
        case _:
            return None
    if not frames or is_waiting(frames[0][0]):
        return None
    file, line, function = _blamed(frames)
    return str(CodePlace(_shortened(file, directory), line, function))


def _ask_for_stack(file: Path, pid: int, number: int) -> str:
    """What faulthandler of the daemon writes at its signal."""
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
    """The frames of one thread of what faulthandler wrote, innermost first."""
    frames, is_ours = [], False
    for line in text.splitlines():
        if begun := _THREAD.match(line):
            is_ours = int(begun["id"], 16) == thread
        elif is_ours and (match := _FRAME.match(line)):
            frames.append((match["file"], int(match["line"]), match["function"]))
    return frames


def is_waiting(file: str) -> bool:
    """Whether a thread whose innermost frame is in this file is an event loop that waits for something to do."""
    return file.endswith(
        ("selectors.py", os.path.join("asyncio", "runners.py"), os.path.join("_backends", "_asyncio.py"))
    )


def place_of(frame: FrameType, directory: Path) -> CodePlace:
    """The line that keeps a thread busy: the innermost one of an author's code, or else of any that is not Python's.

    Args:
        frame: the innermost one of the thread.
        directory: paths below it are shortened.
    """
    frames: list[FrameType] = []
    here: FrameType | None = frame
    while here is not None:
        frames.append(here)
        here = here.f_back
    found = [(one.f_code.co_filename, one.f_lineno, one.f_code.co_name) for one in frames]
    best = _blamed(found)
    chosen = frames[found.index(best)]
    return CodePlace(_shortened(best[0], directory), best[1], best[2], _call_in(chosen))


def _blamed(frames: Sequence[tuple[str, int, str]]) -> tuple[str, int, str]:
    """Of frames, innermost first, at least one, the one to blame."""

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
    """What is called at this moment, such as `time.sleep`; of the source only a dotted name is shown."""
    positions = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None), None)
    if positions is None or positions[0] is None or positions[2] is None:
        return ""
    line = linecache.getline(frame.f_code.co_filename, positions[0])
    text = line.encode()[positions[2] :].decode(errors="replace")
    found = _CALL.match(text)
    return found[0] if found else ""
