"""What of exceptions is shown while `texts` is off: type, place and stack, and no word that people may have said."""

from __future__ import annotations

import ast
import errno
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.dispatch.arguments import BadArguments
from chatbot.errors import AbnormalExit, ChatbotError, ServiceError, StateError, plain_error
from chatbot.runtime.logs import ELISION, Redaction, name_of_class
from chatbot.service.endpoint import ConnectionString

WORD = "hunter2"


def told(call: Callable[[], Any], redaction: Redaction | None = None) -> str:
    try:
        call()
    except BaseException:
        return (redaction or Redaction()).traceback_of(sys.exc_info())
    pytest.fail("nothing was raised")


def throw(error: BaseException) -> Callable[[], Any]:
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize(
    "said",
    [
        WORD,
        f"two lines:\n{WORD}\n",
        f"a return\rand {WORD}",
        f"\u2028{WORD}\u2029\x85{WORD}\x0b\x0c\x1c",
        f"<p>{WORD}</p>",
        repr(f"first\n{WORD}"),
        f"\x1b[31m{WORD}",
    ],
)
@pytest.mark.parametrize("kind", [ValueError, KeyError, LookupError, OSError, StateError, ServiceError])
def test_what_an_exception_says_is_left_out_whatever_its_form_and_the_rest_stays(
    kind: type[Exception], said: str
) -> None:
    error = kind(said)
    error.add_note(said)

    text = told(throw(error))

    assert text.startswith("Traceback (most recent call last):\n")
    assert f"{Path(__file__).name}" in text
    assert ", in call\n    raise error" in text
    assert text.endswith(f"{kind.__name__}: {ELISION}\n{ELISION}")
    assert WORD not in text


def test_the_line_that_a_syntax_error_quotes_is_left_out_and_its_place_stays() -> None:
    text = told(lambda: ast.literal_eval(f"pay {WORD} (now"))

    assert WORD not in text
    assert 'File "<unknown>", line 1' in text
    assert text.endswith("SyntaxError: …")


def test_names_that_code_made_at_run_time_has_are_left_out() -> None:
    source = f"def {WORD}(): raise ValueError('{WORD}')\n{WORD}()"

    text = told(lambda: exec(compile(source, f"{WORD}.txt", "exec"), {}))

    assert WORD not in text
    assert 'File "<…>", line 1, in …' in text


def test_causes_contexts_groups_and_notes_are_shown_without_their_texts() -> None:
    inner = KeyError(WORD)
    inner.add_note(f"while {WORD} was read")
    outer = ValueError(f"first line\n{WORD} in the second")
    outer.__cause__ = inner
    other = LookupError(WORD)
    other.__context__ = ExceptionGroup(WORD, [RuntimeError(WORD)])
    group = BaseExceptionGroup(f"several about {WORD}", [outer, other, KeyboardInterrupt(WORD)])

    text = told(throw(group))

    assert WORD not in text
    assert [
        name for name in ("KeyError", "ValueError", "LookupError", "RuntimeError", "KeyboardInterrupt") if name in text
    ]
    assert "BaseExceptionGroup: … (3 sub-exceptions)" in text
    assert "direct cause" in text
    assert "During handling" in text


def test_cyclic_chains_and_endless_groups_of_exceptions_are_cut() -> None:
    first, second = ValueError(WORD), ValueError(WORD)
    first.__cause__, second.__cause__ = second, first
    deep: Exception = first
    for _ in range(200):
        deep = ExceptionGroup(WORD, [deep] * 3)

    assert len(told(throw(deep))) < 100_000


def test_an_exception_whose_str_fails_does_no_harm() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError(WORD)

    assert told(throw(Mute())).endswith("Mute: …")


def test_our_own_errors_are_shown_where_our_code_raised_them() -> None:
    assert "the connection string has no endpoint=…" in told(lambda: ConnectionString.parse("nothing"))
    assert Redaction().summary(StateError("not now")) == "not now"
    assert WORD not in told(throw(StateError(WORD)))
    assert WORD not in told(throw(type("Own", (ChatbotError,), {})(WORD)))
    assert WORD not in Redaction().summary(BadArguments(WORD))


def test_what_the_operating_system_said_is_shown_without_the_file_s_name(tmp_path: Path) -> None:
    text = told(lambda: (tmp_path / WORD).read_text())

    assert text.endswith(f"FileNotFoundError: [Errno {errno.ENOENT}] No such file or directory")
    assert WORD not in text
    assert WORD not in told(throw(OSError(errno.ENOENT, WORD)))
    assert WORD not in told(throw(socket.gaierror(socket.EAI_NONAME, WORD)))
    assert (
        "Name or service not known" in told(lambda: socket.getaddrinfo("nobody.invalid", 1)) or sys.platform != "linux"
    )


def test_classes_that_are_listed_say_what_they_have_to_say() -> None:
    redaction = Redaction(harmless=frozenset({"KeyError", "json.decoder.JSONDecodeError"}))

    assert told(throw(KeyError("no such city")), redaction).endswith("KeyError: 'no such city'")
    assert told(lambda: json.loads("x"), redaction).endswith(
        "JSONDecodeError: Expecting value: line 1 column 1 (char 0)"
    )
    assert WORD not in told(throw(LookupError(WORD)), redaction)


def test_everything_is_shown_where_texts_are() -> None:
    error = ValueError(WORD)
    error.add_note("a note")

    assert told(throw(error), Redaction(shows_texts=True)).endswith(f"ValueError: {WORD}\na note")


@pytest.mark.parametrize("name", [f"{WORD} is", "a\nb", "\x1b[31m", "a..b"])
def test_a_class_that_was_made_of_a_text_has_no_name(name: str) -> None:
    assert name_of_class(type(name, (Exception,), {})()) == ELISION


@given(st.text(min_size=3))
def test_no_text_that_an_exception_holds_is_in_its_summary(said: str) -> None:
    assert Redaction().summary(ValueError(said)) == f"ValueError: {ELISION}"


def test_a_base_exception_is_shown_by_its_class_without_its_text() -> None:
    class Mute(BaseException):
        def __str__(self) -> str:
            raise Mute

    for raised in (SystemExit(WORD), Mute()):
        error = AbnormalExit(raised)
        for shown in (told(throw(error)), Redaction().summary(error)):
            assert WORD not in shown
        assert type(raised).__name__ in told(throw(error))


class OfNoModule(type):
    @property
    def __module__(cls) -> str:  # type: ignore[override]
        raise SystemExit


class Traceless(Exception):
    @property
    def __traceback__(self) -> TracebackType | None:  # type: ignore[override]
        raise SystemExit

    __cause__ = __traceback__  # type: ignore[assignment]


class Homeless(Exception, metaclass=OfNoModule):
    pass


@pytest.mark.parametrize("hostile", [Traceless, Homeless])
@pytest.mark.parametrize("shows_texts", [False, True])
def test_an_error_whose_cause_raises_when_it_is_asked_is_shown_all_the_same(
    hostile: type[Exception], shows_texts: bool
) -> None:
    def fails() -> None:
        try:
            raise hostile
        except Exception:
            raise ValueError(WORD)  # noqa: B904

    def fails_plainly() -> None:
        raise plain_error(hostile())

    assert "ValueError" in told(fails, Redaction(shows_texts=shows_texts))
    assert hostile.__name__ in told(fails_plainly, Redaction(shows_texts=shows_texts))
