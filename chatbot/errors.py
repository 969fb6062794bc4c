"""Everything that can go wrong, sorted by what the caller can do about it.

An error's docstring is its explanation; the message names the value, the place and the remedy. Every error of the
package is a `ChatbotError`. Nothing here imports anything of chatbot, so that every floor may raise and catch these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final


class ChatbotError(Exception):
    """Something went wrong in chatbot; the subclasses say what can be done about it."""


class ConfigError(ChatbotError):
    """The configuration cannot be used as it stands: mend the file and start again.

    Args:
        problems: one sentence each, every one with its place (`bots.yaml:14:9: …`).
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class PluginError(ChatbotError):
    """A plugin cannot be loaded as it is written: mend the plugin; the message names file and line."""


class PluginSettingsError(PluginError):
    """A plugin's settings are not what its model says: mend them in bots.yaml.

    Args:
        place: the plugin's factory, `file:line`.
        problems: the path of each wrong setting below `settings`, and what is wrong with it.
    """

    def __init__(self, place: str, problems: Sequence[tuple[tuple[int | str, ...], str]]) -> None:
        sentences = (f"settings.{'.'.join(map(str, path))}: {what}" for path, what in problems)
        super().__init__(f"{place}: " + "; ".join(sentences))
        self.place = place
        self.problems = tuple(problems)


class StateError(ChatbotError):
    """Something was used at a time when it cannot be used; the message says when it can."""


class AbnormalExit(ChatbotError):
    """Code of a plugin ended with what is no `Exception`: SystemExit, KeyboardInterrupt, a cancellation of its own, …

    It is a failure like any other: tried again, then kept as a dead letter. To end a program that a handler runs, call
    its functions rather than its `main`; await what may be cancelled inside `try`.

    Args:
        raised: what it ended with; also the error's `__cause__`.
    """

    def __init__(self, raised: BaseException) -> None:
        super().__init__(f"{type(raised).__name__}: {text_of(raised)}".removesuffix(": "))
        self.raised = raised
        self.__cause__ = raised


def kind_of(error: BaseException) -> str:
    """Return the name of an error's class; of what is no `Exception`, the name of what was raised."""
    return type(error.raised if isinstance(error, AbnormalExit) else error).__name__


def text_of(error: BaseException) -> str:
    """Return an error's message, or what stands for it if the error cannot say it: `__str__` is a plugin's code."""
    try:
        return str.__str__(f"{error}")  # an f-string of one part is what `__str__` returned, be it a class of its own
    except BaseException as worse:
        return f"<its __str__ raises {type(worse).__name__}>"


def plain(error: BaseException) -> BaseException:
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
    """A time is further away than can be kept. A person whose message asked for it is told the message's text."""


def described(error: BaseException) -> str:
    """Return an error's class and its message."""
    text = text_of(error)
    if isinstance(error, AbnormalExit):
        return text
    return f"{kind_of(error)}: {text}" if text else kind_of(error)


class UnknownName(ChatbotError):
    """Nothing has the name or id that was given; the message says how to see what there is."""


class DialogTimeout(ChatbotError, TimeoutError):
    """No answer came in time. Raised by `talk.ask`; a dialog that does not catch it ends with a word of regret."""


class DialogCancelled(ChatbotError):
    """The person does not want to go on. Raised by `talk.ask`; a dialog that does not catch it just ends."""


class DialogDiverged(StateError):
    """A dialog's code was changed while it was under way, so that its journal does not lead anywhere any more."""


class StoreError(ChatbotError):
    """The store cannot be read or written; nothing was changed. Free the disk, mend its rights, or restore it."""


class StoreInUse(StoreError):
    """Another process holds this store; only one may. Stop the other one or name another file."""


class StoreConflict(StoreError):
    """Somebody else has changed a state since it was read; nothing was changed. Read it again, and do it over."""


class StoreTooNew(StoreError):
    """The store was written by a newer chatbot; run that version, or name another file."""


class CannotStore(StoreError):
    """This value has no stored form; keep to dataclasses, pydantic models and JSON's own types."""


class ServiceError(ChatbotError):
    """The chat service did not do what was asked.

    Args:
        message: what was asked and what the service said.
        status: the HTTP status, or None when there was no answer.
        code: the service's own error code ("Forbidden", "NotFound", …), where it gave one.
    """

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Rejected(ServiceError):
    """The service understood and refused (400, 413, 422, …); the same request will be refused again."""


class NotFound(ServiceError):
    """The thread or message does not exist, or not any more (404)."""


class Forbidden(ServiceError):
    """This user may not do that (403): usually it is not, or no longer, in the thread."""


class Unauthorized(ServiceError):
    """The token or key was not accepted (401): it is expired, revoked, or of another resource."""


class Throttled(ServiceError):
    """A quota of the service is used up (429): the request was not carried out; wait, then ask again.

    Args:
        retry_after: seconds the service asked us to wait; None when it did not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, code: str | None = None) -> None:
        super().__init__(message, status=429, code=code)
        self.retry_after = retry_after


class Unreachable(ServiceError):
    """The request certainly never reached the service (refused, DNS, TLS): repeating it is safe."""


class OutcomeUnknown(ServiceError):
    """No usable answer came (timeout, reset, 5xx): the service may or may not have carried the request out.

    Args:
        retry_after: seconds the service asked us to wait; None when it did not say.
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
    """The service answered something that is not its protocol; the message says what was expected."""
