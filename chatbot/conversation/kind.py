"""What a parameter like `cart: State[Cart]` asks for: whose state, under which name, and how its value is stored.

Pure; read once, when plugins are loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final, get_args, get_origin

from chatbot.conversation.migrations import Migration, migrations_of
from chatbot.conversation.state import KINDS, Remembered
from chatbot.errors import CannotStore, StateError
from chatbot.events import DialogTimedOut, Event, MessageEvent, ReadReceiptReceived, ThreadEvent, TimerFired
from chatbot.model import UserId
from chatbot.stores.codec import check_utf8
from chatbot.stores.forms import Form
from chatbot.stores.value_forms import check_size, from_json, to_json
from chatbot.stores.values import form_of, has_default, is_model

_VERSION: Final = "v"
_VALUE: Final = "value"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of state.

    Args:
        handle: `State`, `UserState`, …
        cls: the class of its value.
        name: what it is stored under.
        form: how its value is stored.
        migrations: from older versions, in order.
    """

    handle: type[Remembered[Any]]
    cls: type
    name: str
    form: Form
    migrations: tuple[Migration, ...]

    @property
    def id(self) -> str:
        """Tells it from all other kinds, also of the same class."""
        return f"{self.handle.__name__}:{self.name}"

    @property
    def version(self) -> int:
        """The version of the class."""
        return len(self.migrations) + 1

    def dump(self, value: object) -> str:
        """The stored form of a value.

        Raises:
            CannotStore: naming the field.
        """
        return to_json({_VERSION: self.version, _VALUE: self.form.encode(value, self.cls.__name__)})

    def check(self, stored: str) -> None:
        """Refuse a new value that has half of a surrogate pair, which not every store holds, or that is too large.

        Raises:
            CannotStore: it has, or is; names the place.
        """
        check_size(stored, f"{self.handle.__name__}[{self.cls.__name__}]")
        if "\\ud" in stored:
            check_utf8(from_json(stored)[_VALUE], self.cls.__name__)

    def load(self, stored: str | None) -> Any:
        """The value of a stored form; the first one if there is none.

        Raises:
            StateError: the class has changed, and no migration leads to it.
        """
        if stored is None:
            return self.cls()
        whole = from_json(stored)
        version, value = whole[_VERSION], whole[_VALUE]
        if version > self.version:
            msg = (
                f"the state {self.name} was stored in version {version}, and its class is of version {self.version}:"
                " run the newer plugin, or put its migrations back"
            )
            raise StateError(msg)
        for migrate in self.migrations[version - 1 :]:
            value = migrate(value)
        try:
            return self.form.decode(value, self.cls.__name__)
        except CannotStore as error:
            msg = (
                f"the state {self.name} was stored by another form of its class: {error};"
                f" write a `@migration(from_version={self.version})` in {self.cls.__name__}"
            )
            raise StateError(msg) from error


def kind_of(annotation: object) -> Kind | None:
    """The kind of state an annotation asks for; None if it asks for none.

    Raises:
        TypeError: it does, but the value cannot be stored, or has no beginning; says what would do.
    """
    handle = next((one for one in KINDS if annotation is one or get_origin(annotation) is one), None)
    if handle is None:
        return None
    name = handle.__name__
    arguments = get_args(annotation)
    if not arguments:
        msg = f"{name} does not say what it holds; write `{name}[Cart]`, where Cart is a dataclass or a pydantic model"
        raise TypeError(msg)
    cls = arguments[0]
    if not isinstance(cls, type) or get_args(cls) or not (is_dataclass(cls) or is_model(cls)):
        shown = cls.__name__ if isinstance(cls, type) and not get_args(cls) else str(cls)
        msg = f"{name}[{shown}] must hold a dataclass or a pydantic model; make one with a field of that type"
        raise TypeError(msg)
    missing = _without_default(cls)
    if missing:
        msg = f"{cls.__name__} cannot begin: {', '.join(missing)} has no default; give every field of a state one"
        raise TypeError(msg)
    form = form_of(cls, cls.__name__)
    return Kind(handle, cls, f"{cls.__module__}.{cls.__qualname__}", form, tuple(migrations_of(cls)))


def misfit(handle: type[Remembered[Any]], event: type[Event]) -> str | None:
    """Why handlers of this event cannot have this kind of state; None if they can."""
    if handle.per_thread and not issubclass(event, ThreadEvent):
        return f"{event.__name__} happens in no thread; use BotState"
    if handle.per_user and not issubclass(event, MessageEvent | ReadReceiptReceived | TimerFired):
        return f"{event.__name__} is nobody's doing; use State or BotState"
    return None


def person_of(event: Event) -> UserId | None:
    """Whose doing an event is, as far as it says."""
    match event:
        case MessageEvent():
            return event.message.sender or event.message.initiator
        case ReadReceiptReceived():
            return event.receipt.reader
        case TimerFired():
            return event.caused_by
        case DialogTimedOut():
            return event.user
        case _:
            return None


def _without_default(cls: Any) -> list[str]:
    if is_model(cls):
        return [name for name, field in cls.model_fields.items() if field.is_required()]
    return [field.name for field in fields(cls) if not has_default(field)]
