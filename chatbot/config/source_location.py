"""Locations in files, shown as `bots.yaml:14:9` with the source line and a caret; masking of secrets in them."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Final

from msgspec import Struct

_MAX_WIDTH: Final = 140
_SECRETS: Final = re.compile(
    r"""(?P<before>accesskey\s*=\s*|://[^/\s:@]*:(?=\S*@))(?P<secret>[^\s;"'@]+)"""
    r"""|(?P<parameter>[?&](?:code|sig|key|token)=)(?P<argument>[^\s;"'&,}]+)"""
    r"""|(?P<name>(?<![\w-])[\w-]*(?:authori[sz]ation|token|key|secret|password)["']?\s*:\s*+)"""
    r"""(?!!secret\b|["']?\$|[{&*])(?P<value>[^,}\n]+)"""
    r"""|(?P<nothing>)(?P<base64>(?<![\w+/])[A-Za-z0-9+/]{20,}={1,2}(?![\w=]))""",
    re.IGNORECASE,
)


DataPath = tuple[str | int, ...]
"""The path of a value in the data of a file: keys and indices from the top."""


@dataclass(frozen=True, slots=True)
class SourceText:
    """The lines of a file.

    Args:
        name: the file as the user named it.
    """

    name: str
    lines: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, name: str, text: str) -> SourceText:
        """Split a text into its lines."""
        return cls(name, tuple(text.splitlines()))


class SourceLocation(Struct, frozen=True):
    """A range of one line.

    Args:
        line, column: from 1; 0 is the whole file, or the whole line.
        width: how many characters the caret underlines.
    """

    source: SourceText
    line: int
    column: int
    width: int = 1

    def __str__(self) -> str:
        return ":".join([self.source.name, *(str(number) for number in (self.line, self.column) if number)])

    def excerpt(self) -> str:
        """Return the line with a caret below, indented; "" if the file has no such line. Secrets are masked."""
        if not 1 <= self.line <= len(self.source.lines):
            return ""
        text = masked(self.source.lines[self.line - 1])
        start = min(self.column - 1, len(text))
        stop = min(start + max(self.width, 1), max(len(text), start + 1))
        first = max(0, min(start - 40, len(text) - _MAX_WIDTH))
        shown = text[first : first + _MAX_WIDTH]
        before = printable(text[first:start])
        carets = "^" * max(1, cells(printable(text[start : min(stop, first + _MAX_WIDTH)])))
        number = f"{self.line:>5}"
        return f"{number} | {printable(shown)}\n{' ' * len(number)} | {' ' * cells(before)}{carets}"


class Problem(Struct, frozen=True):
    """A problem in a file: the location, the path of the value, and a sentence that says what to write instead."""

    place: SourceLocation
    path: DataPath
    text: str
    is_unset: bool = False
    """A variable or a secret file is missing: on another machine the value may be right."""

    @property
    def name(self) -> str:
        """The path as text: `bots.echo.plugins[0]`; "" for the file itself."""
        return name_of(self.path)

    def __str__(self) -> str:
        sentence = f"{self.place}: {self.name}: {self.text}" if self.path else f"{self.place}: {self.text}"
        excerpt = self.place.excerpt()
        return f"{sentence}\n{excerpt}" if excerpt else sentence


def name_of(path: DataPath) -> str:
    """Return a path as text: `bots.echo.plugins[0]`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def printable(text: str) -> str:
    """Return the text on one line: tabs become spaces, other control characters are escaped."""
    return "".join(" " if c == "\t" else c if c.isprintable() else repr(c)[1:-1] for c in text)


def masked(text: str) -> str:
    """Return the text with keys and passwords replaced by as many stars, so that a caret below stays in place."""
    return _SECRETS.sub(_mask_match, text)


def shows_secret(text: str) -> bool:
    """Return whether the text contains an access key or a password literally, and not as a variable.

    Values merely named token or key are not reported; those of chatbot's own settings are refused anyway.
    """
    found = (match for match in _SECRETS.finditer(text) if match["name"] is None)
    return any(not _parts(match)[1].startswith("$") for match in found)


def _mask_match(match: re.Match[str]) -> str:
    before, secret = _parts(match)
    return f"{before}{'*' * len(secret)}"


def _parts(match: re.Match[str]) -> tuple[str, str]:
    before, secret = (group for group in match.groups() if group is not None)
    return before, secret


def cells(text: str) -> int:
    """Return the width of the text in terminal columns."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
