"""Html messages as plain text: what commands, filters and `ctx.text` read. Not a sanitiser; nothing is rendered.

Teams and web clients send html; entities are decoded, block elements and `<br>` become newlines, other white
space collapses as a browser would collapse it, an image or emoji is its alternative text.

Reading takes time in proportion to the length, whatever somebody sends: html.parser of the standard library needs
13 s for the 28 KB of `<a <a <a …`, on the event loop.
"""

from __future__ import annotations

import re
from html import unescape
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
_UNREAD: Final = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("script", "style", "template", "title")}
_SPACES: Final = re.compile(r"[ \t\r\n\f]+")
_NO_BREAK_SPACE: Final = "\u00a0"

# Possessive, and without "<" outside of quoted values: a match fails where it begins to, and never starts over.
_TAG: Final = re.compile(
    r"""<(?P<end>/?)(?P<name>[a-zA-Z][^\s/<>]*+)(?P<rest>(?:[^<>"'=]|=\s*+(?:"[^"]*"|'[^']*')|[="'])*+)>"""
)
_ATTRIBUTE: Final = re.compile(r"""([^\s=/"']++)\s*+=\s*+(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")


def plain_text(html: str) -> str:
    """The text of an html message, as a person would read it; never raises, whatever the html."""
    reader = _Reader(html)
    reader.read()
    return reader.text()


class _Reader:
    """Collects lines; a block only begins a new line when the current one has something on it."""

    def __init__(self, html: str) -> None:
        self._html = html
        self._lines: list[str] = []
        self._line: list[str] = []
        self._ends_in_space = True
        self._preformatted = 0

    def text(self) -> str:
        lines = [*self._lines, "".join(self._line)]
        return "\n".join(line.replace(_NO_BREAK_SPACE, " ").rstrip() for line in lines).strip()

    def read(self) -> None:
        html, at, said = self._html, 0, 0
        while (at := html.find("<", at)) >= 0:
            tag = _TAG.match(html, at)
            if tag is None and html[at + 1 : at + 2] not in ("!", "?"):
                at += 1  # a "<" that begins nothing is itself
                continue
            self._read_words(html[said:at])
            at = said = self._read_tag(tag) if tag else self._end_of_comment(at)
        self._read_words(html[said:])

    def _end_of_comment(self, at: int) -> int:
        mark = "-->" if self._html.startswith("<!--", at) else ">"
        end = self._html.find(mark, at)
        return len(self._html) if end < 0 else end + len(mark)

    def _read_tag(self, tag: re.Match[str]) -> int:
        """What a tag does to the text; gives where to read on."""
        name, is_end = tag["name"].lower(), bool(tag["end"])
        if name in _BLOCKS:
            self._end_block()
        elif not is_end:
            self._begin_inline(name, tag["rest"])
        if name == "pre":
            self._preformatted = max(0, self._preformatted + (-1 if is_end else 1))
        if name not in _UNREAD or is_end:
            return tag.end()
        closing = _UNREAD[name].search(self._html, tag.end())
        return closing.start() if closing else len(self._html)

    def _begin_inline(self, name: str, rest: str) -> None:
        if name == "br":
            self._break()
        elif name in ("td", "th"):
            self._say(" ")
        elif name in ("img", "emoji"):
            self._say(unescape(_attribute(rest, "alt")))

    def _read_words(self, source: str) -> None:
        words = unescape(source)
        if not self._preformatted:
            self._say(_SPACES.sub(" ", words))
            return
        first, *others = words.split("\n")
        self._line.append(first)
        for line in others:
            self._break()
            self._line.append(line)

    def _say(self, words: str) -> None:
        if self._ends_in_space:
            words = words.lstrip(" ")
        if words:
            self._line.append(words)
            self._ends_in_space = words.endswith(" ")

    def _break(self) -> None:
        self._lines.append("".join(self._line))
        self._line = []
        self._ends_in_space = True

    def _end_block(self) -> None:
        if self._line:
            self._break()


def _attribute(rest: str, name: str) -> str:
    for key, double, single, bare in _ATTRIBUTE.findall(rest):
        if key.lower() == name:
            return str(double or single or bare)
    return ""
