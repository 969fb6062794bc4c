"""Log configuration for the process, and redaction of message texts.

The log has two formats: console for people, one JSON object per line for machines. This is the only module that
configures logging. structlog events, library logs, Python warnings and uncaught exceptions all pass through one
standard library handler, so with JSON every line is an object, whoever wrote it.

An exception often quotes its input: a message, a line of it, a name. No filter can recognize that, so exception texts
are logged only if their origin guarantees that they quote nobody:

* This package defined the class and raised it: these texts name places and remedies, never messages.
* It is an `OSError` with the operating system's text; the file name is left out.
* Its class is listed in bots.yaml (`log: {harmless: […]}`).

Notes, the source lines that a `SyntaxError` quotes, and the messages of exception groups are never logged. Types,
`file:line` and the stack always are, except the names of code that is in no file. `log: {texts: true}` shows all.
"""

from __future__ import annotations

import copy
import logging
import os
import socket
import ssl
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import ExcInfo, Processor

from chatbot.dispatch.arguments import BadArguments
from chatbot.dispatch.source_location import is_known_source
from chatbot.errors import AbnormalExit, ChatbotError
from chatbot.runtime.observe.log_context import CURRENT_WORK

ELISION: Final = "…"

_OURS: Final = os.path.join(str(Path(__file__).parents[1]), "")
_PYTHON_NAMES: Final = ("<module>", "<lambda>")
_MAX_GROUP_MEMBERS: Final = 15
_MAX_GROUP_DEPTH: Final = 10
_LONGEST_CHAIN: Final = 30
_MOST_LINES: Final = 2000
_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_CONTEXT: Final = "During handling of the above exception, another exception occurred:"


@dataclass(frozen=True, slots=True)
class Redaction:
    """Policy for showing exceptions in the log and on stderr.

    Args:
        shows_texts: Show every exception text in full.
        harmless: Exception classes whose texts are shown, as `package.module.Class`; built-in ones as `Class`.
    """

    shows_texts: bool = False
    harmless: frozenset[str] = frozenset()

    def traceback_of(self, exc_info: ExcInfo) -> str:
        """Return the traceback as text, redacted by this policy."""
        if self.shows_texts:
            with suppress(BaseException):  # traceback fails on a class without a module
                return "".join(traceback.format_exception(*exc_info)).rstrip("\n")
        try:
            return "\n".join(islice(self._chain(exc_info[1], set(), 0), _MOST_LINES))
        except BaseException:  # plugin classes control `__cause__` and group members
            return f"{name_of_class(exc_info[1])}: {ELISION}"

    def summary(self, error: BaseException) -> str:
        """Return an exception in one line: its text if it may be shown, otherwise its type."""
        words = self.text_of(error)
        if words and isinstance(error, ChatbotError) and words is not ELISION:
            return words
        return f"{name_of_class(error)}: {words}" if words else name_of_class(error)

    def text_of(self, error: BaseException, *, is_within: bool = False) -> str:
        """Return the text of an exception, or an ellipsis if the text may quote people.

        Args:
            error: The exception.
            is_within: Whether another exception holds it as a cause or group member. Plugin code may have put it
                there, so a class of this package alone does not prove that its text is safe.
        """
        if isinstance(error, AbnormalExit):  # its text is that of the exception a plugin raised
            words = self.text_of(error.raised, is_within=True)
            kind = name_of_class(error.raised)
            return f"{kind}: {words}" if words else kind
        try:
            text = str(error.msg) if isinstance(error, SyntaxError) else str(error)
        except BaseException:  # `__str__` may be plugin code and may raise anything
            return ELISION
        if not text or self.shows_texts or name_of_class(error) in self.harmless:
            return text
        if _is_ours(error, is_within=is_within):
            return text
        return _of_the_system(error) or ELISION

    def _chain(self, error: BaseException | None, seen: set[int], depth: int) -> Iterator[str]:
        """Yield the lines of an exception, preceded by its causes and contexts."""
        chain: list[tuple[BaseException, str]] = []
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            is_caused = error.__cause__ is not None
            chain.append((error, _CAUSE if is_caused else _CONTEXT))
            error = error.__cause__ if is_caused or error.__suppress_context__ else error.__context__
            if len(chain) == _LONGEST_CHAIN and error is not None:
                yield from (ELISION, "")  # what came before, often the same again and again
                break
        for position, (one, link) in enumerate(reversed(chain)):
            if position:
                yield from ("", link, "")
            yield from self._one(one, seen, depth, is_within=bool(depth) or position < len(chain) - 1)

    def _one(self, error: BaseException, seen: set[int], depth: int, *, is_within: bool) -> Iterator[str]:
        if error.__traceback__ is not None:
            yield "Traceback (most recent call last):"
            yield from _stack(error)
        if isinstance(error, SyntaxError) and error.lineno is not None:
            yield f'  File "{_shown_file(str(error.filename))}", line {error.lineno}'
        if isinstance(error, BaseExceptionGroup):
            yield f"{name_of_class(error)}: {ELISION} ({len(error.exceptions)} sub-exceptions)"
        else:
            words = self.text_of(error, is_within=is_within)
            first, *others = (f"{name_of_class(error)}: {words}" if words else name_of_class(error)).split("\n")
            yield from (first, *(f"    {line}" for line in others))
        yield from (ELISION for _ in getattr(error, "__notes__", None) or ())
        if isinstance(error, BaseExceptionGroup) and depth < _MAX_GROUP_DEPTH:
            for number, member in enumerate(error.exceptions[:_MAX_GROUP_MEMBERS], 1):
                yield f"  +---------------- {number} ----------------"
                yield from (f"  | {line}" for line in self._chain(member, seen, depth + 1))


class _ActiveRedaction:
    redaction = Redaction()


def active_redaction() -> Redaction:
    """Return the active redaction policy for the log and stderr."""
    return _ActiveRedaction.redaction


def activate_redaction(redaction: Redaction) -> Redaction:
    """Activate a redaction policy and return the previous one."""
    before, _ActiveRedaction.redaction = _ActiveRedaction.redaction, redaction
    return before


def name_of_class(error: BaseException) -> str:
    """Return the class name of an exception as tracebacks print it.

    Classes can be created at run time under any name, so a name that is no identifier is elided.
    """
    module, name = _module_of(error), type(error).__qualname__.replace("<locals>.", "")
    full = name if module in ("builtins", "__main__") else f"{module}.{name}"
    return full if all(part.isidentifier() for part in full.split(".")) else ELISION


def _module_of(error: BaseException) -> str:
    """Return the module of an exception's class; a class created at run time may have none, or any object as one."""
    try:
        return str(type.__dict__["__module__"].__get__(type(error)))  # bypass the metaclass, which may be plugin code
    except BaseException:
        return "builtins"


def _is_ours(error: BaseException, *, is_within: bool) -> bool:
    """Return whether this package raised the exception.

    The class alone is no proof: plugins can raise this package's classes with any text, and nest them.
    """
    if isinstance(error, BadArguments) or not isinstance(error, ChatbotError):  # BadArguments quotes user input
        return False
    if not _module_of(error).startswith("chatbot."):
        return False
    code = _raised_in(error)
    # Never raised: trusted only if no other exception holds it, because plugin code may have created a nested one.
    return not is_within if code is None else code.startswith(_OURS)


def _of_the_system(error: BaseException) -> str | None:
    """Return the operating system's error text, or None if the text does not come from it."""
    if not isinstance(error, OSError) or not isinstance(error.errno, int):
        return None
    is_network = isinstance(error, socket.gaierror | ssl.SSLError) and _module_of(error) in ("socket", "ssl")
    if error.strerror == os.strerror(error.errno) or (is_network and _is_of_python(error)):
        return f"[Errno {error.errno}] {error.strerror}"
    return None


def _is_of_python(error: BaseException) -> bool:
    """Return whether the standard library raised this."""
    code = _raised_in(error)
    return code is not None and code.startswith(os.path.dirname(os.__file__) + os.sep) and "-packages" not in code


def _raised_in(error: BaseException) -> str | None:
    """Return the file of the code that raised the exception, or None if it was never raised."""
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
    is_python_s = function in _PYTHON_NAMES or (function.startswith("__") and function.endswith("__"))
    return function if is_python_s else ELISION


LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

# These libraries log every request, or repeat what this package logs itself.
_VERBOSE_LOGGERS: Final = (
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

# These libraries warn about a failure and then raise it; the exception is logged anyway.
_DUPLICATE_LOGGERS: Final = ("azure.identity._internal",)


def resolve_format(wanted: LogFormat, stream: TextIO) -> Literal["console", "json"]:
    """Resolve `auto` for this stream: console on a terminal, JSON lines otherwise."""
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
"""Prefixes of event loop messages. What follows a prefix may quote people, so only the prefix is logged."""


class Logging:
    """Log configuration of the process, which can change while it runs.

    Args:
        stream: Where log lines are written.
    """

    def __init__(self, stream: TextIO) -> None:
        self.handler = _Handler(stream)
        self._stream = stream
        self._level = logging.INFO
        self._processors: list[Processor] = [
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            *_common(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ]

    def change(
        self,
        *,
        format: LogFormat,
        level: LogLevel,
        texts: bool = False,
        harmless: Collection[str] = (),
        bots: Mapping[str, LogLevel] | None = None,
    ) -> None:
        """Apply new settings to the lines that follow; see `logging_to` for the arguments."""
        activate_redaction(Redaction(texts, frozenset(harmless)))
        is_json = resolve_format(format, self._stream) == "json"
        renderers = _json() if is_json else _console(self._stream)
        self.handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=[_of_event_loop, *_common(), structlog.stdlib.add_logger_name],
                processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
            )
        )
        own = {bot: _number(wanted) for bot, wanted in (bots or {}).items()}
        self.handler.levels = _Levels(_number(level), own)
        # What passes here for the sake of one bot, the handler drops for all others.
        least = self._level = min([self.handler.levels.level, *own.values()])
        logging.getLogger().setLevel(least)
        for name in _VERBOSE_LOGGERS:
            logging.getLogger(name).setLevel(max(least, logging.WARNING))
        for name in _DUPLICATE_LOGGERS:
            logging.getLogger(name).setLevel(max(least, logging.ERROR))

    def restore(self) -> list[str]:
        """Undo what code of plugins did to the log of the process; return what was changed.

        Many programs configure structlog or logging when they are imported. Then what people say would get into the
        log, unredacted, or chatbot's own lines would be lost. Handlers that are added are left alone.
        """
        changed: list[str] = []
        if structlog.get_config()["processors"] is not self._processors:
            self.configure_structlog()
            changed.append("the configuration of structlog")
        root = logging.getLogger()
        if self.handler not in root.handlers:
            root.addHandler(self.handler)
            root.setLevel(self._level)
            changed.append("the handlers of logging")
        if logging.root.manager.disable >= self._level:
            logging.disable(logging.NOTSET)
            changed.append("logging, which was disabled")
        return changed

    def configure_structlog(self) -> None:
        """Send the lines of structlog to the standard library's logging, redacted."""
        structlog.configure(
            processors=self._processors,
            wrapper_class=structlog.stdlib.BoundLogger,
            logger_factory=structlog.stdlib.LoggerFactory(),
            # A cached logger would keep this configuration after the block.
            cache_logger_on_first_use=False,
        )


@contextmanager
def logging_to(
    stream: TextIO,
    *,
    format: LogFormat = "auto",
    level: LogLevel = "info",
    texts: bool = False,
    harmless: Collection[str] = (),
    bots: Mapping[str, LogLevel] | None = None,
) -> Iterator[Logging]:
    """Send every log line of the process to `stream`, and restore the previous configuration at the end.

    Each line carries the current `LogContext`: bot, thread, message, event, handler, attempt and trace, where known.

    Args:
        stream: Usually `sys.stderr`.
        format: `auto` is console on a terminal and JSON lines otherwise.
        level: The minimum level. Verbose libraries are logged from `warning` on.
        texts: Show exception texts, which may quote people.
        harmless: Exception classes whose texts are always shown; see `Redaction`.
        bots: The minimum levels of single bots, by name.
    """
    ours = Logging(stream)
    redaction = active_redaction()
    with _stdlib_through(ours.handler), _errors_through_logging():
        ours.change(format=format, level=level, texts=texts, harmless=harmless, bots=bots)
        before = structlog.get_config() if structlog.is_configured() else None
        ours.configure_structlog()
        try:
            yield ours
        finally:
            activate_redaction(redaction)
            structlog.reset_defaults()
            if before is not None:
                structlog.configure(**before)


def _common() -> list[Processor]:
    return [structlog.stdlib.add_log_level, _add_log_context, _redacted, structlog.processors.StackInfoRenderer()]


def _redacted(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Redact exceptions that are logged as values, at any depth, as in tracebacks."""
    for key, value in event.items():
        if key != "exc_info" and isinstance(value, BaseException | list | tuple | dict):
            event[key] = _redacted_value(value)
    return event


def _redacted_value(value: object) -> object:
    if isinstance(value, BaseException):
        return active_redaction().summary(value)
    if isinstance(value, list | tuple):
        return [_redacted_value(item) for item in value]
    return {key: _redacted_value(item) for key, item in value.items()} if isinstance(value, dict) else value


def _of_event_loop(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Redact event loop messages about tasks nobody awaits: they quote exceptions, arguments and task names."""
    record: logging.LogRecord | None = event.get("_record")
    if record is None or record.name != "asyncio" or active_redaction().shows_texts:
        return event
    said = str(event["event"])
    known = next((problem for problem in _OF_EVENT_LOOP if said.startswith(problem)), None)
    if known is None and record.levelno < logging.ERROR:
        return event
    return {**event, "event": "task.failed", "problem": known or "an error in the event loop"}


def _add_log_context(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    work = CURRENT_WORK.get()
    if work is not None:
        for key, value in work.as_values().items():
            # Fields that the log call sets itself take precedence.
            event.setdefault(key, value)
    return event


def _json() -> list[Processor]:
    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(lambda exc_info: active_redaction().traceback_of(exc_info)),
        _event_first,
        structlog.processors.JSONRenderer(default=_shown),
    ]


def _console(stream: TextIO) -> list[Processor]:
    return [
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        structlog.processors.ExceptionRenderer(lambda exc_info: active_redaction().traceback_of(exc_info)),
        _escaped,
        structlog.dev.ConsoleRenderer(
            colors=stream.isatty() and sys.platform != "win32",
            exception_formatter=structlog.dev.plain_traceback,
            pad_event_to=0,
            sort_keys=False,
        ),
    ]


def _shown(value: object) -> object:
    """Return the JSON stand-in for a value that JSON cannot represent."""
    return active_redaction().summary(value) if isinstance(value, BaseException) else repr(value)


def _event_first(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event} | dict(event)


class _Escaped:
    """Text that the console renders in quotes, with control characters escaped."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return repr(self._text)


def _escaped(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape control characters, so that no value can move the cursor or color the reader's terminal."""
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


@dataclass(frozen=True, slots=True)
class _Levels:
    """The minimum level of the process, and those of single bots."""

    level: int = logging.NOTSET
    bots: Mapping[str, int] = field(default_factory=dict)

    def let_pass(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be logged. Those of our own name their bot; in others the work in hand does."""
        if not self.bots:
            return True
        bot = record.msg.get("bot") if isinstance(record.msg, dict) else None
        if bot is None and (work := CURRENT_WORK.get()) is not None:
            bot = work.as_values().get("bot")
        return record.levelno >= self.bots.get(str(bot), self.level)


def _number(level: LogLevel) -> int:
    return int(logging.getLevelNamesMapping()[level.upper()])


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether a stream leads into systemd's journal, which `JOURNAL_STREAM` names as `DEVICE:INODE`."""
    wanted = environ.get("JOURNAL_STREAM", "")
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no file, or closed
        return False
    return wanted == f"{found.st_dev}:{found.st_ino}"


def _priority(level: int) -> int:
    """Return the syslog priority of a level."""
    if level >= logging.CRITICAL:
        return 2
    if level >= logging.ERROR:
        return 3
    if level >= logging.WARNING:
        return 4
    return 6 if level >= logging.INFO else 7


class _Handler(logging.StreamHandler[TextIO]):
    """Log handler that replaces a record it cannot format with a fixed line, never with free text.

    In the journal each line begins with its priority (`<4>`), which journald takes off and stores.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.levels = _Levels()
        self._is_journal = is_journal(stream, os.environ)

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop what is below the level of its bot."""
        return self.levels.let_pass(record) and bool(super().filter(record))

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or in the journal the lines with their priority."""
        text = super().format(record)
        if not self._is_journal:
            return text
        return "\n".join(f"<{_priority(record.levelno)}>{line}" for line in text.split("\n"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; exceptions among its arguments are redacted as in tracebacks."""
        if isinstance(record.args, tuple) and any(isinstance(one, BaseException) for one in record.args):
            record = copy.copy(record)
            args = record.args if isinstance(record.args, tuple) else ()
            record.args = tuple(
                active_redaction().summary(one) if isinstance(one, BaseException) else one for one in args
            )
        if self.stream.closed:  # by code of a plugin, which cannot close the descriptor so
            with suppress(OSError):
                self.stream = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        error = sys.exc_info()[1]
        if error is None or isinstance(error, OSError):  # the reader of the stream is gone
            return
        text = f"log.failed: {active_redaction().summary(error)}: {record.pathname}:{record.lineno}"
        fallback = logging.LogRecord(record.name, logging.ERROR, record.pathname, record.lineno, text, (), None)
        with suppress(OSError, ValueError):  # whoever logs must not fail of it
            self.stream.write(self.format(fallback) + self.terminator)


@contextmanager
def _stdlib_through(handler: logging.Handler) -> Iterator[None]:
    """Route all standard logging through this handler, and restore handlers and levels at the end."""
    root = logging.getLogger()
    handlers, root_level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in (*_VERBOSE_LOGGERS, *_DUPLICATE_LOGGERS)}
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
    """Log uncaught exceptions of all threads, and exceptions of finalizers."""
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
