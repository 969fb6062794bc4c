"""Where in a file something stands, and how it is shown to people: `bots.yaml:14:9`, the line, a caret."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Final

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
"""Where a value is in the data of a file: keys and indices from the top."""


@dataclass(frozen=True, slots=True)
class SourceText:
    """A file's text, by lines.

    Args:
        name: the file as the user named it.
    """

    name: str
    lines: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, name: str, text: str) -> SourceText:
        """Split a text into its lines."""
        return cls(name, tuple(text.splitlines()))


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """A stretch of one line.

    Args:
        line, column: counted from 1; 0 is the whole file, or the whole line.
        width: how many characters the caret underlines.
    """

    source: SourceText
    line: int
    column: int
    width: int = 1

    def __str__(self) -> str:
        return ":".join([self.source.name, *(str(number) for number in (self.line, self.column) if number)])

    def excerpt(self) -> str:
        """The line with a caret below, indented; "" where the file has no such line. Secrets are masked."""
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


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a file: where, in which value, and one sentence that says what to write instead."""

    place: SourceLocation
    path: DataPath
    text: str

    @property
    def name(self) -> str:
        """The path as people write it: `bots.echo.plugins[0]`; "" for the file itself."""
        return name_of(self.path)

    def __str__(self) -> str:
        sentence = f"{self.place}: {self.name}: {self.text}" if self.path else f"{self.place}: {self.text}"
        excerpt = self.place.excerpt()
        return f"{sentence}\n{excerpt}" if excerpt else sentence


def name_of(path: DataPath) -> str:
    """A path as people write it: `bots.echo.plugins[0]`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def printable(text: str) -> str:
    """The text on one line, with tabs as a space and every other control character escaped."""
    return "".join(" " if c == "\t" else c if c.isprintable() else repr(c)[1:-1] for c in text)


def masked(text: str) -> str:
    """The text with stars for what looks like a key or a password, one for one, so that carets below stay true."""
    return _SECRETS.sub(_mask_match, text)


def shows_secret(text: str) -> bool:
    """Whether an access key or a password stands in the text as it is, and not as a variable.

    Values that are only called token or key may be anything; those of chatbot's own settings are refused anyway.
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
    """How many columns of a terminal the text takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
