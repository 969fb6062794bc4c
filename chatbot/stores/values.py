"""The stored form of authors' own types: dataclasses, pydantic models and what they are made of; read off the hints.

Pure, and as strict as `forms`: a type without a stored form is refused when its form is asked for, which is when a
plugin is loaded; a value that is not of its declared type is refused when it is written, naming its place.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NewType, Union, get_args, get_origin, get_type_hints

from chatbot.errors import CannotStore
from chatbot.stores.forms import Form, not_of
from chatbot.stores.value_forms import (
    JSON,
    SCALARS,
    choice_form,
    mapping_form,
    optional_form,
    sequence_form,
    set_form,
    tagged_form,
    to_json,
    tuple_form,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

STORABLE: Final = (
    "dataclasses, pydantic models, str, int, float, bool, bytes, Decimal, date, datetime, timedelta, UUID, Enum,"
    " Literal, list, tuple, set, dict, unions of these, and Any for plain JSON"
)
"""What has a stored form, for error messages."""


def form_of(hint: Any, place: str) -> Form:
    """The stored form of a type.

    Args:
        hint: the type, as in an annotation.
        place: what an error calls it: `Cart`.

    Raises:
        TypeError: it has none; names the field, and what would do.
    """
    return _Forms().of(hint, place)


def is_model(hint: Any) -> bool:
    """Whether it is a pydantic model; pydantic need not be there to say no."""
    return isinstance(hint, type) and hasattr(hint, "__pydantic_validator__") and hasattr(hint, "model_validate")


class _Forms:
    """Forms in the making; a dataclass may hold others of its own kind."""

    def __init__(self) -> None:
        self._known: dict[type, Form] = {}

    def of(self, hint: Any, place: str) -> Form:
        if get_origin(hint) is Annotated:
            return self.of(get_args(hint)[0], place)
        if isinstance(hint, NewType):
            return self.of(hint.__supertype__, place)
        if isinstance(hint, type) and hint in SCALARS:
            return SCALARS[hint]
        if hint is Any or hint is object:
            return JSON
        if isinstance(hint, type) and not get_args(hint):
            return self._of_class(hint, place)
        return self._generic(hint, get_origin(hint), get_args(hint), place)

    def _of_class(self, cls: type, place: str) -> Form:
        if issubclass(cls, Enum):
            return choice_form({one.name: one for one in cls})
        if is_model(cls):
            return _model(cls)
        if is_dataclass(cls):
            if cls not in self._known:
                self._known[cls] = self._late(cls)  # for its own fields of its own kind, which are read now
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
            return choice_form({repr(one): one for one in arguments})
        if origin in (Union, types.UnionType):
            return self._union(arguments, place)
        if origin in (list, Sequence):
            return sequence_form(self.of(arguments[0], f"{place}[]"), list)
        if origin in (set, frozenset):
            return set_form(self.of(arguments[0], f"{place}[]"), origin)
        if origin is tuple and arguments[1:] == (...,):
            return sequence_form(self.of(arguments[0], f"{place}[]"), tuple)
        if origin is tuple:
            return tuple_form([self.of(one, f"{place}[{index}]") for index, one in enumerate(arguments)])
        if origin in (dict, Mapping):
            return mapping_form(self.of(arguments[0], f"a key of {place}"), self.of(arguments[1], f"{place}[]"))
        raise _no_form(hint, place)

    def _union(self, arguments: tuple[Any, ...], place: str) -> Form:
        others = [one for one in arguments if one is not type(None)]
        if len(others) == 1:
            form = self.of(others[0], place)
        else:
            form = tagged_form({_tag(one): self.of(one, place) for one in others})
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
        return _record(cls, forms, {field.name for field in fields(cls) if has_default(field)})


def has_default(field: Field[Any]) -> bool:
    """Whether a dataclass can be made without this field."""
    return field.default is not MISSING or field.default_factory is not MISSING


def _no_form(hint: Any, place: str) -> TypeError:
    name = hint.__qualname__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
    return TypeError(f"{place} is {name}, which cannot be stored; use {STORABLE}")


def _record(cls: type, forms: Mapping[str, Form], defaults: set[str]) -> Form:
    def encode(value: object, place: str) -> dict[str, Any]:
        if type(value) is not cls:
            raise not_of(value, place, f"a {cls.__name__}")
        return {name: form.encode(getattr(value, name), f"{place}.{name}") for name, form in forms.items()}

    def decode(form: Any, place: str) -> Any:
        if not isinstance(form, dict):
            raise not_of(form, place, f"the object of a {cls.__name__}")
        if unknown := form.keys() - forms.keys():
            msg = f"{place} has fields that the class has not: {', '.join(sorted(unknown))}"
            raise CannotStore(msg)
        if missing := forms.keys() - form.keys() - defaults:
            msg = f"{place} lacks fields that have no default: {', '.join(sorted(missing))}"
            raise CannotStore(msg)
        return cls(**{name: forms[name].decode(value, f"{place}.{name}") for name, value in form.items()})

    return Form(encode, decode)


def _model(cls: Any) -> Form:
    """The form of a pydantic model: what it makes of itself."""

    def encode(value: object, place: str) -> Any:
        if type(value) is not cls:
            raise not_of(value, place, f"a {cls.__name__}")
        return _dump(value, place)  # type: ignore[arg-type]  # it is of cls, which is a model

    def decode(form: Any, place: str) -> Any:
        from pydantic import ValidationError  # here, because only who stores models shall pay for it

        try:
            return cls.model_validate_json(to_json(form))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            # Keys of a dict, and what a validator of the author's says, may be what people said.
            parts = [str(part) if isinstance(part, int) or part in cls.model_fields else "…" for part in first["loc"]]
            is_author_s = first["type"] in ("value_error", "assertion_error")
            msg = f"{'.'.join((place, *parts))}: {'its validator refuses it' if is_author_s else first['msg']}"
            raise CannotStore(msg) from None

    return Form(encode, decode)


def _dump(model: BaseModel, place: str) -> Any:
    try:
        return model.model_dump(mode="json", by_alias=True, round_trip=True, warnings="error")
    except Exception:  # pydantic names what is wrong, not always where: look for the field
        for name in type(model).model_fields:
            try:
                model.model_dump(mode="json", round_trip=True, warnings="error", include={name})
            except Exception:
                raise not_of(getattr(model, name), f"{place}.{name}", "what the model declares") from None
        raise


def _tag(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
