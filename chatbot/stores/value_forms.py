"""The parts that stored forms of authors' types are made of: plain JSON, scalars, and containers of other forms.

Pure. See `values`, which reads off a type which of them it takes.
"""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from chatbot.errors import CannotStore
from chatbot.stores.forms import PLAIN, Form, not_of

_ASCII: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), sort_keys=True, allow_nan=False)


def to_json(form: Any) -> str:
    """A stored form as text; equal forms are equal texts. Holds whatever people can say, half surrogates too."""
    return _ASCII.encode(form)


MAX_RECORD_BYTES: Final = 1_048_576
"""What one record of an author holds at most, in its stored form: a state, an argument list of a timer, a result.

A state is read and written with every event that uses it, so a larger one slows down every other bot of the store.
"""


def check_size(stored: str, what: str) -> str:
    """A stored form of `to_json` as it is, if it is no larger than a record may be.

    Args:
        stored: the form, which is ASCII.
        what: what it is of, for the error.

    Raises:
        CannotStore: it is larger; says by how much.
    """
    if len(stored) > MAX_RECORD_BYTES:
        msg = (
            f"{what} takes {len(stored):,} bytes in the store, and a record holds at most {MAX_RECORD_BYTES:,}: "
            "keep less of it, or keep it in a database of your own and store its key here"
        )
        raise CannotStore(msg)
    return stored


def from_json(text: str) -> Any:
    """The stored form of a text."""
    return json.loads(text)


def choice_form(choices: Mapping[str, Any]) -> Form:
    """The form of a value out of a few, each stored as its name."""
    names = {value: name for name, value in choices.items()}
    expected = " or ".join(choices)

    def encode(value: object, place: str) -> str:
        for known, name in names.items():
            if type(known) is type(value) and known == value:
                return name
        raise not_of(value, place, expected)

    def decode(form: object, place: str) -> Any:
        if not isinstance(form, str) or form not in choices:
            raise not_of(form, place, expected)
        return choices[form]

    return Form(encode, decode)


def optional_form(form: Form) -> Form:
    """The form of a value or None."""
    return Form(
        lambda value, place: None if value is None else form.encode(value, place),
        lambda value, place: None if value is None else form.decode(value, place),
    )


def tagged_form(forms: Mapping[str, Form]) -> Form:
    """The form of a union: the first alternative that the value is one of, under its name."""
    expected = " or ".join(forms)

    def encode(value: object, place: str) -> dict[str, Any]:
        for tag, form in forms.items():
            try:
                return {"is": tag, "value": form.encode(value, place)}
            except CannotStore:
                continue
        raise not_of(value, place, expected)

    def decode(form: Any, place: str) -> Any:
        if not isinstance(form, dict) or form.get("is") not in forms:
            raise not_of(form, place, expected)
        return forms[form["is"]].decode(form.get("value"), place)

    return Form(encode, decode)


def sequence_form(form: Form, kind: type) -> Form:
    """The form of a list or a tuple of any length."""

    def encode(value: object, place: str) -> list[Any]:
        if not isinstance(value, kind):
            raise not_of(value, place, f"a {kind.__name__}")
        return [form.encode(one, f"{place}[{index}]") for index, one in enumerate(value)]  # type: ignore[arg-type, var-annotated]

    def decode(value: object, place: str) -> Any:
        return kind(form.decode(one, f"{place}[{index}]") for index, one in enumerate(_listed(value, place)))

    return Form(encode, decode)


def set_form(form: Form, kind: type) -> Form:
    """The form of a set: a list in an order of its own, so that equal sets have equal forms."""

    def encode(value: object, place: str) -> list[Any]:
        if not isinstance(value, kind):
            raise not_of(value, place, f"a {kind.__name__}")
        return sorted((form.encode(one, f"an item of {place}") for one in value), key=to_json)  # type: ignore[attr-defined]

    def decode(value: object, place: str) -> Any:
        return kind(form.decode(one, f"an item of {place}") for one in _listed(value, place))

    return Form(encode, decode)


def tuple_form(forms: Sequence[Form]) -> Form:
    """The form of a tuple with a type for each item."""

    def each(value: Sequence[Any], place: str, step: Callable[[Form, Any, str], Any]) -> list[Any]:
        if len(value) != len(forms):
            msg = f"{place} has {len(value)} items; expected {len(forms)}"
            raise CannotStore(msg)
        return [step(form, one, f"{place}[{n}]") for n, (form, one) in enumerate(zip(forms, value, strict=True))]

    def encode(value: object, place: str) -> list[Any]:
        if not isinstance(value, tuple):
            raise not_of(value, place, "a tuple")
        return each(value, place, lambda form, one, at: form.encode(one, at))

    def decode(value: object, place: str) -> tuple[Any, ...]:
        return tuple(each(_listed(value, place), place, lambda form, one, at: form.decode(one, at)))

    return Form(encode, decode)


def mapping_form(keys: Form, values: Form) -> Form:
    """The form of a dict: an object where the keys' forms are texts, else a list of pairs."""

    def encode(value: object, place: str) -> Any:
        if not isinstance(value, Mapping):
            raise not_of(value, place, "a dict")
        pairs = [
            (keys.encode(key, f"a key of {place}"), values.encode(one, f"{place}[…]")) for key, one in value.items()
        ]
        return dict(pairs) if all(isinstance(key, str) for key, _ in pairs) else [list(pair) for pair in pairs]

    def decode(form: Any, place: str) -> dict[Any, Any]:
        pairs = form.items() if isinstance(form, dict) else map(tuple, _listed(form, place))
        return {keys.decode(key, f"a key of {place}"): values.decode(one, f"{place}[…]") for key, one in pairs}

    return Form(encode, decode)


def _listed(value: object, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise not_of(value, place, "a list")
    return value


def _json(value: object, place: str) -> Any:
    """Plain JSON as it is; what would come back as something else is refused."""
    if value is None or isinstance(value, bool) or type(value) in (str, int):
        return value
    if type(value) is float:
        return _float(value, place)
    if type(value) is list:
        return [_json(one, f"{place}[{index}]") for index, one in enumerate(value)]
    if type(value) is dict and all(type(key) is str for key in value):
        return {key: _json(one, f"{place}[…]") for key, one in value.items()}
    raise not_of(value, place, "None, text, a number, a list or a dict with texts as keys")


def _float(value: object, place: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise not_of(value, place, "a number")
    if not math.isfinite(value):
        msg = f"{place} is {value}, which JSON cannot hold; use None"
        raise CannotStore(msg)
    return float(value)


def _scalar(cls: type, encode: Callable[[Any], str | int], decode: Callable[[Any], Any]) -> Form:
    """The form of a type whose values are texts or numbers in JSON."""

    def checked(value: object, place: str) -> str | int:
        if type(value) is not cls:
            raise not_of(value, place, f"a {cls.__name__}")
        return encode(value)

    def read(form: Any, place: str) -> Any:
        try:
            return decode(form)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise not_of(form, place, f"the stored form of a {cls.__name__}") from error

    return Form(checked, read)


JSON: Final = Form(_json, _json)

SCALARS: Final[Mapping[type, Form]] = {
    **PLAIN,
    float: Form(_float, _float),
    bytes: _scalar(bytes, lambda value: b64encode(value).decode(), lambda form: b64decode(form, validate=True)),
    Decimal: _scalar(Decimal, str, Decimal),
    date: _scalar(date, date.isoformat, date.fromisoformat),
    timedelta: _scalar(
        timedelta, lambda value: value // timedelta(microseconds=1), lambda form: timedelta(microseconds=form)
    ),
    UUID: _scalar(UUID, str, UUID),
}
