"""What a reply quotes of the message it answers: its beginning, as plain text or as html. Pure."""

from __future__ import annotations

import html
from typing import Final, Literal

LONGEST: Final = 200
"""How many characters of a message are quoted."""


def quoted(said: str, answer: str, kind: Literal["text", "html"]) -> str:
    """An answer below what it answers.

    Args:
        said: the quoted message, as plain text.
        answer: the reply, as text or as html.
        kind: which of them it is.
    """
    beginning = said.strip()
    if len(beginning) > LONGEST:
        beginning = beginning[:LONGEST].rstrip() + "…"
    if not beginning:
        return answer
    if kind == "html":
        lines = "<br>".join(html.escape(line, quote=False) for line in beginning.splitlines())
        return f"<blockquote>{lines}</blockquote>{answer}"
    return "\n".join(f"> {line}".rstrip() for line in beginning.splitlines()) + f"\n\n{answer}"
