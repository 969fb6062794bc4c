"""How values of a declared type become JSON and come back: read off the type hints of the dataclasses, once.

Pure, and strict in both directions: `CannotStore` names the place of a value that is not of its declared type,
when it is written as when it is read. Error texts never show a text's content: it may be what somebody said.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Literal, NewType, Union, get_args, get_origin, get_type_hints

from chatbot.errors import CannotStore

EMPTY: Final[tuple[object, ...]] = (None, {}, [])
"""What is left out of a record whose field has a default."""


@dataclass(frozen=True, slots=True)
class Form:
    """How one type is stored; both functions are given the value and its place."""

    encode: Callable[[Any, str], Any]
    decode: Callable[[Any, str], Any]


class Kinds:
    """The classes that may stand where a base class is declared, each under a name that is never changed.

    Args:
        named: the classes by their names.
        kinds: forms of other base classes that may stand in their fields.
    """

    def __init__(self, named: Mapping[str, type], kinds: Mapping[type, Form] | None = None) -> None:
        self.named = named
        self._names = {cls: name for name, cls in named.items()}
        self._forms = {name: _record(cls, kinds or {}) for name, cls in named.items()}

    def encode(self, value: object, place: str) -> dict[str, Any]:
        """The stored form, with its kind."""
        name = self._names.get(type(value))
        if name is None:
            expected = "one of " + ", ".join(sorted(cls.__name__ for cls in self._names))
            raise not_of(value, place, expected)
        fields: dict[str, Any] = self._forms[name].encode(value, type(value).__name__)
        return {"kind": name, **fields}

    def decode(self, form: Any, place: str) -> Any:
        """The value of a stored form."""
        if not isinstance(form, dict):
            raise not_of(form, place, "an object with its kind")
        name = form.get("kind")
        if not isinstance(name, str) or name not in self._forms:
            msg = f"{place} has no known kind"
            raise CannotStore(msg)
        return self._forms[name].decode({key: value for key, value in form.items() if key != "kind"}, name)


def not_of(value: object, place: str, expected: str) -> CannotStore:
    """Say what was expected; of the value only its type."""
    return CannotStore(f"{place} is of type {type(value).__name__}; expected {expected}")


def _form_of(hint: Any, kinds: Mapping[type, Form]) -> Form:
    """The form of a type hint.

    Raises:
        TypeError: there is none; it would have to be added here.
    """
    if isinstance(hint, NewType):
        return _form_of(hint.__supertype__, kinds)
    if hint in PLAIN:
        return PLAIN[hint]
    if hint in kinds:
        return kinds[hint]
    if isinstance(hint, type) and is_dataclass(hint):
        return _record(hint, kinds)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _one_of({one.value: one for one in hint})
    return _generic(hint, get_origin(hint), get_args(hint), kinds)


def _generic(hint: Any, origin: Any, arguments: tuple[Any, ...], kinds: Mapping[type, Form]) -> Form:
    if origin is Literal:
        return _one_of({one: one for one in arguments})
    if origin in (Union, types.UnionType):
        forms = {_form_of(one, kinds) for one in arguments if one is not type(None)}
        if len(forms) == 1:
            (form,) = forms
            return _optional(form) if type(None) in arguments else form
    if origin is tuple and arguments[1:] == (...,):
        return _tuple(_form_of(arguments[0], kinds))
    if origin is Mapping and arguments == (str, str):
        return Form(_texts, _texts)
    msg = f"{hint} has no stored form"
    raise TypeError(msg)


def _record(cls: type, kinds: Mapping[type, Form]) -> Form:
    """The form of a dataclass: an object, its fields by their names."""
    hints = get_type_hints(cls)
    forms = {field.name: _form_of(hints[field.name], kinds) for field in fields(cls)}
    defaults = {f.name for f in fields(cls) if f.default is not MISSING or f.default_factory is not MISSING}

    def encode(value: object, place: str) -> dict[str, Any]:
        if type(value) is not cls:
            raise not_of(value, place, f"a {cls.__name__}")
        encoded = {name: form.encode(getattr(value, name), f"{place}.{name}") for name, form in forms.items()}
        return {name: one for name, one in encoded.items() if one not in EMPTY or name not in defaults}

    def decode(form: Any, place: str) -> Any:
        if not isinstance(form, dict):
            raise not_of(form, place, f"the object of a {cls.__name__}")
        if unknown := form.keys() - forms.keys():
            msg = f"{place} has unknown fields: {', '.join(sorted(unknown))}"
            raise CannotStore(msg)
        if missing := forms.keys() - form.keys() - defaults:
            msg = f"{place} lacks fields: {', '.join(sorted(missing))}"
            raise CannotStore(msg)
        return cls(**{name: forms[name].decode(value, f"{place}.{name}") for name, value in form.items()})

    return Form(encode, decode)


def _optional(form: Form) -> Form:
    return Form(
        lambda value, place: None if value is None else form.encode(value, place),
        lambda value, place: None if value is None else form.decode(value, place),
    )


def _tuple(form: Form) -> Form:
    def encode(value: object, place: str) -> list[Any]:
        if not isinstance(value, tuple):
            raise not_of(value, place, "a tuple")
        return [form.encode(one, f"{place}[{index}]") for index, one in enumerate(value)]

    def decode(value: object, place: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise not_of(value, place, "a list")
        return tuple(form.decode(one, f"{place}[{index}]") for index, one in enumerate(value))

    return Form(encode, decode)


def _one_of(choices: Mapping[Any, Any]) -> Form:
    """The form of a value out of a few, each stored as its key."""
    expected = " or ".join(repr(key) for key in choices)

    def check(value: object, place: str) -> str:
        if not isinstance(value, str):
            raise not_of(value, place, expected)
        if value not in choices:
            msg = f"{place} is {value[:40]!r}; expected {expected}"
            raise CannotStore(msg)
        return value

    return Form(lambda value, place: str(check(value, place)), lambda value, place: choices[check(value, place)])


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise not_of(value, place, "text")
    return value


def _texts(value: object, place: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise not_of(value, place, "a mapping of text to text")
    return {_text(key, f"key of {place}"): _text(item, f"{place}[{key!r}]") for key, item in value.items()}


def _integer(value: object, place: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise not_of(value, place, "an integer")
    return int(value)


def _boolean(value: object, place: str) -> bool:
    if not isinstance(value, bool):
        raise not_of(value, place, "true or false")
    return value


def _encode_time(value: object, place: str) -> str:
    if not isinstance(value, datetime):
        raise not_of(value, place, "a datetime")
    if value.tzinfo is None:
        msg = f"{place} is {value.isoformat()} without a time zone; give it one (datetime.now(UTC))"
        raise CannotStore(msg)
    return value.astimezone(UTC).isoformat()


def _decode_time(value: object, place: str) -> datetime:
    try:
        time = datetime.fromisoformat(_text(value, place))
    except ValueError as error:
        raise not_of(value, place, "a time in ISO format") from error
    if time.tzinfo is None:
        raise not_of(value, place, "a time with its zone")
    return time


PLAIN: Final[Mapping[Any, Form]] = {
    str: Form(_text, _text),
    int: Form(_integer, _integer),
    bool: Form(_boolean, _boolean),
    datetime: Form(_encode_time, _decode_time),
}
