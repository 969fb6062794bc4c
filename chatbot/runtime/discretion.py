"""Keeps people's words out of tracebacks: an exception often quotes what it could not deal with."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator

from structlog.typing import ExcInfo

from chatbot.events import Event, MessageEvent

_WORD = re.compile(r"\w+")
_QUOTED = re.compile(r"""(?P<quote>['"])(?P<inside>.*?)(?P=quote)""")
_SHORTEST = 3
"""Shorter words tell nothing, unless they stand in quotes."""

ELISION = "…"


def traceback_of(exc_info: ExcInfo, event: Event | None) -> str:
    """The traceback as text, in which what is said in an event's message is left out of the exceptions' own texts.

    Args:
        exc_info: what was raised.
        event: what was in hand; None hides nothing.
    """
    text = "".join(traceback.format_exception(*exc_info)).rstrip("\n")
    if not isinstance(event, MessageEvent) or not event.message.content:
        return text
    for line in dict.fromkeys(_lines_of(exc_info[1])):
        hidden = without_words(line, event.message.content)
        if hidden != line:
            text = re.sub(rf"{re.escape(line)}$", hidden.replace("\\", r"\\"), text, flags=re.MULTILINE)
    return text


def without_words(line: str, said: str) -> str:
    """A line without the words of what was said; short ones are left out only where they stand in quotes."""
    words = {word.casefold() for word in _WORD.findall(said)}

    def hide(match: re.Match[str], shortest: int) -> str:
        word = match[0].casefold()
        is_said = word in words or (not word.isascii() and any(word in one or one in word for one in words))
        return ELISION if is_said and len(word) >= shortest else match[0]

    def hide_quoted(match: re.Match[str]) -> str:
        return match["quote"] + _WORD.sub(lambda word: hide(word, 1), match["inside"]) + match["quote"]

    quoted = _QUOTED.sub(hide_quoted, line)
    return _WORD.sub(lambda word: hide(word, 1 if not word[0].isascii() else _SHORTEST), quoted)


def _lines_of(error: BaseException | None) -> Iterator[str]:
    """The lines of what an exception and all those behind it say, notes included."""
    waiting, met = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in met:
            continue
        met.add(id(one))
        try:
            said = str(one)
        except Exception:  # the traceback cannot show it either
            said = ""
        for text in (said, *getattr(one, "__notes__", ())):
            yield from (line for line in str(text).splitlines() if line.strip())
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
