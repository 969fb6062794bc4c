"""File descriptors 0 to 2, which code of plugins may close although everybody in the process writes to them.

The operating system gives a new connection the lowest free number. If that is 2, whatever libraries and crash reports
write to stderr goes to the service, in the middle of a request. uvloop also never closes a connection of such a number.

So chatbot opens no connection before these numbers are taken, writes its log to a copy of stderr that has another
number, and puts the original streams back within a second.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TextIO

STREAMS: Final = {0: "stdin", 1: "stdout", 2: "stderr"}

_LOWEST_COPY: Final = 64
"""Copies get higher numbers than this, where code that closes the first few descriptors does not reach them."""


def occupy() -> list[int]:
    """Open the null device in place of closed descriptors below 3; return which were closed. Takes microseconds."""
    closed = [descriptor for descriptor in STREAMS if _identity(descriptor) is None]
    for descriptor in closed:
        null_device = os.open(os.devnull, os.O_RDWR)
        if null_device != descriptor:
            os.dup2(null_device, descriptor)
            os.close(null_device)
    return closed


def open_socket(address: tuple[Any, ...]) -> socket.socket:
    """Create the socket of a connection, with a number above 2; the `socket_factory` of aiohttp.

    Args:
        address: as `socket.getaddrinfo` returns it.
    """
    occupy()
    family, kind, protocol = address[:3]
    return socket.socket(family=family, type=kind, proto=protocol)


class StandardStreams:
    """Copies of the standard streams, by which they can be put back. Thread-safe except for `restore`.

    Attributes:
        stderr: the descriptor of the copy of stderr.
    """

    def __init__(self) -> None:
        occupy()
        self._copies = {descriptor: _copy(descriptor) for descriptor in STREAMS}
        self._originals = {descriptor: _identity(copy) for descriptor, copy in self._copies.items()}
        self._shut: dict[int, tuple[int, ...] | None] = {}
        self.stderr = self._copies[2]

    def restore(self) -> list[str]:
        """Put back what was closed, and what became a connection; return what was changed.

        A stream that is something else now, such as a file, is left alone: plugins may redirect streams.
        """
        changed = []
        for descriptor, now in [(descriptor, _identity(descriptor)) for descriptor in STREAMS]:
            name = STREAMS[descriptor]
            if now == self._originals[descriptor]:
                continue
            if now is None:
                self._put_back(descriptor)
                changed.append(f"{name}, which was closed")
            elif descriptor and stat.S_ISSOCK(now[0]):
                # At first only shut down: whoever holds the connection must notice and let go of the number. uvloop
                # never closes it, so it is still there the next time, and nobody uses it any more.
                if self._shut.get(descriptor) == now:
                    self._put_back(descriptor)
                else:
                    self._shut[descriptor] = now
                    _shut_down(descriptor)
                    changed.append(f"{name}, whose number a connection had got")
        return changed

    @contextmanager
    def log_stream(self, stream: TextIO) -> Iterator[TextIO]:
        """Yield a stream that writes to the copy of stderr; `stream` itself if that is not the process's stderr."""
        try:
            is_stderr = _identity(stream.fileno()) == self._originals[2]
        except (OSError, ValueError):  # a stream of a test, or one that is closed
            is_stderr = False
        if not is_stderr:
            yield stream
            return
        copy = open(  # noqa: SIM115 - closed below, where it may fail
            self.stderr, "w", encoding=stream.encoding, errors="backslashreplace", buffering=1, closefd=False
        )
        try:
            yield copy
        finally:
            with suppress(OSError, ValueError):
                copy.close()

    def close(self) -> None:
        """Close the copies."""
        for descriptor, copy in self._copies.items():
            if _identity(copy) == self._originals[descriptor]:
                os.close(copy)

    def _put_back(self, descriptor: int) -> None:
        copy = self._copies[descriptor]
        if _identity(copy) == self._originals[descriptor]:
            os.dup2(copy, descriptor)
        else:  # the copy was closed as well
            with suppress(OSError):
                os.close(descriptor)
            occupy()


def _copy(descriptor: int) -> int:
    try:
        import fcntl
    except ImportError:  # Windows
        return os.dup(descriptor)
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LOWEST_COPY)


def _identity(descriptor: int) -> tuple[int, ...] | None:
    """Return what tells whether a descriptor still leads to the same file; None if it is closed."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_mode, found.st_dev, found.st_ino


def _shut_down(descriptor: int) -> None:
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.shutdown(socket.SHUT_RDWR)
