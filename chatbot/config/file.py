"""Read the text of a configuration file; the path may name anything, such as a device or a pipe."""

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
"""Do not wait for the writer of a pipe, and do not make a terminal the controlling one."""


class UnreadableError(Exception):
    """A file cannot be read as text; the message says why and what to do.

    Args:
        line: the line; 0 for the whole file.
    """

    def __init__(self, text: str, line: int = 0) -> None:
        super().__init__(text)
        self.line = line


class MissingError(UnreadableError):
    """The file does not exist."""


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        MissingError: the file does not exist.
        UnreadableError: it is not a readable text file.
    """
    content = _read(path, MAX_BYTES)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = "this is not UTF-8 text; save the file as UTF-8"
        raise UnreadableError(message, content.count(b"\n", 0, error.start) + 1) from None


def read_secret(path: Path) -> str:
    """Return the secret in a file, without byte order mark and surrounding white space.

    Windows programs write byte order marks, and PowerShell's `>` writes UTF-16.

    Raises:
        UnreadableError: the file cannot be read or is empty. The message does not quote the file.
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
    """Return a path with `~` replaced by the home directory; unchanged if there is no such directory."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def _read(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a regular file, at most `max_bytes` of them.

    A configuration can name a device or a pipe: opening one must not wait for a writer, and reading one must not fill
    the memory.

    Raises:
        MissingError: there is no such file.
        UnreadableError: it is not a regular file, is too large, or cannot be read.
    """
    try:
        _require_regular(os.stat(path).st_mode)  # checked before opening, because opening alone affects some devices
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
    except ValueError:  # the name contains a NUL or a lone surrogate
        message = "this is not a valid file name"
        raise UnreadableError(message) from None
    if len(content) > max_bytes:
        message = f"this file is larger than {max_bytes:,} bytes; name the right file"
        raise UnreadableError(message)
    return content


def _require_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        message = "this is not a regular file"
        raise UnreadableError(message)
