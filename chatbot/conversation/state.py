"""State: what handlers remember from one event to the next. They ask for it by type and change its `value`.

Four kinds, by whose it is: `State` of a thread, `UserState` of a person in a thread, `ProfileState` of a person in
all threads, `BotState` of the bot itself. What it holds is a dataclass or a pydantic model that can be made without
arguments: that is where it begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Generic, NoReturn, TypeVar

from chatbot.conversation.once import refuse_inside_effect

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
