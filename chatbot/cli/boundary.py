"""The one error boundary of the program: which exit code an error means, and what people read instead of a traceback.

Expected errors are sentences. Anything else is a crash: one sentence, and the traceback in a file (or, with
--debug, on the terminal), so that it can be reported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Final, TextIO

from chatbot.errors import ChatbotError, ConfigError, PluginError, ServiceError, StateError, StoreError

EXIT_CRASH: Final = 1
EXIT_UNAVAILABLE: Final = 69
EXIT_CONFIG: Final = 78
EXIT_CTRL_C: Final = 130
EXIT_PIPE: Final = 141

Report = Callable[[list[str]], None]
"""Tells people, or their log, what was wrong: one text per problem."""


def guard(command: Callable[[], int], *, report: Report | None = None, is_debug: bool = False) -> int:
    """Run a command and make an exit code of whatever it raises.

    Args:
        report: where the sentences of expected errors go; stderr by default.
        is_debug: show tracebacks on stderr.
    """
    try:
        return command()
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return EXIT_CTRL_C
    except BrokenPipeError:  # whoever read our output has read enough; Python must not try to flush it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except Exception as error:  # the outermost place: nothing above could handle it
        if is_debug:
            _print_traceback(error)
        expected = [leaf for leaf in leaves(error) if isinstance(leaf, ChatbotError)]
        if not expected:
            return _crashed(error, is_debug=is_debug)
        (report or to_stderr)([text for leaf in expected for text in sentences(leaf)])
        return exit_code(expected[0])


def exit_code(error: ChatbotError) -> int:
    """What an expected error means to whoever started us."""
    if isinstance(error, ConfigError | PluginError):
        return EXIT_CONFIG
    return EXIT_UNAVAILABLE if isinstance(error, ServiceError | StateError | StoreError) else EXIT_CRASH


def sentences(error: ChatbotError) -> list[str]:
    """The problems of an error, one text each."""
    return list(error.problems) if isinstance(error, ConfigError) else [str(error)]


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside nested groups; task groups raise groups even of one."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def to_stderr(problems: list[str]) -> None:
    """Show problems to people: the program's name before the first, every one on lines of its own."""
    for number, problem in enumerate(problems):
        print(problem if number else f"chatbot: {problem}", file=sys.stderr)


def _print_traceback(error: BaseException, file: TextIO | None = None) -> None:
    import traceback

    traceback.print_exception(error, file=file)


def _crashed(error: Exception, *, is_debug: bool) -> int:
    what = next(leaves(error))
    sentence = f"chatbot: crashed: {type(what).__name__}: {what}".splitlines()[0]
    if is_debug:
        print(sentence, file=sys.stderr)
        return EXIT_CRASH
    import tempfile  # here, because --help should not wait for what only a crash needs

    try:
        with tempfile.NamedTemporaryFile("w", prefix="chatbot-crash-", suffix=".txt", delete=False) as file:
            _print_traceback(error, file)
        print(f"{sentence}; the traceback is in {file.name}", file=sys.stderr)
    except OSError:
        print(f"{sentence}; run it again with --debug for the traceback", file=sys.stderr)
    return EXIT_CRASH
