"""Logs: for people on a terminal, one JSON object per line for machines. The only place that configures logging.

Everything goes through one handler of the standard library's logging: our own structlog events, libraries that
log, Python's warnings, and errors nobody caught. So with JSON every line is an object, whoever wrote it.
"""

from __future__ import annotations

import copy
import logging
import sys
import threading
from collections.abc import Callable, Collection, Iterator, MutableMapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import Processor

from chatbot.runtime.discretion import Redaction, in_force, put_in_force
from chatbot.runtime.observe.work import IN_HAND

LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

# They describe every single request, or repeat what we log ourselves.
_CHATTY: Final = (
    "azure",
    "aiohttp.access",
    "asyncio",
    "uvicorn",
    "urllib3",
    "msrest",
    "msal",
    "filelock",
    "watchfiles",
)

# They warn of a failure before they raise it, which is told then.
_TELLTALE: Final = ("azure.identity._internal",)


def resolve_format(wanted: LogFormat, stream: TextIO) -> Literal["console", "json"]:
    """What `auto` means for this stream: console on a terminal, JSON lines otherwise."""
    if wanted == "auto":
        return "console" if stream.isatty() else "json"
    return wanted


_OF_EVENT_LOOP: Final = (
    "Task exception was never retrieved",
    "Future exception was never retrieved",
    "Task was destroyed but it is pending!",
    "Exception in callback",
    "Unhandled exception in event loop",
    "unhandled exception during asyncio.run() shutdown",
    "Executing",
)
"""How the event loop begins to tell of a task or callback; what follows may hold people's words."""


class Logging:
    """What the log of the process looks like at the moment.

    Args:
        stream: where it is written.
    """

    def __init__(self, stream: TextIO) -> None:
        self.handler = _Handler(stream)
        self._stream = stream

    def change(
        self, *, format: LogFormat, level: LogLevel, texts: bool = False, harmless: Collection[str] = ()
    ) -> None:
        """Write the next lines otherwise; see `logging_to`."""
        put_in_force(Redaction(texts, frozenset(harmless)))
        is_json = resolve_format(format, self._stream) == "json"
        renderers = _json() if is_json else _console(self._stream)
        self.handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=[_of_event_loop, *_common(), structlog.stdlib.add_logger_name],
                processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
            )
        )
        least = logging.getLevelName(level.upper())
        logging.getLogger().setLevel(least)
        for name in _CHATTY:
            logging.getLogger(name).setLevel(max(least, logging.WARNING))
        for name in _TELLTALE:
            logging.getLogger(name).setLevel(max(least, logging.ERROR))


@contextmanager
def logging_to(
    stream: TextIO,
    *,
    format: LogFormat = "auto",
    level: LogLevel = "info",
    texts: bool = False,
    harmless: Collection[str] = (),
) -> Iterator[Logging]:
    """Send every log line of the process to `stream`; what was configured before comes back at the end.

    Every line names the work in hand (`observe.work`): bot, thread, message, event, handler, attempt and trace, as far
    as there are such.

    Args:
        stream: usually `sys.stderr`.
        format: `auto` looks whether the stream is a terminal.
        level: the least that is written; libraries that talk too much are written from `warning` on.
        texts: whether exceptions may say what they have to say, which may quote people.
        harmless: the classes of exceptions that may in any case; see `discretion`.
    """
    ours = Logging(stream)
    redaction = in_force()
    with _stdlib_through(ours.handler), _errors_through_logging():
        ours.change(format=format, level=level, texts=texts, harmless=harmless)
        before = structlog.get_config() if structlog.is_configured() else None
        structlog.configure(
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.contextvars.merge_contextvars,
                *_common(),
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
            logger_factory=structlog.stdlib.LoggerFactory(),
            cache_logger_on_first_use=False,
        )
        try:
            yield ours
        finally:
            put_in_force(redaction)
            structlog.reset_defaults()
            if before is not None:
                structlog.configure(**before)


def _common() -> list[Processor]:
    return [structlog.stdlib.add_log_level, _bound_to_work, _redacted, structlog.processors.StackInfoRenderer()]


def _redacted(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """An exception that is logged as a value says no more than its traceback would."""
    for key, value in event.items():
        if key != "exc_info" and isinstance(value, BaseException | list | tuple | dict):
            event[key] = _without_words(value)
    return event


def _without_words(value: object) -> object:
    if isinstance(value, BaseException):
        return in_force().summary(value)
    if isinstance(value, list | tuple):
        return [_without_words(item) for item in value]
    return {key: _without_words(item) for key, item in value.items()} if isinstance(value, dict) else value


def _of_event_loop(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What the event loop tells of tasks that nobody awaits: it quotes exceptions, arguments and names of tasks."""
    record: logging.LogRecord | None = event.get("_record")
    if record is None or record.name != "asyncio" or in_force().shows_texts:
        return event
    said = str(event["event"])
    known = next((problem for problem in _OF_EVENT_LOOP if said.startswith(problem)), None)
    if known is None and record.levelno < logging.ERROR:
        return event
    return {**event, "event": "task.failed", "problem": known or "an error in the event loop"}


def _bound_to_work(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    work = IN_HAND.get()
    if work is not None:
        for key, value in work.as_values().items():
            event.setdefault(key, value)
    return event


def _json() -> list[Processor]:
    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(lambda exc_info: in_force().traceback_of(exc_info)),
        _event_first,
        structlog.processors.JSONRenderer(default=_shown),
    ]


def _console(stream: TextIO) -> list[Processor]:
    return [
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        structlog.processors.ExceptionRenderer(lambda exc_info: in_force().traceback_of(exc_info)),
        _escaped,
        structlog.dev.ConsoleRenderer(
            colors=stream.isatty() and sys.platform != "win32",
            exception_formatter=structlog.dev.plain_traceback,
            pad_event_to=0,
            sort_keys=False,
        ),
    ]


def _shown(value: object) -> object:
    """What stands in JSON for a value that JSON does not have."""
    return in_force().summary(value) if isinstance(value, BaseException) else repr(value)


def _event_first(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event} | dict(event)


class _Escaped:
    """A text that the console shows in quotes, with its control characters escaped."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return repr(self._text)


def _escaped(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """No value may move the cursor or colour the terminal of whoever reads the log."""
    for key, value in event.items():
        if key == "exception":
            event[key] = "\n".join(map(_one_line, str(value).splitlines()))
        elif isinstance(value, str) and not value.isprintable():
            event[key] = _one_line(value) if key == "event" else _Escaped(value)
        elif not isinstance(value, str) and key != "exc_info" and not (shown := repr(value)).isprintable():
            event[key] = _Escaped(shown)
    return event


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines; a record that cannot be formatted becomes a line that says so, never free text."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; exceptions among its arguments say no more than their tracebacks would."""
        if isinstance(record.args, tuple) and any(isinstance(one, BaseException) for one in record.args):
            record = copy.copy(record)
            args = record.args if isinstance(record.args, tuple) else ()
            record.args = tuple(in_force().summary(one) if isinstance(one, BaseException) else one for one in args)
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        error = sys.exc_info()[1]
        if error is None or isinstance(error, OSError):  # whoever read our lines is gone; there is nobody to tell
            return
        text = f"log.failed: {in_force().summary(error)}: {record.pathname}:{record.lineno}"
        fallback = logging.LogRecord(record.name, logging.ERROR, record.pathname, record.lineno, text, (), None)
        self.stream.write(self.format(fallback) + self.terminator)


@contextmanager
def _stdlib_through(handler: logging.Handler) -> Iterator[None]:
    """Have everything written by this handler; levels are as they were again at the end."""
    root = logging.getLogger()
    handlers, root_level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in (*_CHATTY, *_TELLTALE)}
    root.handlers[:] = [handler]
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for name, old in levels.items():
            logging.getLogger(name).setLevel(old)
        root.setLevel(root_level)
        root.handlers[:] = handlers


@contextmanager
def _errors_through_logging() -> Iterator[None]:
    """Errors that nobody caught, in any thread, and those of finalizers are log events, too."""
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    sys.excepthook = _log_uncaught("process.crashed")
    threading.excepthook = lambda args: _log_error("thread.crashed", args.exc_value)
    sys.unraisablehook = lambda args: _log_error("finalizer.failed", args.exc_value)
    try:
        yield
    finally:
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


def _log_uncaught(event: str) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    return lambda _type, error, _traceback: _log_error(event, error)


def _log_error(event: str, error: BaseException | None) -> None:
    structlog.get_logger().error(event, exc_info=error)
