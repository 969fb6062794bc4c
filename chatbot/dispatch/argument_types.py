"""Conversion of typed words to values: numbers, booleans, choices, dates, durations. Performs no I/O."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import Enum
from typing import Annotated, Any, Final, Literal, NewType, Union, get_args, get_origin

from chatbot.durations import parse_duration
from chatbot.model import Participant, Value
from chatbot.normalization import find_match, fold_name, numeric


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ArgumentType(Value):
    """The conversion of one word to a value of a type.

    Args:
        expects: a description of valid input, such as "a whole number".
        parse: converts the word; raises ValueError if the word is invalid.
        choices: all valid words, if they can be listed.
    """

    expects: str
    parse: Callable[[str], object]
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class NamedParticipant(Value):
    """A name typed for a parameter of type `Participant`; resolving it needs the participants of the thread."""

    name: str


CONVERTIBLE: Final = "str, int, float, bool, date, timedelta, UUID, an Enum or a Literal"
"""The types that `conversion_for` supports, for error messages."""


def conversion_for(annotation: object) -> ArgumentType | None:
    """Return the conversion to a type, or None if the type is not supported. `T | None` is read as `T`."""
    plain = plain_type(annotation)
    if get_origin(plain) is Literal:
        return _choice({str(value): value for value in get_args(plain)})
    if isinstance(plain, type) and issubclass(plain, Enum):
        return _choice({member.name: member for member in plain})
    if isinstance(plain, type):
        return _uuid_type() if _is_uuid(plain) else _BY_TYPE.get(plain)
    return None


def plain_type(annotation: object) -> object:
    """Return the type without `Annotated`, `NewType` and `| None` around it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return plain_type(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        others = [member for member in get_args(annotation) if member is not type(None)]
        return plain_type(others[0]) if len(others) == 1 else annotation
    if isinstance(annotation, NewType):
        return plain_type(annotation.__supertype__)
    return annotation


def _choice(values: Mapping[str, object]) -> ArgumentType:
    by_word = dict(values)
    for value in values.values():
        if isinstance(value, Enum):
            by_word.setdefault(str(value.value), value)
    words = tuple(word.lower() if isinstance(value, Enum) else word for word, value in values.items())

    def parse(word: str) -> object:
        found = find_match(word, by_word.items())
        if found is None:
            raise ValueError(word)
        return found[1]

    return ArgumentType(f"one of {', '.join(words)}", parse, words)


def _parse_float(word: str) -> float:
    number = float(numeric(word))
    if not math.isfinite(number):
        raise ValueError(word)
    return number


_YES_AND_NO: Final = {
    "yes": True, "y": True, "true": True, "on": True, "1": True,
    "no": False, "n": False, "false": False, "off": False, "0": False,
}  # fmt: skip


def _parse_boolean(word: str) -> bool:
    answer = _YES_AND_NO.get(fold_name(word))
    if answer is None:
        raise ValueError(word)
    return answer


def _parse_participant(word: str) -> NamedParticipant:
    if not fold_name(word).strip("@ "):
        raise ValueError(word)
    return NamedParticipant(word.strip())


_BY_TYPE: Final[Mapping[Any, ArgumentType]] = {
    str: ArgumentType("a text", str),
    int: ArgumentType("a whole number", lambda word: int(numeric(word))),
    float: ArgumentType("a number", _parse_float),
    bool: ArgumentType("yes or no", _parse_boolean),
    date: ArgumentType("a date like 2026-01-31", lambda word: date.fromisoformat(numeric(word))),
    timedelta: ArgumentType("a duration like 90s or 1h30m", lambda word: parse_duration(numeric(word))),
    Participant: ArgumentType("the name of somebody here", _parse_participant),
}


def _is_uuid(cls: object) -> bool:
    # The module takes 3 ms to import. A plugin that annotates a parameter with its class has imported it.
    return (uuid := sys.modules.get("uuid")) is not None and cls is uuid.UUID


def _uuid_type() -> ArgumentType:
    from uuid import UUID

    return ArgumentType("a UUID", lambda word: UUID(numeric(word)))
