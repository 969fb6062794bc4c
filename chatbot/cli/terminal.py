"""Line-based input and output: with a prompt below the output on a terminal, plain otherwise.

`LineEditor` is pure: bytes of the terminal in, finished lines out. `Terminal` reads and draws.

The editor is small on purpose: text, backspace, Ctrl-U (line), Ctrl-W (word), Enter, Ctrl-D, up and down for earlier
lines. Other keys that send escape sequences do nothing.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import anyio
import anyio.to_thread

from chatbot.config.source_location import cells

_CHUNK: Final = 65536


class Terminal:
    """A person's terminal, or pipes instead of it.

    Args:
        prompt: the text before the line that is typed.
        history: earlier lines, oldest first; the list may grow.
        on_line: called with each line that is finished at the prompt.

    Attributes:
        prompt: as above; a change is shown with the next line.
    """

    def __init__(
        self, prompt: str, history: Sequence[str] = (), *, on_line: Callable[[str], Awaitable[None]] | None = None
    ) -> None:
        self.prompt = prompt
        self._on_line = on_line
        self._drawn = ""
        self._has_prompt = False
        self._editor = LineEditor(history)
        self.is_interactive = _can_edit()
        self.has_colors = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    @property
    def is_echoing(self) -> bool:
        """Whether the terminal itself shows what was typed."""
        return sys.stdin is not None and sys.stdin.isatty() and not self.is_interactive

    def show(self, text: str) -> None:
        """Write lines above the prompt."""
        self._erase()
        sys.stdout.write(f"{text}\n")
        self._draw()

    def lines(self) -> AsyncGenerator[str]:
        """Yield the lines that the person types, until the input ends (Ctrl-D, or the end of the pipe)."""
        return self._edited_lines() if self.is_interactive else _plain_lines()

    async def _edited_lines(self) -> AsyncGenerator[str]:
        with self._single_keys():
            while not self._editor.is_done:
                for line in self._editor.feed(await _read(sys.stdin.fileno())):
                    self._hide()
                    if self._on_line is not None:
                        await self._on_line(line)
                    yield line
                self._erase()
                self._has_prompt = True
                self._draw()

    def _hide(self) -> None:
        self._erase()
        self._has_prompt = False
        sys.stdout.flush()

    def _erase(self) -> None:
        if not self._has_prompt:
            return
        width = os.get_terminal_size(sys.stdout.fileno()).columns or 80
        rows = max(0, cells(self._drawn) - 1) // width
        sys.stdout.write((f"\x1b[{rows}A" if rows else "") + "\r\x1b[J")

    def _draw(self) -> None:
        if self._has_prompt:
            self._drawn = self.prompt + self._editor.text
            sys.stdout.write(self._drawn)
        sys.stdout.flush()

    @contextmanager
    def _single_keys(self) -> Iterator[None]:
        """Read single keys instead of whole lines while the block runs; Ctrl-C keeps its meaning."""
        import termios  # never reached on Windows, where `is_interactive` is false

        stdin = sys.stdin.fileno()
        before: list[Any] = termios.tcgetattr(stdin)
        keys = termios.tcgetattr(stdin)
        keys[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(stdin, termios.TCSADRAIN, keys)
        try:
            self._has_prompt = True
            self._draw()
            yield
        finally:
            self._hide()
            termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _can_edit() -> bool:
    """Return whether stdin and stdout are a terminal that can deliver single keys."""
    try:
        import termios  # noqa: F401 - not on Windows; there, lines come whole
    except ImportError:
        return False
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


async def _plain_lines() -> AsyncGenerator[str]:
    if sys.stdin is None:  # closed by the parent process
        return
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    rest = ""
    while data := await _read(sys.stdin.fileno()):
        *lines, rest = (rest + decode(data)).split("\n")
        for line in lines:
            yield line.removesuffix("\r")
    if rest:
        yield rest


async def _read(descriptor: int) -> bytes:
    """Read the next bytes without blocking the loop; b"" at the end.

    Does not use `sys.stdin`: a thread that waits for input would hold its lock while the interpreter exits.
    """
    # The event loop cannot wait for files, and on Windows only for sockets; then the thread waits.
    with suppress(NotImplementedError, OSError):
        await anyio.wait_readable(descriptor)
    return await anyio.to_thread.run_sync(os.read, descriptor, _CHUNK, abandon_on_cancel=True)


_ESCAPE: Final = r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|[^\[O])"
_HALF_ESCAPE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")
_KEY: Final = re.compile(f"{_ESCAPE}|{_HALF_ESCAPE.pattern}|.", re.DOTALL)
_STEPS: Final = {"\x1b[A": 1, "\x1bOA": 1, "\x1b[B": -1, "\x1bOB": -1}


class LineEditor:
    """The line typed so far is in `text`; `is_done` is true once the person has ended the input.

    Args:
        history: earlier lines, oldest first; the list may grow.
    """

    def __init__(self, history: Sequence[str] = ()) -> None:
        self.text = ""
        self.is_done = False
        self._history = history
        self._back = 0  # how many lines back in the history; 0 is the line that is being typed
        self._draft = ""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """Process bytes from the terminal (none mean that it was closed); return the finished lines."""
        if not data:
            self.is_done = True
        keys = _KEY.findall(self._rest + self._decode(data))
        self._rest = keys.pop() if keys and _HALF_ESCAPE.fullmatch(keys[-1]) else ""
        lines = []
        for key in keys:
            if self.is_done:
                break
            if key in "\r\n":
                lines.append(self.text)
                self.text, self._back = "", 0
            elif key in _STEPS:
                self._recall(_STEPS[key])
            elif len(key) == 1:
                self._edit(key)
        return lines

    def _recall(self, step: int) -> None:
        """Show an earlier line, or a later one; what was being typed comes back at the end."""
        if self._back == 0:
            self._draft = self.text
        self._back = min(max(0, self._back + step), len(self._history))
        self.text = self._history[-self._back] if self._back else self._draft

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
