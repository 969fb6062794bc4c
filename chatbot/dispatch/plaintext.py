"""Conversion of HTML messages to the plain text that commands, filters and `ctx.text` read. Not a sanitizer.

Teams and web clients send HTML. Entities are decoded, block elements and `<br>` become newlines, other white space
collapses as in a browser, and an image or emoji is replaced with its alternative text.

Reading takes linear time for any input, because it runs on the event loop and anyone in a thread can send a message.
The standard library's html.parser is not used: it needs 13 s for 28 KB of `<a <a <a …`.

Two things are read besides the text. A mention is a tag around a name: `<msft-mention id>` (sent by the UI Library,
also in messages of type text), or the mention tag of Teams, which names no user. A reply block of Teams quotes an
earlier message: it is context, and not part of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, NamedTuple

from chatbot.model import MessageId, UserId, Value

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
_ENDLESS_NUMBER: Final = re.compile(r"&#(?:[0-9]{9,}+|[xX][0-9a-fA-F]{9,}+);?")
_NO_BREAK_SPACE: Final = "\u00a0"

# The quantifiers are possessive and "<" is excluded outside of quoted values, so that a failing match never backtracks.
# Keep both: without them, reading takes quadratic time.
_TAG: Final = re.compile(
    r"""<(?P<end>/?)(?P<name>[a-zA-Z][^\s/<>]*+)(?P<rest>(?:[^<>"'=]|=\s*+(?:"[^"]*"|'[^']*')|[="'])*+)>"""
)
_ATTRIBUTE: Final = re.compile(r"""(?<![^\s=/"'])([^\s=/"']++)\s*+=\s*+(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")


_MENTIONS: Final = {"msft-mention": ("id", "displaytext"), "msft-at-mention": ("userid", "displayname"), "at": ("", "")}
"""Tags of mentions, with the attributes that hold the user id and the name; `at` names no user."""

_SKYPE_MENTION: Final = "schema.skype.com/mention"
_SKYPE_REPLY: Final = "schema.skype.com/reply"
_QUOTE: Final = re.compile(r"<(/?)blockquote(?=[\s/>])", re.IGNORECASE)
_END_OF_STRONG: Final = re.compile(r"</strong\s*>", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Quotation(Value):
    """An earlier message that the sender replies to, as quoted by the sender's client above the reply.

    The quotation is not verified: a sender can put any quotation into a message.

    Args:
        text: the quoted text, or its beginning.
        author: the display name of the claimed author.
        author_id: the user id of the claimed author.
        message_id: the id of the quoted message.
    """

    text: str = field(repr=False)
    author: str | None = field(default=None, repr=False)
    author_id: UserId | None = None
    message_id: MessageId | None = None


class Mention(NamedTuple):
    """A part of the text that mentions a user.

    Args:
        start, end: its range in the text; both are equal if the tag is not closed.
        user: the id of the mentioned user; None if the tag does not name one.
    """

    start: int
    end: int
    user: UserId | None


class Reading(NamedTuple):
    """The result of reading a message.

    Args:
        text: the message as plain text.
        mentions: the mentions in it, in order.
        quoted: the earlier message that it replies to.
    """

    text: str
    mentions: tuple[Mention, ...] = ()
    quoted: Quotation | None = None

    def __repr__(self) -> str:
        return "<Reading>"  # message text must not reach logs or tracebacks


def unescape(text: str) -> str:
    """Replace character references, as `html.unescape` does; its table is loaded with the first one."""
    if "&" not in text:
        return text
    import html

    return html.unescape(text)


def _unescaped(text: str) -> str:
    """Decode the entities; Python refuses numeric ones with thousands of digits, which denote no character."""
    return unescape(_ENDLESS_NUMBER.sub("\ufffd", text))


def plain_text(html: str) -> str:
    """Return the text of an HTML message as a person would read it; never raises, whatever the input."""
    return read_html(html).text


def read_html(html: str) -> Reading:
    """Read an HTML message; never raises, whatever the input."""
    return _Reader(html).reading()


def read_text(content: str) -> Reading:
    """Read a message of type text; never raises.

    The send box of the UI Library sends mentions as tags in such messages. It escapes the text around them, but not the
    name inside. Text without a complete mention is returned as it is, including entities.
    """
    if "<msft-" not in content and "<MSFT-" not in content:
        return Reading(content)
    pieces: list[str] = []
    mentions: list[Mention] = []
    at = width = 0
    for tag in _TAG.finditer(content):
        name = tag["name"].lower()
        if tag.start() < at or tag["end"] or not name.startswith("msft-") or name not in _MENTIONS:
            continue
        end = content.find(f"</{tag['name']}>", tag.end())
        if end < 0:
            continue
        id_of, name_of = _MENTIONS[name]
        before = unescape(content[at : tag.start()])
        shown = unescape(_TAG.sub("", content[tag.end() : end])) or _unescaped(_attribute(tag["rest"], name_of))
        pieces += [before, shown]
        start = width + len(before)
        width = start + len(shown)
        mentions.append(Mention(start, width, UserId(_unescaped(_attribute(tag["rest"], id_of))) or None))
        at = end + len(name) + 3
    if not mentions:
        return Reading(content)
    return Reading("".join(pieces) + unescape(content[at:]), tuple(mentions))


class _OpenMention(NamedTuple):
    """A mention whose end tag has not been read yet."""

    tag: str
    place: tuple[int, int]
    user: str
    name: str


class _Reader:
    """Collects lines; a block begins a new line only if the current line is not empty."""

    def __init__(self, html: str, *, is_quoted: bool = False) -> None:
        self._html = html
        self._is_quoted = is_quoted
        self._quoted: Quotation | None = None
        self._mention: _OpenMention | None = None
        self._depth = 0
        self._mentions: list[tuple[tuple[int, int], tuple[int, int], str]] = []
        self._lines: list[str] = []
        self._line: list[str] = []
        self._width = 0
        self._ends_in_space = True
        self._preformatted = 0

    def reading(self) -> Reading:
        self._read()
        if self._mention is not None:  # not closed: the user is known, but not the text
            self._mentions.append((self._mention.place, self._mention.place, self._mention.user))
        lines = [*self._lines, "".join(self._line)]
        lines = [line.replace(_NO_BREAK_SPACE, " ").rstrip() for line in lines]
        text = "\n".join(lines)
        return Reading(text.strip(), tuple(self._placed(lines, text)) if self._mentions else (), self._quoted)

    def _placed(self, lines: list[str], text: str) -> Iterator[Mention]:
        """Yield the mentions with their positions in the text, which was stripped at both ends and at line ends."""
        starts = [0, *accumulate(len(line) + 1 for line in lines)]
        before, length = len(text) - len(text.lstrip()), len(text.strip())
        for start, end, user in self._mentions:
            places = (starts[line] + min(at, len(lines[line])) - before for line, at in (start, end))
            first, last = (min(max(0, place), length) for place in places)
            yield Mention(first, last, UserId(user) if user else None)

    def _read(self) -> None:
        html, at, said = self._html, 0, 0
        while (at := html.find("<", at)) >= 0:
            tag = _TAG.match(html, at)
            if tag is None and html[at + 1 : at + 2] not in ("!", "?"):
                at += 1  # a "<" that begins no tag is text
                continue
            self._read_words(html[said:at])
            at = said = self._read_tag(tag) if tag else self._end_of_comment(at)
        self._read_words(html[said:])

    def _end_of_comment(self, at: int) -> int:
        mark = "-->" if self._html.startswith("<!--", at) else ">"
        end = self._html.find(mark, at)
        return len(self._html) if end < 0 else end + len(mark)

    def _read_tag(self, tag: re.Match[str]) -> int:
        """Apply a tag to the text and return the position to continue from."""
        name, is_end = tag["name"].lower(), bool(tag["end"])
        if name == "blockquote" and not is_end and (self._is_quoted or _SKYPE_REPLY in tag["rest"].lower()):
            self._end_block()
            return self._read_quotation(tag)
        if self._mention is not None or name in _MENTIONS or (name in ("span", "readonly") and not is_end):
            self._read_mention(name, tag["rest"], is_end=is_end)
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

    def _read_quotation(self, tag: re.Match[str]) -> int:
        """Read a reply block of Teams, including nested ones, and return its end."""
        depth, end, after = 1, len(self._html), len(self._html)
        for mark in _QUOTE.finditer(self._html, tag.end()):
            depth += -1 if mark[1] else 1
            if not depth:
                closing = self._html.find(">", mark.end())
                end, after = mark.start(), len(self._html) if closing < 0 else closing + 1
                break
        if self._quoted is None and not self._is_quoted:  # nested quotations are dropped
            self._quoted = _quotation(_unescaped(_attribute(tag["rest"], "itemid")), self._html[tag.end() : end])
        return after

    def _read_mention(self, name: str, rest: str, *, is_end: bool) -> None:
        mention = self._mention
        if mention is not None:
            if name != mention.tag:
                return
            self._depth += -1 if is_end else 1
            if not self._depth:
                if self._place() == mention.place:
                    self._say(mention.name)
                self._mentions.append((mention.place, self._place(), mention.user))
                self._mention = None
            return
        if is_end or (name not in _MENTIONS and _SKYPE_MENTION not in rest.lower()):
            return
        id_of, name_of = _MENTIONS.get(name, ("", ""))
        user, shown = (_unescaped(_attribute(rest, pattern)) if pattern else "" for pattern in (id_of, name_of))
        place = self._place()
        if rest.rstrip().endswith("/"):
            self._say(shown)
            self._mentions.append((place, self._place(), user))
        else:
            self._mention, self._depth = _OpenMention(name, place, user, shown), 1

    def _place(self) -> tuple[int, int]:
        """Return the current line number and the position in that line."""
        return len(self._lines), self._width

    def _begin_inline(self, name: str, rest: str) -> None:
        if name == "br":
            self._break()
        elif name in ("td", "th"):
            self._say(" ")
        elif name in ("img", "emoji"):
            self._say(_unescaped(_attribute(rest, "alt")))

    def _read_words(self, source: str) -> None:
        words = _unescaped(source)
        if not self._preformatted:
            self._say(_SPACES.sub(" ", words))
            return
        first, *others = words.split("\n")
        self._append(first)
        for line in others:
            self._break()
            self._append(line)

    def _say(self, words: str) -> None:
        if self._ends_in_space:
            words = words.lstrip(" ")
        if words:
            self._append(words)
            self._ends_in_space = words.endswith(" ")

    def _append(self, words: str) -> None:
        self._line.append(words)
        self._width += len(words)

    def _break(self) -> None:
        self._lines.append("".join(self._line))
        self._line = []
        self._width = 0
        self._ends_in_space = True

    def _end_block(self) -> None:
        if self._line:
            self._break()


def _quotation(message: str, html: str) -> Quotation:
    """Read the author and the text of a reply block of Teams."""
    author_id = author = ""
    for tag in _TAG.finditer(html):
        if tag["name"].lower() == "strong" and not tag["end"] and _attribute(tag["rest"], "itemprop").lower() == "mri":
            author_id = _unescaped(_attribute(tag["rest"], "itemid"))
            end = _END_OF_STRONG.search(html, tag.end())
            if end is not None:
                author = _Reader(html[tag.end() : end.start()], is_quoted=True).reading().text
                html = html[: tag.start()] + html[end.end() :]
            break
    text = _Reader(html, is_quoted=True).reading().text
    return Quotation(text, author or None, UserId(author_id) or None, MessageId(message) or None)


def _attribute(rest: str, name: str) -> str:
    for key, double, single, bare in _ATTRIBUTE.findall(rest):
        if key.lower() == name:
            return str(double or single or bare)
    return ""
