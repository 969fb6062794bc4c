"""Keeps people's words out of the log: which exceptions may say what they have to say, and how the others are shown.

An exception often quotes what it could not deal with: a text, a line of it, a name. No filter knows in which form, so
nothing of an exception's own text is logged unless its origin says that it quotes nobody:

* It is one of ours, and our code raised it: those name places and remedies, never what was said.
* It is an `OSError` whose text is the operating system's; the name of the file is left out.
* Its class is listed in bots.yaml (`log: {harmless: […]}`).

Notes, the lines that a `SyntaxError` quotes, and the messages of groups are never logged. Types, `file:line` and the
stack always are, but the name of code that stands in no file. `log: {texts: true}` shows all.
"""

from __future__ import annotations

import os
import socket
import ssl
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from structlog.typing import ExcInfo

from chatbot.dispatch.arguments import BadArguments
from chatbot.dispatch.place import is_known_source
from chatbot.errors import AbnormalExit, ChatbotError

ELISION: Final = "…"

_OURS: Final = os.path.join(str(Path(__file__).parents[1]), "")
_NAMES_OF_PYTHON: Final = ("<module>", "<lambda>")
_MOST_OF_A_GROUP: Final = 15
_DEEPEST_GROUP: Final = 10
_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_CONTEXT: Final = "During handling of the above exception, another exception occurred:"


@dataclass(frozen=True, slots=True)
class Redaction:
    """What of exceptions is shown.

    Args:
        shows_texts: everything.
        harmless: classes whose texts are shown, as `package.module.Class`; those of Python's own as `Class`.
    """

    shows_texts: bool = False
    harmless: frozenset[str] = frozenset()

    def traceback_of(self, exc_info: ExcInfo) -> str:
        """Return the traceback as text."""
        if self.shows_texts:
            with suppress(Exception):  # Python cannot show a class without a module
                return "".join(traceback.format_exception(*exc_info)).rstrip("\n")
        return "\n".join(self._chain(exc_info[1], set(), 0))

    def summary(self, error: BaseException) -> str:
        """Return an exception in one line: what it says, or its type where that may quote people."""
        words = self.words_of(error)
        if words and isinstance(error, ChatbotError) and words is not ELISION:
            return words
        return f"{name_of_class(error)}: {words}" if words else name_of_class(error)

    def words_of(self, error: BaseException, *, is_within: bool = False) -> str:
        """Return what an exception says, as far as it may be shown.

        Args:
            error: the exception.
            is_within: whether another one holds it, as its cause or in a group: then authors may have put it there.
        """
        if isinstance(error, AbnormalExit):  # its words are those of what a plugin raised
            words = self.words_of(error.raised, is_within=True)
            kind = name_of_class(error.raised)
            return f"{kind}: {words}" if words else kind
        try:
            said = str(error.msg) if isinstance(error, SyntaxError) else str(error)
        except BaseException:  # it cannot say what it is: __str__ is a plugin's code
            return ELISION
        if not said or self.shows_texts or name_of_class(error) in self.harmless:
            return said
        if _is_ours(error, is_within=is_within):
            return said
        return _of_the_system(error) or ELISION

    def _chain(self, error: BaseException | None, met: set[int], depth: int) -> Iterator[str]:
        """An exception, after those that it came of."""
        chain: list[tuple[BaseException, str]] = []
        while error is not None and id(error) not in met:
            met.add(id(error))
            is_caused = error.__cause__ is not None
            chain.append((error, _CAUSE if is_caused else _CONTEXT))
            error = error.__cause__ if is_caused or error.__suppress_context__ else error.__context__
        for position, (one, link) in enumerate(reversed(chain)):
            if position:
                yield from ("", link, "")
            yield from self._one(one, met, depth, is_within=bool(depth) or position < len(chain) - 1)

    def _one(self, error: BaseException, met: set[int], depth: int, *, is_within: bool) -> Iterator[str]:
        if error.__traceback__ is not None:
            yield "Traceback (most recent call last):"
            yield from _stack(error)
        if isinstance(error, SyntaxError) and error.lineno is not None:
            yield f'  File "{_shown_file(str(error.filename))}", line {error.lineno}'
        if isinstance(error, BaseExceptionGroup):
            yield f"{name_of_class(error)}: {ELISION} ({len(error.exceptions)} sub-exceptions)"
        else:
            words = self.words_of(error, is_within=is_within)
            first, *others = (f"{name_of_class(error)}: {words}" if words else name_of_class(error)).split("\n")
            yield from (first, *(f"    {line}" for line in others))
        yield from (ELISION for _ in getattr(error, "__notes__", None) or ())
        if isinstance(error, BaseExceptionGroup) and depth < _DEEPEST_GROUP:
            for number, member in enumerate(error.exceptions[:_MOST_OF_A_GROUP], 1):
                yield f"  +---------------- {number} ----------------"
                yield from (f"  | {line}" for line in self._chain(member, met, depth + 1))


class _InForce:
    redaction = Redaction()


def in_force() -> Redaction:
    """Return what of exceptions is shown at the moment, in the log and on stderr."""
    return _InForce.redaction


def put_in_force(redaction: Redaction) -> Redaction:
    """Change what of exceptions is shown; return what was shown before."""
    before, _InForce.redaction = _InForce.redaction, redaction
    return before


def name_of_class(error: BaseException) -> str:
    """Return the name of an exception's class, as tracebacks have it; classes can be made at run time, of any text."""
    module, name = _module_of(error), type(error).__qualname__.replace("<locals>.", "")
    full = name if module in ("builtins", "__main__") else f"{module}.{name}"
    return full if all(part.isidentifier() for part in full.split(".")) else ELISION


def _module_of(error: BaseException) -> str:
    """The module of an exception's class; a class that was made at run time may have none."""
    return str(getattr(type(error), "__module__", "builtins"))


def _is_ours(error: BaseException, *, is_within: bool) -> bool:
    """Whether our code made this exception: authors may raise our classes, and hold them in others, with any text."""
    if isinstance(error, BadArguments) or not isinstance(error, ChatbotError):  # the former quotes who typed them
        return False
    if not _module_of(error).startswith("chatbot."):
        return False
    code = _raised_in(error)
    return not is_within if code is None else code.startswith(_OURS)


def _of_the_system(error: BaseException) -> str | None:
    """What the operating system said, if this is that."""
    if not isinstance(error, OSError) or not isinstance(error.errno, int):
        return None
    is_network = isinstance(error, socket.gaierror | ssl.SSLError) and _module_of(error) in ("socket", "ssl")
    if error.strerror == os.strerror(error.errno) or (is_network and _is_of_python(error)):
        return f"[Errno {error.errno}] {error.strerror}"
    return None


def _is_of_python(error: BaseException) -> bool:
    """Whether Python's own library raised this."""
    code = _raised_in(error)
    return code is not None and code.startswith(os.path.dirname(os.__file__) + os.sep) and "-packages" not in code


def _raised_in(error: BaseException) -> str | None:
    """The file of the code that raised it; None if it was never raised."""
    trace = error.__traceback__
    if trace is None:
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename


def _stack(error: BaseException) -> Iterator[str]:
    frames = [
        frame
        if is_known_source(frame.filename)
        else traceback.FrameSummary(_shown_file(frame.filename), frame.lineno, _shown_name(frame.name), line="")
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    for text in traceback.StackSummary.from_list(frames).format():
        yield from text.rstrip("\n").split("\n")


def _shown_file(filename: str) -> str:
    return filename if is_known_source(filename) else f"<{ELISION}>"


def _shown_name(function: str) -> str:
    is_python_s = function in _NAMES_OF_PYTHON or (function.startswith("__") and function.endswith("__"))
    return function if is_python_s else ELISION
