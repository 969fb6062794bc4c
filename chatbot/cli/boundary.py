"""The error boundary of the program: turns errors into exit codes and messages.

Expected errors are sentences. Anything else is a crash: one sentence, and the traceback in a file, so that it can be
reported. With --debug every traceback is shown.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from typing import Any, Final, TextIO

from chatbot.errors import ChatbotError, ConfigError, PluginError, ServiceError, StateError, StoreError, UnknownName
from chatbot.standard_streams import STREAMS, occupy

EXIT_CRASH: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNAVAILABLE: Final = 69
EXIT_DEGRADED: Final = 75
"""Exit code of `chatbot status` if the bots are healthy and ready, but something is degraded (EX_TEMPFAIL)."""

EXIT_CONFIG: Final = 78
EXIT_CTRL_C: Final = 130
EXIT_PIPE: Final = 141

BOTS_YAML: Final = "bots.yaml"
"""The configuration that commands use by default."""

DEBUG: Final = "CHATBOT_DEBUG"
"""The environment variable that --debug sets."""

Report = Callable[[list[str], Exception | None], None]
"""Reports problems to the terminal or the log: one text per problem, and the error if its traceback is wanted."""


def prepare_streams() -> None:
    """Make the standard streams accept any text, whatever their encoding, even if they are closed.

    A character that the encoding lacks is escaped; JSON is ASCII, so it loses nothing. If the parent process has closed
    a stream, it is replaced by the null device, descriptor included. Otherwise the next file to be opened would get
    descriptor 2, and libraries and crash reports would write into that file.
    """
    occupy()
    for name in STREAMS.values():
        stream = getattr(sys, name)
        if (stream is None or stream.closed) and name != "stdin":
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8", errors="backslashreplace"))  # noqa: SIM115
        elif isinstance(stream, TextIOWrapper) and not stream.closed:
            stream.reconfigure(errors="replace" if name == "stdin" else "backslashreplace")


def guard(command: Callable[[], int], *, report: Report | None = None) -> int:
    """Run a command, report what it raises, and return an exit code.

    Args:
        report: reports the problems; to stderr by default.
    """
    try:
        return command()
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)
        return EXIT_CTRL_C
    except Exception as error:  # the outermost level: every error must be reported here
        if all(isinstance(leaf, BrokenPipeError) for leaf in leaf_errors(error)):
            _discard_output(sys.stdout)  # the reader of the output has closed the pipe
            return EXIT_PIPE
        is_debug = bool(os.environ.get(DEBUG))
        problems, code = explain(error, is_debug=is_debug)
        (report or to_stderr)(problems, error if is_debug else None)
        return code


def explain(error: Exception, *, is_debug: bool = False) -> tuple[list[str], int]:
    """Return the problems of an error, one text each, and its exit code."""
    expected = [leaf for leaf in leaf_errors(error) if isinstance(leaf, ChatbotError)]
    if not expected:
        return [_crash(error, is_debug=is_debug)], EXIT_CRASH
    problems = [text for leaf in expected for text in (leaf.problems if isinstance(leaf, ConfigError) else [str(leaf)])]
    return list(dict.fromkeys(problems)), exit_code(expected[0])


def exit_code(error: ChatbotError) -> int:
    """Return the exit code of an expected error."""
    if isinstance(error, ConfigError | PluginError):
        return EXIT_CONFIG
    if isinstance(error, UnknownName):
        return EXIT_USAGE
    return EXIT_UNAVAILABLE if isinstance(error, ServiceError | StateError | StoreError) else EXIT_CRASH


def leaf_errors(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors inside nested groups; task groups raise groups even for one error."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaf_errors(inner)
    else:
        yield error


def to_stderr(problems: list[str], error: Exception | None = None) -> None:
    """Print problems to stderr, one after the other; the first one is preceded by the program's name."""
    if error is not None:
        _print_traceback(error)
    from chatbot.config.source_location import printable  # imported here to keep --help fast

    for number, problem in enumerate(problems):
        shown = "\n".join(map(printable, problem.splitlines()))
        print_text(shown if number else f"chatbot: {shown}", sys.stderr)


def print_text(text: str, stream: TextIO) -> None:
    """Print a text at once; if nobody reads the stream any more, discard it and continue.

    Writing to a closed terminal fails before SIGHUP reports that it was closed.
    """
    try:
        print(text, file=stream, flush=True)
    except OSError:
        _discard_output(stream)


def _discard_output(stream: TextIO) -> None:
    """Discard what is still written to a stream; otherwise Python would try to flush it at exit, and fail."""
    null_device = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_device, stream.fileno())
    os.close(null_device)


def _crash(error: Exception, *, is_debug: bool) -> str:
    """Return one sentence, and write the traceback to a file without exception texts, which may quote people."""
    from chatbot.runtime.logs import active_redaction

    what = next(leaf_errors(error))
    if is_debug:
        return f"crashed: {type(what).__name__}: {what}".splitlines()[0]
    sentence = f"crashed: {active_redaction().summary(what)}".splitlines()[0]
    import tempfile  # imported here to keep --help fast: only a crash needs it

    try:
        with tempfile.NamedTemporaryFile("w", prefix="chatbot-crash-", suffix=".txt", delete=False) as file:
            file.write(active_redaction().traceback_of((type(error), error, error.__traceback__)) + "\n")
    except OSError:
        return f"{sentence}; run it again with --debug for the traceback"
    return f"{sentence}; the traceback is in {file.name}"


def _print_traceback(error: BaseException, file: Any = None) -> None:
    import traceback

    traceback.print_exception(error, file=file)
