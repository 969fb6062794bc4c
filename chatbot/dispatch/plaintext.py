"""Html messages as plain text: what commands, filters and `ctx.text` read. Not a sanitiser; nothing is rendered.

Teams and web clients send html; entities are decoded, block elements and `<br>` become newlines, other white
space collapses as a browser would collapse it, an image or emoji is its alternative text.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Final

_BLOCKS: Final = (
    frozenset(
        ("address", "article", "aside", "blockquote", "dd", "div", "dl", "dt", "figcaption", "figure", "footer", "form")
    )
    | frozenset(
        ("h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section", "table")
    )
    | {"tbody", "tfoot", "thead", "tr", "ul"}
)
_UNREAD: Final = frozenset({"head", "script", "style", "title", "template"})
_SPACES: Final = re.compile(r"[ \t\r\n\f]+")
_NO_BREAK_SPACE: Final = "\u00a0"


def plain_text(html: str) -> str:
    """The text of an html message, as a person would read it; never raises, whatever the html."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.text()


class _Reader(HTMLParser):
    """Collects lines; a block only begins a new line when the current one has something on it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._lines: list[str] = []
        self._line = ""
        self._unread = 0
        self._preformatted = 0

    def text(self) -> str:
        lines = [*self._lines, self._line]
        return "\n".join(line.replace(_NO_BREAK_SPACE, " ").rstrip() for line in lines).strip()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNREAD:
            self._unread += 1
        elif tag == "br":
            self._break()
        elif tag in _BLOCKS:
            self._end_block()
        elif tag in ("td", "th"):
            self._say(" ")
        elif tag in ("img", "emoji"):
            self._say(dict(attrs).get("alt") or "")
        self._preformatted += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNREAD:
            self._unread = max(0, self._unread - 1)
        elif tag in _BLOCKS:
            self._end_block()
        if tag == "pre":
            self._preformatted = max(0, self._preformatted - 1)

    def handle_data(self, data: str) -> None:
        if self._unread:
            return
        if not self._preformatted:
            self._say(_SPACES.sub(" ", data))
            return
        first, *others = data.splitlines() or [""]
        self._line += first
        for line in others:
            self._break()
            self._line += line

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """Take `<![…` as a comment, as browsers do; the base class raises AssertionError on unknown ones."""
        return self.parse_bogus_comment(i, report)

    def _say(self, words: str) -> None:
        if not self._line or self._line.endswith(" "):
            words = words.lstrip(" ")
        self._line += words

    def _break(self) -> None:
        self._lines.append(self._line)
        self._line = ""

    def _end_block(self) -> None:
        if self._line:
            self._break()
