"""Serialization of values to JSON text and back, driven by type hints. Performs no I/O.

Strict in both directions. A type without a stored form is rejected when its form is requested, which is when a plugin
is loaded. A value that is not of its declared type raises `CannotStore`, which names its place, on writing and on
reading. Errors never quote the content of a text, because it may be part of a conversation.

There are two layouts, and the stored bytes of both must never change, because existing stores contain them. Actions and
events (`Kinds`) are defined by chatbot: enums are stored by value, and fields with an empty default value are omitted.
Types of plugin authors (`form_of`) may be anything in `STORABLE`: enums by name, unions with a tag, every field.

msgspec is not used, although it is three times as fast on an event (6 instead of 18 µs): it neither writes nor reads
lone surrogates, which stored events contain ASCII-escaped, it does not check the values that it writes, and it stores
times, durations, sets and unions differently.
"""

from __future__ import annotations

import json
import math
import sys
import types
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NewType, Union, get_args, get_origin, get_type_hints

from chatbot.errors import CannotStore
from chatbot.model import Value

if TYPE_CHECKING:
    from pydantic import BaseModel

EMPTY: Final[tuple[object, ...]] = (None, {}, [])
"""Values omitted from a record if the field has a default."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Form(Value):
    """The stored form of a type: functions that encode and decode a value, given its place for errors."""

    encode: Callable[[Any, str], Any]
    decode: Callable[[Any, str], Any]


def wrong_type(value: object, place: str, expected: str) -> CannotStore:
    """Return an error that states the expected type and the type of the value, but not the value."""
    return CannotStore(f"{place} is of type {type(value).__name__}; expected {expected}")


class Kinds:
    """The subclasses of a base class, each stored under a name that must never change.

    Args:
        named: the classes by their stored names.
        kinds: the forms of other base classes that occur in their fields.
    """

    def __init__(self, named: Mapping[str, type], kinds: Mapping[Any, Form] | None = None) -> None:
        self.named = named
        self._names = {cls: name for name, cls in named.items()}
        forms = _Forms(kinds or {})
        self._forms = {name: forms.of(cls, cls.__name__) for name, cls in named.items()}

    def encode(self, value: object, place: str) -> dict[str, Any]:
        """Encode a value together with its kind."""
        name = self._names.get(type(value))
        if name is None:
            expected = "one of " + ", ".join(sorted(cls.__name__ for cls in self._names))
            raise wrong_type(value, place, expected)
        fields: dict[str, Any] = self._forms[name].encode(value, type(value).__name__)
        return {"kind": name, **fields}

    def decode(self, form: Any, place: str) -> Any:
        """Decode the stored form of a value."""
        if not isinstance(form, dict):
            raise wrong_type(form, place, "an object with its kind")
        name = form.get("kind")
        if not isinstance(name, str) or name not in self._forms:
            msg = f"{place} has no known kind"
            raise CannotStore(msg)
        return self._forms[name].decode({key: value for key, value in form.items() if key != "kind"}, name)


STORABLE: Final = (
    "dataclasses, pydantic models, str, int, float, bool, bytes, Decimal, date, datetime, timedelta, UUID, Enum,"
    " Literal, list, tuple, set, dict, unions of these, and Any for plain JSON"
)
"""The types that have a stored form, for error messages."""


def form_of(hint: Any, place: str) -> Form:
    """Return the stored form of a type.

    Args:
        hint: the type, as in an annotation.
        place: its name in errors, such as `Cart`.

    Raises:
        TypeError: the type has no stored form; the text names the field and the supported types.
    """
    return _Forms().of(hint, place)


def is_model(hint: Any) -> bool:
    """Return whether a type is a pydantic model; works without pydantic installed."""
    return isinstance(hint, type) and hasattr(hint, "__pydantic_validator__") and hasattr(hint, "model_validate")


class _Forms:
    """Builds forms; supports recursive dataclasses.

    Args:
        kinds: the forms of base classes in the layout of actions and events; None for the layout of authors' types.
    """

    def __init__(self, kinds: Mapping[Any, Form] | None = None) -> None:
        self._is_own = kinds is not None
        self._kinds = kinds or {}
        self._known: dict[type, Form] = {}

    def of(self, hint: Any, place: str) -> Form:
        if get_origin(hint) is Annotated:
            return self.of(get_args(hint)[0], place)
        if isinstance(hint, NewType):
            return self.of(hint.__supertype__, place)
        if hint in self._kinds:
            return self._kinds[hint]
        if isinstance(hint, type) and (scalar := _scalar_form(hint)) is not None:
            return scalar
        if hint is Any or hint is object:
            return JSON
        if isinstance(hint, type) and not get_args(hint):
            return self._of_class(hint, place)
        return self._generic(hint, get_origin(hint), get_args(hint), place)

    def _of_class(self, cls: type, place: str) -> Form:
        if issubclass(cls, Enum):
            if self._is_own:
                return _text_choice_form({member.value: member for member in cls})
            return choice_form({member.name: member for member in cls})
        if is_model(cls):
            return _model(cls)
        if is_dataclass(cls):
            if cls not in self._known:
                self._known[cls] = self._late(cls)  # a field may be of the same class
                self._known[cls] = self._record(cls, place)
            return self._known[cls]
        raise _no_form(cls, place)

    def _late(self, cls: type) -> Form:
        known = self._known
        return Form(
            lambda value, place: known[cls].encode(value, place), lambda value, place: known[cls].decode(value, place)
        )

    def _generic(self, hint: Any, origin: Any, arguments: tuple[Any, ...], place: str) -> Form:
        if origin is Literal:
            if self._is_own:
                return _text_choice_form({choice: choice for choice in arguments})
            return choice_form({repr(choice): choice for choice in arguments})
        if origin in (Union, types.UnionType):
            return self._union(arguments, place)
        if origin in (list, Sequence):
            return sequence_form(self.of(arguments[0], f"{place}[]"), list)
        if origin in (set, frozenset):
            return set_form(self.of(arguments[0], f"{place}[]"), origin)
        if origin is tuple and arguments[1:] == (...,):
            return sequence_form(self.of(arguments[0], f"{place}[]"), tuple)
        if origin is tuple:
            return tuple_form([self.of(item, f"{place}[{index}]") for index, item in enumerate(arguments)])
        if self._is_own and origin is Mapping and arguments == (str, str):
            return Form(_texts, _texts)  # errors may show the key: it is chosen by the author, not by a user
        if origin in (dict, Mapping):
            return mapping_form(self.of(arguments[0], f"a key of {place}"), self.of(arguments[1], f"{place}[]"))
        raise _no_form(hint, place)

    def _union(self, arguments: tuple[Any, ...], place: str) -> Form:
        others = [alternative for alternative in arguments if alternative is not type(None)]
        if len(others) == 1:
            form = self.of(others[0], place)
        else:
            form = tagged_form({_tag(alternative): self.of(alternative, place) for alternative in others})
        return optional_form(form) if len(others) < len(arguments) else form

    def _record(self, cls: type, place: str) -> Form:
        try:
            hints = get_type_hints(cls)
        except NameError as error:
            msg = f"the annotations of {place} cannot be resolved: there is no {error.name!r} in its module"
            raise TypeError(msg) from error
        forms = {}
        for field in fields(cls):
            if not field.init:
                msg = f"{place}.{field.name} is a field with init=False, which cannot be stored; make it a property"
                raise TypeError(msg)
            forms[field.name] = self.of(hints[field.name], f"{place}.{field.name}")
        return _object_form(cls, forms, omits_empty=self._is_own)


def has_default(field: Field[Any]) -> bool:
    """Return whether a dataclass field is optional in the constructor."""
    return field.default is not MISSING or field.default_factory is not MISSING


def _no_form(hint: Any, place: str) -> TypeError:
    name = hint.__qualname__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
    return TypeError(f"{place} is {name}, which cannot be stored; use {STORABLE}")


def _tag(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


# ── values ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise wrong_type(value, place, "text")
    return value


def _texts(value: object, place: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise wrong_type(value, place, "a mapping of text to text")
    for key, item in value.items():
        _text(key, f"key of {place}")
        _text(item, f"{place}[{key!r}]")
    return dict(value)


def _integer(value: object, place: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(value, place, "an integer")
    return int(value)


def _boolean(value: object, place: str) -> bool:
    if not isinstance(value, bool):
        raise wrong_type(value, place, "true or false")
    return value


def _encode_time(value: object, place: str) -> str:
    if not isinstance(value, datetime):
        raise wrong_type(value, place, "a datetime")
    if value.tzinfo is None:
        msg = f"{place} is {value.isoformat()} without a time zone; give it one (datetime.now(UTC))"
        raise CannotStore(msg)
    return value.astimezone(UTC).isoformat()


def _decode_time(value: object, place: str) -> datetime:
    try:
        time = datetime.fromisoformat(_text(value, place))
    except ValueError as error:
        raise wrong_type(value, place, "a time in ISO format") from error
    if time.tzinfo is None:
        raise wrong_type(value, place, "a time with its zone")
    return time


PLAIN: Final[Mapping[Any, Form]] = {
    str: Form(_text, _text),
    int: Form(_integer, _integer),
    bool: Form(_boolean, _boolean),
    datetime: Form(_encode_time, _decode_time),
}


def _json(value: object, place: str) -> Any:
    """Return plain JSON unchanged; reject values that would not be equal after decoding."""
    if value is None or isinstance(value, bool) or type(value) in (str, int):
        return value
    if type(value) is float:
        return _float(value, place)
    if type(value) is list:
        return [_json(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if type(value) is dict and all(type(key) is str for key in value):
        return {key: _json(item, f"{place}[…]") for key, item in value.items()}
    raise wrong_type(value, place, "None, text, a number, a list or a dict with texts as keys")


def _float(value: object, place: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong_type(value, place, "a number")
    if not math.isfinite(value):
        msg = f"{place} is {value}, which JSON cannot hold; use None"
        raise CannotStore(msg)
    return float(value)


def _scalar(cls: type, encode: Callable[[Any], str | int], decode: Callable[[Any], Any]) -> Form:
    """Return the form of a type whose values are JSON strings or numbers."""

    def checked(value: object, place: str) -> str | int:
        if type(value) is not cls:
            raise wrong_type(value, place, f"a {cls.__name__}")
        return encode(value)

    def read(form: Any, place: str) -> Any:
        try:
            return decode(form)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise wrong_type(form, place, f"the stored form of a {cls.__name__}") from error

    return Form(checked, read)


JSON: Final = Form(_json, _json)

SCALARS: Final[Mapping[type, Form]] = {
    **PLAIN,
    float: Form(_float, _float),
    bytes: _scalar(bytes, lambda value: b64encode(value).decode(), lambda form: b64decode(form, validate=True)),
    date: _scalar(date, date.isoformat, date.fromisoformat),
    timedelta: _scalar(
        timedelta, lambda value: value // timedelta(microseconds=1), lambda form: timedelta(microseconds=form)
    ),
}

_LAZY_SCALARS: Final = {"decimal": "Decimal", "uuid": "UUID"}
"""Modules and their classes that are stored as text. A program whose annotations name such a class has imported it."""


def _scalar_form(cls: type) -> Form | None:
    if cls in SCALARS:
        return SCALARS[cls]
    for module, name in _LAZY_SCALARS.items():
        if (loaded := sys.modules.get(module)) is not None and cls is getattr(loaded, name):
            return _scalar(cls, str, cls)
    return None


# ── choices, containers and classes ───────────────────────────────────────────────────────────────────────────────────


def _text_choice_form(choices: Mapping[Any, Any]) -> Form:
    """Return the form of one of several texts, or of the values they stand for; stored as the text."""
    expected = " or ".join(repr(key) for key in choices)

    def check(value: object, place: str) -> str:
        if not isinstance(value, str):
            raise wrong_type(value, place, expected)
        if value not in choices:
            msg = f"{place} is {value[:40]!r}; expected {expected}"
            raise CannotStore(msg)
        return str(value)

    return Form(check, lambda value, place: choices[check(value, place)])


def choice_form(choices: Mapping[str, Any]) -> Form:
    """Return the form of one of several values, each stored as its name."""
    names = {value: name for name, value in choices.items()}
    expected = " or ".join(choices)

    def encode(value: object, place: str) -> str:
        for known, name in names.items():
            if type(known) is type(value) and known == value:
                return name
        raise wrong_type(value, place, expected)

    def decode(form: object, place: str) -> Any:
        if not isinstance(form, str) or form not in choices:
            raise wrong_type(form, place, expected)
        return choices[form]

    return Form(encode, decode)


def optional_form(form: Form) -> Form:
    """Return the form of a value or None."""
    return Form(
        lambda value, place: None if value is None else form.encode(value, place),
        lambda value, place: None if value is None else form.decode(value, place),
    )


def tagged_form(forms: Mapping[str, Form]) -> Form:
    """Return the form of a union: the name and form of the first alternative that accepts the value."""
    expected = " or ".join(forms)

    def encode(value: object, place: str) -> dict[str, Any]:
        for tag, form in forms.items():
            try:
                return {"is": tag, "value": form.encode(value, place)}
            except CannotStore:
                continue
        raise wrong_type(value, place, expected)

    def decode(form: Any, place: str) -> Any:
        if not isinstance(form, dict) or form.get("is") not in forms:
            raise wrong_type(form, place, expected)
        return forms[form["is"]].decode(form.get("value"), place)

    return Form(encode, decode)


def sequence_form(form: Form, kind: type) -> Form:
    """Return the form of a list or of a tuple of any length."""

    def encode(value: object, place: str) -> list[Any]:
        if not isinstance(value, kind):
            raise wrong_type(value, place, f"a {kind.__name__}")
        return [form.encode(item, f"{place}[{index}]") for index, item in enumerate(value)]  # type: ignore[arg-type, var-annotated]

    def decode(value: object, place: str) -> Any:
        return kind(form.decode(item, f"{place}[{index}]") for index, item in enumerate(_listed(value, place)))

    return Form(encode, decode)


def set_form(form: Form, kind: type) -> Form:
    """Return the form of a set: a sorted list, so that equal sets have equal forms."""

    def encode(value: object, place: str) -> list[Any]:
        if not isinstance(value, kind):
            raise wrong_type(value, place, f"a {kind.__name__}")
        return sorted((form.encode(item, f"an item of {place}") for item in value), key=to_json)  # type: ignore[attr-defined]

    def decode(value: object, place: str) -> Any:
        return kind(form.decode(item, f"an item of {place}") for item in _listed(value, place))

    return Form(encode, decode)


def tuple_form(forms: Sequence[Form]) -> Form:
    """Return the form of a tuple with a type for each item."""

    def each(value: Sequence[Any], place: str, step: Callable[[Form, Any, str], Any]) -> list[Any]:
        if len(value) != len(forms):
            msg = f"{place} has {len(value)} items; expected {len(forms)}"
            raise CannotStore(msg)
        return [step(form, item, f"{place}[{n}]") for n, (form, item) in enumerate(zip(forms, value, strict=True))]

    def encode(value: object, place: str) -> list[Any]:
        if not isinstance(value, tuple):
            raise wrong_type(value, place, "a tuple")
        return each(value, place, lambda form, item, at: form.encode(item, at))

    def decode(value: object, place: str) -> tuple[Any, ...]:
        return tuple(each(_listed(value, place), place, lambda form, item, at: form.decode(item, at)))

    return Form(encode, decode)


def mapping_form(keys: Form, values: Form) -> Form:
    """Return the form of a dict: an object if the keys are stored as texts, else a list of pairs."""

    def encode(value: object, place: str) -> Any:
        if not isinstance(value, Mapping):
            raise wrong_type(value, place, "a dict")
        pairs = [
            (keys.encode(key, f"a key of {place}"), values.encode(item, f"{place}[…]")) for key, item in value.items()
        ]
        return dict(pairs) if all(isinstance(key, str) for key, _ in pairs) else [list(pair) for pair in pairs]

    def decode(form: Any, place: str) -> dict[Any, Any]:
        pairs = form.items() if isinstance(form, dict) else map(tuple, _listed(form, place))
        return {keys.decode(key, f"a key of {place}"): values.decode(item, f"{place}[…]") for key, item in pairs}

    return Form(encode, decode)


def _listed(value: object, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise wrong_type(value, place, "a list")
    return value


def _object_form(cls: type, forms: Mapping[str, Form], *, omits_empty: bool) -> Form:
    """Return the form of a dataclass: an object with its fields by name."""
    defaults = {field.name for field in fields(cls) if has_default(field)}

    def encode(value: object, place: str) -> dict[str, Any]:
        if type(value) is not cls:
            raise wrong_type(value, place, f"a {cls.__name__}")
        encoded: dict[str, Any] = {}
        for name, form in forms.items():
            item = form.encode(getattr(value, name), f"{place}.{name}")
            if not omits_empty or item not in EMPTY or name not in defaults:
                encoded[name] = item
        return encoded

    def decode(form: Any, place: str) -> Any:
        if not isinstance(form, dict):
            raise wrong_type(form, place, f"the object of a {cls.__name__}")
        if unknown := form.keys() - forms.keys():
            msg = f"{place} has fields that the class has not: {', '.join(sorted(unknown))}"
            raise CannotStore(msg)
        if missing := forms.keys() - form.keys() - defaults:
            msg = f"{place} lacks fields that have no default: {', '.join(sorted(missing))}"
            raise CannotStore(msg)
        return cls(**{name: forms[name].decode(value, f"{place}.{name}") for name, value in form.items()})

    return Form(encode, decode)


def _model(cls: Any) -> Form:
    """Return the form of a pydantic model: its own JSON dump."""

    def encode(value: object, place: str) -> Any:
        if type(value) is not cls:
            raise wrong_type(value, place, f"a {cls.__name__}")
        return _dump(value, place)  # type: ignore[arg-type]  # it is of cls, which is a model

    def decode(form: Any, place: str) -> Any:
        from pydantic import ValidationError  # imported only when models are stored

        try:
            return cls.model_validate_json(to_json(form))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            # Keys of a dict and messages of the author's validators may contain text of users: show neither.
            parts = [str(part) if isinstance(part, int) or part in cls.model_fields else "…" for part in first["loc"]]
            is_author_s = first["type"] in ("value_error", "assertion_error")
            msg = f"{'.'.join((place, *parts))}: {'its validator refuses it' if is_author_s else first['msg']}"
            raise CannotStore(msg) from None

    return Form(encode, decode)


def _dump(model: BaseModel, place: str) -> Any:
    try:
        return model.model_dump(mode="json", by_alias=True, round_trip=True, warnings="error")
    except Exception:  # pydantic does not always name the field: find it
        for name in type(model).model_fields:
            try:
                model.model_dump(mode="json", round_trip=True, warnings="error", include={name})
            except Exception:
                raise wrong_type(getattr(model, name), f"{place}.{name}", "what the model declares") from None
        raise


# ── text ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


_ASCII: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), sort_keys=True, allow_nan=False)


def to_json(form: Any) -> str:
    """Return a stored form as ASCII text. Equal forms give equal texts; lone surrogates are escaped."""
    return _ASCII.encode(form)


MAX_RECORD_BYTES: Final = 1_048_576
"""The maximum size of a record of a plugin in its stored form: a state, the arguments of a timer, a result.

A state is read and written with every event that uses it, so larger ones would slow down all bots of the store.
"""


def check_size(stored: str, what: str) -> str:
    """Return a stored form unchanged if it does not exceed `MAX_RECORD_BYTES`.

    Args:
        stored: the result of `to_json`; it is ASCII, so its length is its size in bytes.
        what: a description of the record, for the error.

    Raises:
        CannotStore: the record is too large; the text states by how much.
    """
    if len(stored) > MAX_RECORD_BYTES:
        msg = (
            f"{what} takes {len(stored):,} bytes in the store, and a record holds at most {MAX_RECORD_BYTES:,}: "
            "keep less of it, or keep it in a database of your own and store its key here"
        )
        raise CannotStore(msg)
    return stored


def from_json(text: str) -> Any:
    """Parse a text to a stored form."""
    return json.loads(text)


def encodable_text(value: object, place: str) -> str:
    """Return a text unchanged; raises `CannotStore` if it is not a text, or has no UTF-8 form."""
    if not isinstance(value, str):
        raise wrong_type(value, place, "text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            msg = f"{place} has half of a surrogate pair at {error.start}, which has no UTF-8 form; remove it"
            raise CannotStore(msg) from None
    return value


def check_utf8(form: Any, place: str) -> None:
    """Check that all texts can be encoded in UTF-8.

    Raises:
        CannotStore: a text cannot be encoded; the error names its place.
    """
    if isinstance(form, str):
        encodable_text(form, place)
    elif isinstance(form, list):
        for index, item in enumerate(form):
            check_utf8(item, f"{place}[{index}]")
    elif isinstance(form, dict):
        for key, item in form.items():
            encodable_text(key, f"a key of {place}")
            check_utf8(item, f"{place}[{key!r}]")
