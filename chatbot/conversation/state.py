"""State: what handlers keep from one event to the next. They ask for it by type and change its `value`.

There are four kinds: `State` of a thread, `UserState` of a person in a thread, `ProfileState` of a person in all
threads, `BotState` of the bot itself. A state holds a dataclass or a pydantic model whose fields all have defaults, and
begins with these. Annotations are read once, when plugins are loaded (`state_type_of`).

Migrations convert what an older version of a state's class has stored. They are static methods of the class itself. The
version of a class is one more than its last migration's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NoReturn, TypeAlias, TypeVar, get_args, get_origin

from chatbot.conversation.idempotency import refuse_inside_effect
from chatbot.errors import CannotStore, StateError
from chatbot.events import DialogTimedOut, Event, MessageEvent, ReadReceiptReceived, ThreadEvent, TimerFired
from chatbot.model import UserId, Value
from chatbot.stores.serialization import (
    Form,
    check_size,
    check_utf8,
    form_of,
    from_json,
    has_default,
    is_model,
    to_json,
)

Stored: TypeAlias = dict[str, Any]
"""The fields of a stored value, as JSON."""

F = TypeVar("F", bound=Callable[[Stored], Stored])

if TYPE_CHECKING:
    Static: TypeAlias = staticmethod[[Stored], Stored]
else:  # at run time it takes no parameters
    Static = staticmethod


class Migration(Static):
    """A static method that converts one version of a class to the next; see `migration`."""

    from_version: int


def migration(*, from_version: int) -> Callable[[F], F]:
    """Mark a static method of a state's class as the migration from this version to the next; the first version is 1.

    ::

        @dataclass(frozen=True)
        class Cart:
            items: dict[str, int] = field(default_factory=dict)  # was a list in version 1

            @migration(from_version=1)
            @staticmethod
            def count_items(stored: dict[str, Any]) -> dict[str, Any]:
                return {"items": dict.fromkeys(stored["items"], 1)}

    A new field with a default needs no migration. Every other change of the fields does: without one, stored states
    cannot be read, and handlers that ask for them fail.

    Args:
        from_version: the version that it converts from; each version, beginning with 1, needs one.
    """

    def mark(function: Any) -> Any:  # type checkers see a static method as the function it is made of
        if not isinstance(function, staticmethod):
            msg = f"@migration(from_version={from_version}) must decorate a @staticmethod of the state's class"
            raise TypeError(msg)
        marked = Migration(function.__func__)
        marked.from_version = from_version
        return marked

    return mark


def migrations_of(cls: type) -> list[Migration]:
    """Return the migrations of a class, in order.

    Raises:
        TypeError: one is missing, or there are two from the same version.
    """
    found = sorted(
        (member for member in vars(cls).values() if isinstance(member, Migration)),
        key=lambda migration: migration.from_version,
    )
    versions = [migration.from_version for migration in found]
    if versions != list(range(1, len(found) + 1)):
        shown = ", ".join(map(str, versions))
        msg = f"{cls.__qualname__} has migrations from versions {shown}; write one from each version, beginning with 1"
        raise TypeError(msg)
    return found


_VERSION: Final = "v"
_VALUE: Final = "value"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class StateType(Value):
    """A state that handlers can ask for: its kind and the class of its value.

    Args:
        handle: `State`, `UserState`, …
        cls: the class of its value.
        name: the name under which it is stored.
        form: encodes and decodes its value.
        migrations: from older versions, in order.
    """

    handle: type[Remembered[Any]]
    cls: type
    name: str
    form: Form
    migrations: tuple[Migration, ...]

    @property
    def id(self) -> str:
        """Identifies it among all states, also among those of the same class."""
        return f"{self.handle.__name__}:{self.name}"

    @property
    def version(self) -> int:
        """The version of the class."""
        return len(self.migrations) + 1

    def dump(self, value: object) -> str:
        """Return the stored form of a value.

        Raises:
            CannotStore: naming the field.
        """
        return to_json({_VERSION: self.version, _VALUE: self.form.encode(value, self.cls.__name__)})

    def check(self, stored: str) -> None:
        """Refuse a new value that is too large, or has half of a surrogate pair, which not every store can hold.

        Raises:
            CannotStore: names the place.
        """
        check_size(stored, f"{self.handle.__name__}[{self.cls.__name__}]")
        if "\\ud" in stored:
            check_utf8(from_json(stored)[_VALUE], self.cls.__name__)

    def is_newer(self, stored: str) -> bool:
        """Whether a stored form was written by a later version of the class."""
        version: int = from_json(stored)[_VERSION]
        return version > self.version

    def load(self, stored: str | None) -> Any:
        """Return the value of a stored form; the default value if there is none.

        Raises:
            StateError: the class has changed, and there is no migration to its current form.
        """
        if stored is None:
            return self.cls()
        whole = from_json(stored)
        version, value = whole[_VERSION], whole[_VALUE]
        if version > self.version:
            msg = (
                f"the state {self.name} was stored in version {version}, and its class is of version {self.version}:"
                " run the newer plugin, or restore its migrations"
            )
            raise StateError(msg)
        for migrate in self.migrations[version - 1 :]:
            value = migrate(value)
            if value is None or isinstance(value, Awaitable):
                msg = (
                    f"the migration {migrate.__qualname__} returned {type(value).__name__}; return the converted fields"
                )
                raise StateError(msg)
        try:
            return self.form.decode(value, self.cls.__name__)
        except CannotStore as error:
            msg = (
                f"the state {self.name} was stored by another form of its class: {error};"
                f" write a `@migration(from_version={self.version})` in {self.cls.__name__}"
            )
            raise StateError(msg) from error


def state_type_of(annotation: object) -> StateType | None:
    """Return the state that an annotation asks for; None if it is not a state.

    Raises:
        TypeError: its value cannot be stored, or has no defaults; the message says what to write instead.
    """
    handle = next((kind for kind in KINDS if annotation is kind or get_origin(annotation) is kind), None)
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
        msg = f"{cls.__name__} cannot be a state: {', '.join(missing)} has no default; give every field a default"
        raise TypeError(msg)
    form = form_of(cls, cls.__name__)
    return StateType(handle, cls, f"{cls.__module__}.{cls.__qualname__}", form, tuple(migrations_of(cls)))


def why_unavailable(handle: type[Remembered[Any]], event: type[Event]) -> str | None:
    """Return why handlers of this event cannot have this kind of state; None if they can."""
    if handle.per_thread and not issubclass(event, ThreadEvent):
        return f"{event.__name__} happens in no thread; use BotState"
    if handle.per_user and not issubclass(event, MessageEvent | ReadReceiptReceived | TimerFired):
        return f"{event.__name__} is not caused by a person; use State or BotState"
    return None


def person_of(event: Event) -> UserId | None:
    """Return the person who caused an event; None if the event names nobody."""
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
    """The base of all kinds of state.

    Args:
        value: the value; tests that call a handler directly pass it.
    """

    __slots__ = ("_value", "was_read")

    per_thread: ClassVar[bool] = False
    per_user: ClassVar[bool] = False

    def __init__(self, value: T) -> None:
        self._value = value
        self.was_read = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {type(self._value).__name__}>"

    if not TYPE_CHECKING:  # type checkers report unknown attributes by themselves

        def __getattr__(self, name: str) -> NoReturn:
            raise self._no(name)

        def __setattr__(self, name: str, value: object) -> None:
            if not hasattr(type(self), name):  # it would be lost silently
                raise self._no(name)
            object.__setattr__(self, name, value)

        def _no(self, name: str) -> AttributeError:
            kind = type(self).__name__
            message = f"a {kind} has no {name!r} of its own; its data is in `value`: write `.value.{name}`"
            return AttributeError(message, name=name, obj=self)

    @property
    def value(self) -> T:
        """The value. Replace it, or change it in place; either is committed together with the event."""
        self.was_read = True
        return self._value

    @value.setter
    def value(self, value: T) -> None:
        remedy = "return the value, and set the state after that call"
        refuse_inside_effect(f"setting a {type(self).__name__}'s value", remedy=remedy)
        self._value = value

    def reset(self, value: T) -> None:
        """Replace the value, and count it as not read."""
        self._value, self.was_read = value, False

    def peek(self) -> T:
        """Return the value without counting it as read."""
        return self._value


class State(Remembered[T]):
    """State of a thread: `async def add(ctx: Context, cart: State[Cart], item: str)`.

    `cart.value` is a `Cart()` at first, and later what the last committed handler left there. A handler that fails
    changes nothing. If another handler has committed a change of the same state meanwhile, the handler runs again.
    """

    __slots__ = ()

    per_thread = True


class UserState(Remembered[T]):
    """State of a person in a thread; otherwise as `State`."""

    __slots__ = ()

    per_thread = True
    per_user = True


class ProfileState(Remembered[T]):
    """State of a person, the same in all threads; otherwise as `State`."""

    __slots__ = ()

    per_user = True


class BotState(Remembered[T]):
    """State of the bot, the same for all threads and people; otherwise as `State`."""

    __slots__ = ()


KINDS: Final[tuple[type[Remembered[object]], ...]] = (State, UserState, ProfileState, BotState)
"""All kinds of state."""
