"""The errors of the package, by what the caller can do about them.

An error's docstring explains it; its message names the value, the place and the remedy. Every error of the package is a
`ChatbotError`. This module imports nothing of chatbot, so that every layer can raise and catch its errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final


class ChatbotError(Exception):
    """The base of all errors of chatbot."""


class ConfigError(ChatbotError):
    """The configuration is not valid. Correct the file and start again.

    Args:
        problems: one sentence each, with its place (`bots.yaml:14:9: …`).
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class PluginError(ChatbotError):
    """A plugin cannot be loaded. Correct the plugin; the message names file and line."""


class PluginSettingsError(PluginError):
    """A plugin's settings do not match its model. Correct them in bots.yaml.

    Args:
        place: the plugin's factory, `file:line`.
        problems: the path of each wrong setting below `settings`, and the problem.
    """

    def __init__(self, place: str, problems: Sequence[tuple[tuple[int | str, ...], str]]) -> None:
        sentences = (f"settings.{'.'.join(map(str, path))}: {what}" for path, what in problems)
        super().__init__(f"{place}: " + "; ".join(sentences))
        self.place = place
        self.problems = tuple(problems)


class StateError(ChatbotError):
    """Something was used in a state in which it cannot be used; the message says when it can."""


class AbnormalExit(ChatbotError):
    """Code of a plugin raised something other than an `Exception`: SystemExit, KeyboardInterrupt, its own cancellation.

    It is a failure like any other: it is retried, then the event becomes a dead letter. If a handler runs a program,
    call the program's functions rather than its `main`; await what may be canceled inside `try`.

    Args:
        raised: what the code raised; also the error's `__cause__`.
    """

    def __init__(self, raised: BaseException) -> None:
        super().__init__(f"{type(raised).__name__}: {text_of(raised)}".removesuffix(": "))
        self.raised = raised
        self.__cause__ = raised


def kind_of(error: BaseException) -> str:
    """Return the name of an error's class; for an `AbnormalExit`, of the class of what was raised."""
    return type(error.raised if isinstance(error, AbnormalExit) else error).__name__


def text_of(error: BaseException) -> str:
    """Return an error's message, or a placeholder if its `__str__`, which may be a plugin's code, fails."""
    try:
        return str.__str__(f"{error}")  # an f-string of one part is what `__str__` returned, be it a class of its own
    except BaseException as worse:
        return f"<its __str__ raises {type(worse).__name__}>"


def plain_error(error: BaseException) -> BaseException:
    """Return an error that everybody can handle: a class of a plugin may have its own idea of what Python keeps in an
    error, such as a `__traceback__` that raises. It is replaced by one of the same name and text.
    """
    kind = type(error)
    if not (_overrides(type(kind), _OF_CLASSES, type) or _overrides(kind, _OF_ERRORS, BaseException)):
        return error
    try:
        name = str.__str__(type.__dict__["__name__"].__get__(kind))
        copy: BaseException = type(name, (Exception,), {"__module__": "__main__"})(text_of(error))
    except BaseException:  # not even its class has a name
        copy = ChatbotError(text_of(error))
    return copy.with_traceback(BaseException.__dict__["__traceback__"].__get__(error))


_OF_ERRORS: Final = frozenset(
    ("__cause__", "__class__", "__context__", "__getattribute__", "__suppress_context__", "__traceback__")
) | {"exceptions", "with_traceback"}
_OF_CLASSES: Final = frozenset(("__getattribute__", "__mro__", "__name__"))


def _overrides(kind: type, names: frozenset[str], base: type) -> bool:
    """Return whether a class, or one between it and Python's own, defines one of these names."""
    for part in type.__dict__["__mro__"].__get__(kind):
        if part is base:
            return False
        if part is not BaseExceptionGroup and not names.isdisjoint(type.__dict__["__dict__"].__get__(part)):
            return True
    return False


class TimeTooFar(ChatbotError, ValueError):
    """A time is too far in the future to be stored. If a person's message asked for it, they get the error's text."""


def described(error: BaseException) -> str:
    """Return an error's class and its message."""
    text = text_of(error)
    if isinstance(error, AbnormalExit):
        return text
    return f"{kind_of(error)}: {text}" if text else kind_of(error)


class UnknownName(ChatbotError):
    """There is nothing with the given name or id; the message says how to list what exists."""


class DialogTimeout(ChatbotError, TimeoutError):
    """No answer came in time. Raised by `talk.ask`; a dialog that does not catch it ends and says so."""


class DialogCancelled(ChatbotError):
    """The person cancelled the dialog. Raised by `talk.ask`; a dialog that does not catch it ends."""


class DialogDiverged(StateError):
    """A dialog's code was changed while it was in progress, so that its journal cannot be replayed."""


class StoreError(ChatbotError):
    """The store cannot be read or written; nothing was changed. Free disk space, correct its rights, or restore it."""


class StoreInUse(StoreError):
    """Another process has this store open, and only one can. Stop the other process or name another file."""


class NotOwner(StoreError):
    """Another process owns the thread, or may; nothing was changed. It handles what comes in the thread."""


class StoreConflict(StoreError):
    """A state was changed by another commit since it was read; nothing was changed. Read it again and retry."""


class StoreTooNew(StoreError):
    """The store was written by a newer chatbot; run that version, or name another file."""


class CannotStore(StoreError):
    """A value cannot be stored. Use dataclasses, pydantic models and the types of JSON."""


class ServiceError(ChatbotError):
    """A request to the chat service failed.

    Args:
        message: the request and the answer of the service.
        status: the HTTP status; None if there was no answer.
        code: the service's own error code ("Forbidden", "NotFound", …), if it gave one.
    """

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Rejected(ServiceError):
    """The service refused the request (400, 413, 422, …), and would refuse it again."""


class NotFound(ServiceError):
    """The thread or message does not exist, or was deleted (404)."""


class Forbidden(ServiceError):
    """The user is not allowed to do this (403), usually because it is not in the thread."""


class Unauthorized(ServiceError):
    """The token or key was not accepted (401): it has expired, was revoked, or belongs to another resource."""


class Throttled(ServiceError):
    """A quota of the service is used up (429). The request was not carried out; wait, then retry.

    Args:
        retry_after: seconds to wait, as the service asked; None if it did not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, code: str | None = None) -> None:
        super().__init__(message, status=429, code=code)
        self.retry_after = retry_after


class Unreachable(ServiceError):
    """The request did not reach the service (connection refused, DNS, TLS), so a retry is safe."""


class OutcomeUnknown(ServiceError):
    """There was no usable answer (timeout, reset, 5xx), so the request may or may not have been carried out.

    Args:
        retry_after: seconds to wait, as the service asked; None if it did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code)
        self.retry_after = retry_after


class ProtocolError(ServiceError):
    """The service's answer does not follow its protocol; the message says what was expected."""
