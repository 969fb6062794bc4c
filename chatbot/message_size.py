"""How much one message takes, and how a longer text is cut where a reader would pause. Pure.

Only text is cut. Half of an html message or of a JSON text (a card) is worth nothing, so those are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

MAX_MESSAGE_BYTES: Final = 27_000
"""UTF-8 bytes a message may have; the service takes about 28 KB (service limits), exactly how it counts is unknown."""

MAX_TOTAL_BYTES: Final = 28_000
"""UTF-8 bytes that content and metadata of a message may have together; a reply's own key needs what is left."""

MAX_METADATA_BYTES: Final = 20_000
"""UTF-8 bytes the metadata of a message may have, so that a long text can be sent in pieces beside it."""

_BOUNDARIES: Final = ("\n\n", "\n", ". ", " ")


def split(text: str, limit: int = MAX_MESSAGE_BYTES) -> list[str]:
    """Cut a text into pieces of at most `limit` UTF-8 bytes: after a paragraph, line, sentence or word if possible.

    Nothing but the white space at the cuts is lost. A text that fits comes back alone, unchanged.
    """
    pieces: list[str] = []
    rest = text
    while len(rest.encode()) > limit:
        head = rest.encode()[:limit].decode(errors="ignore")
        cut = _cut(head)
        piece = rest[:cut].rstrip()
        if piece:
            pieces.append(piece)
        rest = rest[cut:].lstrip()
    return [*pieces, rest] if rest or not pieces else pieces


def split_message(content: str, metadata: Mapping[str, str]) -> list[str]:
    """Cut a text into the messages it is sent in; each of them carries the metadata."""
    return split(content, min(MAX_MESSAGE_BYTES, MAX_TOTAL_BYTES - metadata_size(metadata)))


def metadata_size(metadata: Mapping[str, str]) -> int:
    """Return the UTF-8 bytes of all keys and values."""
    return sum(_size(key) + _size(value) for key, value in metadata.items())


def check_message(call: str, content: str, metadata: Mapping[str, str] | None = None, *, is_html: bool = False) -> None:
    """Check that a message can be sent, in pieces if it is a plain text.

    Args:
        call: what the author called, for the error.
        content: the text or html.
        metadata: what is kept with it.
        is_html: how the content is to be read.

    Raises:
        ValueError: it is too large; says how large, and how large it may be, but not what it says.
    """
    beside = metadata_size(metadata or {})
    if beside > MAX_METADATA_BYTES:
        msg = f"{call} got metadata of {beside:,} bytes; a message takes at most {MAX_METADATA_BYTES:,}"
        raise ValueError(msg)
    limit = min(MAX_MESSAGE_BYTES, MAX_TOTAL_BYTES - beside)
    size = _size(content)
    if size > limit and (is_html or _is_json(content)):
        kind = "html" if is_html else "JSON text"
        msg = (
            f"{call} got {kind} of {size:,} bytes; a message takes at most {limit:,}, and {kind} is never cut in pieces"
        )
        raise ValueError(msg)


def pieces_of_edit(call: str, content: str, pieces: int) -> list[str]:
    """Cut the new text of a message that was sent in this many pieces.

    Raises:
        ValueError: it needs more pieces than there are; says how large it is, and how large it may be.
    """
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
    return len(text.encode("utf-8", "surrogatepass"))  # that half a surrogate cannot be sent is said elsewhere


def _is_json(text: str) -> bool:
    """Whether a text is a JSON object or list."""
    if text.strip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except RecursionError:  # so deep, and right so far
        return True
    except ValueError:
        return False
    return True


def _cut(head: str) -> int:
    """Where to cut: behind the last boundary in the second half of what fits, the strongest kind first."""
    for boundary in _BOUNDARIES:
        at = head.rfind(boundary)
        if at >= len(head) // 2:
            return at + len(boundary)
    return len(head)
