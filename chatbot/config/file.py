"""The text of a configuration file, read with care: it may be anything."""

from __future__ import annotations

import codecs
import errno
import os
import stat
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 1_000_000
"""Bytes."""

MAX_SECRET_BYTES: Final = 65_536
"""Bytes."""

_OPEN_FLAGS: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
"""Opening a pipe without a writer does not wait for one; opening a terminal does not adopt it."""


class UnreadableError(Exception):
    """A file cannot be read as text; the message says why and what to do.

    Args:
        line: where in it; 0 is all of it.
    """

    def __init__(self, text: str, line: int = 0) -> None:
        super().__init__(text)
        self.line = line


class MissingError(UnreadableError):
    """There is no such file."""


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        MissingError: there is none.
        UnreadableError: it is not for us.
    """
    content = _read(path, MAX_BYTES)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = "this is not UTF-8 text; save the file as UTF-8"
        raise UnreadableError(message, content.count(b"\n", 0, error.start) + 1) from None


def read_secret(path: Path) -> str:
    """Return the secret that a file holds, without the byte order mark and the blanks around it.

    Windows writes marks: PowerShell's `>` also writes UTF-16.

    Raises:
        UnreadableError: the file cannot be read, or holds no secret. The message does not quote the file.
    """
    content = _read(path, MAX_SECRET_BYTES)
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        message = "this is not UTF-8 text"
        raise UnreadableError(message)
    if not text.strip():
        message = "this is empty"
        raise UnreadableError(message)
    return text.strip()


def without_tilde(name: str) -> Path:
    """Return a path with `~` replaced by the home directory; as it is where nobody has such a directory."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def _read(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a regular file, at most `largest` of them.

    Whoever writes a configuration can name a device or a pipe: opening one must not wait for a writer, and reading one
    must not fill the memory.

    Raises:
        MissingError: there is no such file.
        UnreadableError: it is not a regular file, is too large, or cannot be read.
    """
    try:
        _require_regular(os.stat(path).st_mode)  # first, because opening alone wakes some devices
        descriptor = os.open(path, os.O_RDONLY | _OPEN_FLAGS)
        try:
            _require_regular(os.fstat(descriptor).st_mode)
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(max_bytes + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        message = "there is no such file"
        raise MissingError(message) from None
    except OSError as error:
        message = f"this cannot be read: {os.strerror(error.errno or 0)}"
        raise UnreadableError(message) from None
    except ValueError:  # a NUL, or half of a surrogate pair
        message = "this cannot be the name of a file"
        raise UnreadableError(message) from None
    if len(content) > max_bytes:
        message = f"this is larger than {max_bytes:,} bytes; is it the right file?"
        raise UnreadableError(message)
    return content


def _require_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        message = "this is not a regular file; name one"
        raise UnreadableError(message)
