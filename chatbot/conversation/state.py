"""State: what handlers keep from one event to the next. They ask for it by type and change its `value`.

There are four kinds, by whose it is: `State` of a thread, `UserState` of a person in a thread, `ProfileState` of a
person in all threads, `BotState` of the bot itself. A state holds a dataclass or a pydantic model that can be made
without arguments: that is where it begins. Annotations are read once, when plugins are loaded (`state_type_of`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NoReturn, TypeVar, get_args, get_origin

from chatbot.conversation.idempotency import refuse_inside_effect
from chatbot.conversation.migrations import Migration, migrations_of
from chatbot.errors import CannotStore, StateError
from chatbot.events import DialogTimedOut, Event, MessageEvent, ReadReceiptReceived, ThreadEvent, TimerFired
from chatbot.model import UserId
from chatbot.stores.codec import check_utf8
from chatbot.stores.serialization import Form, check_size, form_of, from_json, has_default, is_model, to_json

_VERSION: Final = "v"
_VALUE: Final = "value"


@dataclass(frozen=True, slots=True)
class StateType:
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

    def is_newer(self, stored: str) -> bool:
        """Whether a stored form was written by a later version of the class."""
        version: int = from_json(stored)[_VERSION]
        return version > self.version

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


def state_type_of(annotation: object) -> StateType | None:
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
    return StateType(handle, cls, f"{cls.__module__}.{cls.__qualname__}", form, tuple(migrations_of(cls)))


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


T = TypeVar("T")


class Remembered(Generic[T]):
    """Something a handler remembers: the base of all kinds of state.

    Args:
        value: what it holds; for tests that call a handler plainly.
    """

    __slots__ = ("_value", "was_read")

    per_thread: ClassVar[bool] = False
    per_user: ClassVar[bool] = False

    def __init__(self, value: T) -> None:
        self._value = value
        self.was_read = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {type(self._value).__name__}>"

    if not TYPE_CHECKING:  # type checkers find that by themselves

        def __getattr__(self, name: str) -> NoReturn:
            raise self._no(name)

        def __setattr__(self, name: str, value: object) -> None:
            if not hasattr(type(self), name):  # what would be lost in silence
                raise self._no(name)
            object.__setattr__(self, name, value)

        def _no(self, name: str) -> AttributeError:
            kind = type(self).__name__
            message = f"a {kind} has no {name!r} of its own; what it holds is its value: write `.value.{name}`"
            return AttributeError(message, name=name, obj=self)

    @property
    def value(self) -> T:
        """What is remembered. Replace it, or change it in place: either is committed together with the event."""
        self.was_read = True
        return self._value

    @value.setter
    def value(self, value: T) -> None:
        remedy = "return what it needs, and set the state behind that"
        refuse_inside_effect(f"setting a {type(self).__name__}'s value", remedy=remedy)
        self._value = value

    def reset(self, value: T) -> None:
        """Begin anew with this value, as if nobody had read it."""
        self._value, self.was_read = value, False

    def peek(self) -> T:
        """The value, for whoever commits it: not counted as read."""
        return self._value


class State(Remembered[T]):
    """What a bot remembers of a thread: `async def add(ctx: Context, cart: State[Cart], item: str)`.

    `cart.value` is a `Cart()` until it is changed, and then what the last committed handler left there. A handler
    that fails changes nothing; one that finds, at its end, that another one has changed the same state, runs again.
    """

    __slots__ = ()

    per_thread = True


class UserState(Remembered[T]):
    """What a bot remembers of a person in a thread; otherwise as `State`."""

    __slots__ = ()

    per_thread = True
    per_user = True


class ProfileState(Remembered[T]):
    """What a bot remembers of a person, the same in all threads; otherwise as `State`."""

    __slots__ = ()

    per_user = True


class BotState(Remembered[T]):
    """What a bot remembers beyond all threads and people; otherwise as `State`."""

    __slots__ = ()


KINDS: Final[tuple[type[Remembered[object]], ...]] = (State, UserState, ProfileState, BotState)
"""All that handlers may ask for."""
