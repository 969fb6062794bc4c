"""Limits of messages and of their number, and splitting of longer texts at natural boundaries. Performs no I/O.

Only plain text is split. A part of an HTML message or of a JSON text (a card) is useless, so these are rejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MAX_MESSAGE_BYTES: Final = 27_000
"""Maximum UTF-8 bytes of a message. The service limit is about 28 KB; how exactly it counts is unknown."""

MAX_TOTAL_BYTES: Final = 28_000
"""Maximum UTF-8 bytes of content and metadata together. The rest of the limit is reserved for the reply key."""

MAX_METADATA_BYTES: Final = 20_000
"""Maximum UTF-8 bytes of metadata. It leaves room for content, as each piece of a split text carries the metadata."""

MAX_TEXT_BYTES: Final = 1_048_576
"""Maximum UTF-8 bytes of a text that is sent in pieces; the service takes 30 messages a minute in a thread."""

MAX_ACTIONS: Final = 1_000
"""Maximum number of actions of one event in one thread, which the service takes half an hour for; more is a mistake."""

_BOUNDARIES: Final = ("\n\n", "\n", ". ", " ")


def split(text: str, limit: int = MAX_MESSAGE_BYTES) -> list[str]:
    """Split a text into pieces of at most `limit` UTF-8 bytes, after a paragraph, line, sentence or word if possible.

    Only white space at the boundaries is dropped. A text that fits is returned unchanged as the only piece.
    """
    pieces: list[str] = []
    rest = text
    while len(rest) > limit or len(rest.encode()) > limit:
        head = rest[:limit].encode()[:limit].decode(errors="ignore")
        cut = _cut(head)
        piece = rest[:cut].rstrip()
        if piece:
            pieces.append(piece)
        rest = rest[cut:].lstrip()
    return [*pieces, rest] if rest or not pieces else pieces


def split_message(content: str, metadata: Mapping[str, str]) -> list[str]:
    """Split a text into the contents of several messages, each of which carries the metadata."""
    return split(content, min(MAX_MESSAGE_BYTES, MAX_TOTAL_BYTES - metadata_size(metadata)))


def metadata_size(metadata: Mapping[str, str]) -> int:
    """Return the UTF-8 bytes of all keys and values."""
    return sum(_size(key) + _size(value) for key, value in metadata.items())


def check_message(call: str, content: str, metadata: Mapping[str, str] | None = None, *, is_html: bool = False) -> None:
    """Check that a message can be sent, split into pieces if it is plain text.

    Args:
        call: the method that the author called, for the error.
        content: the text or HTML.
        metadata: the metadata of the message.
        is_html: whether the content is HTML.

    Raises:
        ValueError: the message is too large; the text states size and limit, but never quotes the content.
    """
    beside = metadata_size(metadata or {})
    if beside > MAX_METADATA_BYTES:
        msg = f"{call} got metadata of {beside:,} bytes; a message takes at most {MAX_METADATA_BYTES:,}"
        raise ValueError(msg)
    limit = min(MAX_MESSAGE_BYTES, MAX_TOTAL_BYTES - beside)
    size = check_text(call, content)
    if size > limit and (is_html or _is_json(content)):
        kind = "html" if is_html else "JSON text"
        msg = (
            f"{call} got {kind} of {size:,} bytes; a message takes at most {limit:,}, and {kind} is never cut in pieces"
        )
        raise ValueError(msg)


def check_text(call: str, content: str) -> int:
    """Return the UTF-8 bytes of a text that may be sent in pieces.

    Raises:
        ValueError: it is too large.
    """
    size = len(content) if len(content) > MAX_TEXT_BYTES else _size(content)
    if size > MAX_TEXT_BYTES:
        msg = f"{call} got a text of {size:,} bytes or more; it takes at most {MAX_TEXT_BYTES:,}: shorten it"
        raise ValueError(msg)
    return size


def check_count(actions: int) -> None:
    """Check that a handler may do one thing more in a thread.

    Raises:
        ValueError: it has done too much; perhaps in a loop that does not end.
    """
    if actions >= MAX_ACTIONS:
        msg = f"more than {MAX_ACTIONS:,} actions for one event in one thread; does a loop not end?"
        raise ValueError(msg)


def pieces_of_edit(call: str, content: str, pieces: int) -> list[str]:
    """Split the new text of a message that was sent in this many pieces.

    Raises:
        ValueError: the text needs more pieces than were sent; the text of the error states size and limit.
    """
    check_text(call, content)
    parts = split(content)
    if len(parts) > pieces or (len(parts) > 1 and _is_json(content)):
        room = f"{MAX_MESSAGE_BYTES:,}" if pieces == 1 else f"{pieces} times {MAX_MESSAGE_BYTES:,}"
        msg = (
            f"{call} got {_size(content):,} bytes, which need {len(parts)} messages; this one takes at most {room}:"
            " shorten it, or delete the message and send another"
        )
        raise ValueError(msg)
    return parts


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))  # lone surrogates are rejected elsewhere


def _is_json(text: str) -> bool:
    """Return whether a text is a JSON object or array."""
    if text.strip()[:1] not in ("{", "["):
        return False
    import json  # here: plugins are imported without it

    try:
        json.loads(text)
    except RecursionError:  # too deeply nested to parse, but valid up to there
        return True
    except ValueError:
        return False
    return True


def _cut(head: str) -> int:
    """Return where to split: after the last boundary in the second half of `head`, the strongest kind first."""
    for boundary in _BOUNDARIES:
        at = head.rfind(boundary)
        if at >= len(head) // 2:
            return at + len(boundary)
    return len(head)
