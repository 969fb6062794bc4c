"""What author code may do in a replay: no network unless it is allowed; and what it does that is not repeatable.

Only the process of a replay uses this module: what it installs stays for the rest of the process.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import random
import selectors
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

import chatbot
from chatbot.dispatch.source_location import location
from chatbot.runtime.observe.story import current_story
from chatbot.testing.virtual_time import JumpingSelector, VirtualTimeLoop

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

LONGEST_ANSWER: Final = 30.0
"""Seconds of real time that a replay with network waits for anything to arrive, while a handler runs."""

_NETWORK: Final = {
    "socket.connect": "connect to",
    "socket.sendto": "send to",
    "socket.sendmsg": "send to",
    "socket.bind": "listen on",
    "socket.getaddrinfo": "look up",
    "socket.gethostbyname": "look up",
    "socket.gethostbyaddr": "look up",
    "socket.getnameinfo": "look up",
}
_PROGRAMS: Final = frozenset(
    {"subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork", "os.forkpty", "pty.spawn"}
)


class NetworkRefused(PermissionError):
    """Author code wanted to reach the network, or to start a program, in a replay that does not allow it."""


class Guard:
    """Refuses the network to author code, and notes what is refused.

    Args:
        allows_network: whether nothing is refused.

    Attributes:
        refused: what was refused and where, each once.
        has_begun: the conversation runs; programs are refused only then, and only to author code, because libraries
            start some to find out where they are.
    """

    def __init__(self, *, allows_network: bool) -> None:
        self.allows_network = allows_network
        self.refused: list[dict[str, str]] = []
        self.has_begun = False

    def install(self) -> None:
        """Watch everything that happens in this process from now on."""
        if not self.allows_network:
            sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event in _NETWORK:
            has_socket = event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind")
            subject = args[1 if has_socket and len(args) > 1 else 0] if args else ""
            if subject is not None:  # a connected socket, such as one of a pair within this process
                self.refuse(_NETWORK[event], subject)
        elif event in _PROGRAMS and self.has_begun and place_of_author(sys._getframe(1)) is not None:
            self.refuse("start", args[0] if args else "a program")

    def refuse(self, verb: str, subject: object) -> NoReturn:
        """Refuse, and say so in the story of the event.

        Raises:
            NetworkRefused: always.
        """
        what = f"{verb} {_shown(subject)}".strip()
        story = current_story()
        # In a worker thread there may be no author code, but the thread knows whose work it does.
        place = place_of_author(sys._getframe(1)) or (story and story.data.get("place")) or "a library"
        if story is not None:
            story.add("refused", what=what, place=place)
        if {"what": what, "place": place} not in self.refused:
            self.refused.append({"what": what, "place": place})
        message = f"{place}: a replay may not {what}, because the network is not allowed for it"
        raise NetworkRefused(message)


def _shown(subject: object) -> str:
    match subject:
        case (str(host), int(port), *_):
            return f"{host}:{port}"
        case [str(first), *_]:
            return Path(first).name
        case bytes():
            return subject.decode(errors="replace")[:200]
        case str():
            return subject[:200]
        case int() | None:
            return ""
    return type(subject).__name__


_STDLIB: Final = tuple(str(Path(sysconfig.get_path(name))) + "/" for name in ("stdlib", "platstdlib"))
_FOREIGN: Final = (
    *(str(Path(sysconfig.get_path(name))) + "/" for name in ("purelib", "platlib")),
    str(Path(chatbot.__file__).parent) + "/",
)


def is_author(filename: str) -> bool:
    """Return whether a file is author code: neither Python's, nor of an installed package, nor chatbot's."""
    return not filename.startswith(("<", *_STDLIB, *_FOREIGN))


def place_of_author(frame: FrameType | None) -> str | None:
    """Return the innermost line of author code that led to a frame; None if there is none."""
    while frame is not None:
        name = frame.f_code.co_filename
        if is_author(name):
            return location(name, frame.f_lineno)
        frame = frame.f_back
    return None


# ── what is not repeatable ────────────────────────────────────────────────────────────────────────────────────

_CLOCK: Final = frozenset({"now", "utcnow", "today"})
_TIME: Final = frozenset({"time", "time_ns", "localtime", "gmtime", "ctime", "strftime"})
_CHANCE: Final = frozenset({"urandom", "getrandom", "generate_time_safe"})
_DRAWN: Final = frozenset({"random", "getrandbits"})
_LOGGING: Final = str(Path(logging.__file__).parent) + "/"
_SHARED_RANDOM: Final = getattr(random.random, "__self__", None)


@contextmanager
def noting_unrepeatable() -> Iterator[None]:
    """Note in the stories what author code reads that differs between two runs; blocks of several tasks may overlap."""
    _noting.append(True)
    sys.setprofile(_profile)
    try:
        yield
    finally:
        _noting.pop()
        if not _noting:
            sys.setprofile(None)


_noting: Final[list[bool]] = []


def _profile(frame: FrameType, event: str, called: Any) -> None:
    if event != "c_call":
        return
    name = called.__name__
    if name in _CLOCK:
        what = "the clock" if isinstance(called.__self__, type) else ""
    elif name in _TIME:
        what = "the clock" if getattr(called, "__module__", None) == "time" else ""
    elif name in _DRAWN:  # a generator that the author has seeded gives the same numbers in each run
        what = "random numbers" if called.__self__ is _SHARED_RANDOM else ""
    else:
        what = "random numbers" if name in _CHANCE else ""
    place = _author_behind_python(frame) if what else None
    story = current_story()
    if place is None or story is None:
        return
    noted = story.data.setdefault("unrepeatable", [])
    if {"what": what, "place": place} not in noted:
        noted.append({"what": what, "place": place})
        story.add("unrepeatable", what=what, place=place)


def _author_behind_python(frame: FrameType | None) -> str | None:
    """Return the line of author code that called, itself or by a function of Python; None if a library or a log did."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith((*_FOREIGN, _LOGGING)):
            return None
        if not name.startswith(("<", *_STDLIB)):
            return location(name, frame.f_lineno)
        frame = frame.f_back
    return None


# ── the event loop ────────────────────────────────────────────────────────────────────────────────────────────


class ReplaySelector(JumpingSelector):
    """Selector of a replay: watches for blocking code and, if the network is allowed, waits for it in real time.

    Args:
        allows_network: real sockets may be waited for.
        hangs: the file that gets the place at which the loop is blocked.
        patience: seconds after which a blocked loop ends the process.
    """

    def __init__(self, *, allows_network: bool, hangs: IO[Any], patience: float) -> None:
        super().__init__()
        self.is_working: Callable[[], bool] = lambda: False
        self._allows_network = allows_network
        self._hangs = hangs
        self._patience = patience
        self._watched = -1.0

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        """Register a file; only the loop's own, unless the network is allowed."""
        if self._allows_network:
            return selectors.DefaultSelector.register(self, fileobj, events, data)
        return super().register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready, and jump if nothing is; while a handler waits for the network, time is real."""
        self._watch()
        if self._allows_network and timeout != 0 and len(self.get_map()) > 1 and self.is_working():
            begun = time.monotonic()
            pause = LONGEST_ANSWER if timeout is None else min(timeout, LONGEST_ANSWER)
            faulthandler.cancel_dump_traceback_later()
            ready = selectors.DefaultSelector.select(self, pause)
            self._watched = -1.0
            self.now += min(time.monotonic() - begun, pause)
            if ready or (timeout is not None and timeout <= LONGEST_ANSWER):
                return ready
        return super().select(timeout)

    def _watch(self) -> None:
        """Begin the time anew after which the loop counts as blocked; once a second, because it starts a thread."""
        now = time.monotonic()
        if now - self._watched > 1 or self._watched < 0:
            self._watched = now
            faulthandler.dump_traceback_later(self._patience, exit=True, file=self._hangs)


class ReplayLoop(VirtualTimeLoop):
    """An event loop on virtual time that refuses the network by naming the author's line.

    Args:
        guard: refuses.
        selector: of this loop alone.
    """

    def __init__(self, guard: Guard, selector: ReplaySelector) -> None:
        self._guard = guard
        super().__init__(selector)

    async def _refuse(self, *args: Any, **options: Any) -> NoReturn:
        host = options.get("host", args[1] if len(args) > 1 else None)
        port = options.get("port", args[2] if len(args) > 2 else None)
        self._guard.refuse("connect to", (host, port) if isinstance(port, int) else host)

    create_connection = create_server = create_datagram_endpoint = _refuse
    create_unix_connection = create_unix_server = _refuse
    subprocess_exec = subprocess_shell = _refuse

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Look up a host; refused here, because the thread that looks it up does not know who asks."""
        if not self._guard.allows_network:
            self._guard.refuse("look up", host)
        return await super().getaddrinfo(host, port, **options)


class NetworkLoop(ReplayLoop):
    """A `ReplayLoop` on which author code may connect to others."""

    create_connection = asyncio.SelectorEventLoop.create_connection  # type: ignore[assignment]
    create_server = asyncio.SelectorEventLoop.create_server  # type: ignore[assignment]
    create_datagram_endpoint = asyncio.SelectorEventLoop.create_datagram_endpoint  # type: ignore[assignment]
    create_unix_connection = asyncio.SelectorEventLoop.create_unix_connection  # type: ignore[assignment]
    create_unix_server = asyncio.SelectorEventLoop.create_unix_server  # type: ignore[assignment]
    subprocess_exec = asyncio.SelectorEventLoop.subprocess_exec  # type: ignore[assignment]
    subprocess_shell = asyncio.SelectorEventLoop.subprocess_shell  # type: ignore[assignment]
