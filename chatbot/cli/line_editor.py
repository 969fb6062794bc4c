"""A line that a person is typing, pure: bytes of the terminal in, finished lines out. Who reads and draws: `terminal`.

Small on purpose: text, backspace, Ctrl-U (whole line), Ctrl-W (word), Enter, Ctrl-D. Keys that send escape sequences
do nothing.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

_ESCAPE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|[^\[O])")
_HALF_ESCAPE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?$")


class LineEditor:
    """What is typed so far, in `text`; `is_done` once the person has ended the input."""

    def __init__(self) -> None:
        self.text = ""
        self.is_done = False
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """Take in what the terminal sent (nothing means that it is gone); returns the lines that are finished."""
        if not data:
            self.is_done = True
        arrived = _ESCAPE.sub("", self._rest + self._decode(data))
        half = _HALF_ESCAPE.search(arrived)
        self._rest = half[0] if half else ""
        lines = []
        for character in arrived[: half.start()] if half else arrived:
            if self.is_done:
                break
            if character in "\r\n":
                lines.append(self.text)
                self.text = ""
            else:
                self._edit(character)
        return lines

    def _edit(self, character: str) -> None:
        if character in "\x7f\b":
            self.text = self.text[:-1]
        elif character == "\x15":
            self.text = ""
        elif character == "\x17":
            self.text = re.sub(r"\S+\s*$", "", self.text)
        elif character == "\x04":
            self.is_done = not self.text
        elif character.isprintable():
            self.text += character
