"""The text of a configuration file, read with care: it may be anything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

LARGEST: Final = 1_000_000
"""Bytes."""


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
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        message = "there is no such file"
        raise MissingError(message) from None
    except OSError as error:
        message = f"this cannot be read: {os.strerror(error.errno or 0)}"
        raise UnreadableError(message) from None
    if len(content) > LARGEST:
        message = f"this is larger than {LARGEST:,} bytes; is it the right file?"
        raise UnreadableError(message)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = "this is not UTF-8 text; save the file as UTF-8"
        raise UnreadableError(message, content.count(b"\n", 0, error.start) + 1) from None
