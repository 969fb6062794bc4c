"""Cuts a text that is too long for one message where a reader would pause. Pure."""

from __future__ import annotations

from typing import Final

MAX_MESSAGE_BYTES: Final = 27_000
"""UTF-8 bytes a message may have; the service takes about 28 KB (service limits), exactly how it counts is unknown."""

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


def _cut(head: str) -> int:
    """Where to cut: behind the last boundary in the second half of what fits, the strongest kind first."""
    for boundary in _BOUNDARIES:
        at = head.rfind(boundary)
        if at >= len(head) // 2:
            return at + len(boundary)
    return len(head)
