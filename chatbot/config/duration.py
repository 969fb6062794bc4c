"""Durations as people write them: `500ms`, `1s`, `2m`, `1h 30m`, `30d`. Pure."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Final

from pydantic import BeforeValidator, SecretStr

_UNITS: Final = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_PART: Final = re.compile(r"\s*(\d+(?:\.\d+)?)(ms|d|h|m|s)(?=\s|\d|$)", re.ASCII)
_NEARLY: Final = re.compile(r"\s*(\d+(?:[.,]\d+)?)\s*([a-zµ]*)\.?\s*", re.ASCII | re.IGNORECASE)
_WORDS: Final = {
    "ms": ("millisecond", "milliseconds", "millis", "msec", "msecs"),
    "s": ("", "sec", "secs", "second", "seconds"),
    "m": ("min", "mins", "minute", "minutes"),
    "h": ("hr", "hrs", "hour", "hours"),
    "d": ("day", "days"),
}


def parse_duration(value: object) -> timedelta:
    """Read a duration: numbers with units, largest first (`1h 30m`); a `timedelta` stays what it is.

    Raises:
        ValueError: it is none; the text says which spelling was probably meant.
    """
    if isinstance(value, timedelta):
        return value
    total = _sum_of_parts(value) if isinstance(value, str) else None
    if total is None:
        shown = f'"{value}"' if isinstance(value, str) else _shown(value)
        message = f"{shown} is not a duration (try {_nearest(str(value))})"
        raise ValueError(message)
    return total


def format_duration(value: timedelta) -> str:
    """Write a duration as `parse_duration` reads it; what is finer than a millisecond is left out."""
    rest = round(value / _UNITS["ms"])
    parts = []
    for name, unit in _UNITS.items():
        count, rest = divmod(rest, unit // _UNITS["ms"])
        if count:
            parts.append(f"{count}{name}")
    return " ".join(parts) or "0s"


def _sum_of_parts(text: str) -> timedelta | None:
    total, at, units = timedelta(), 0, list(_UNITS)
    while match := _PART.match(text, at):
        number, unit = match.groups()
        if unit not in units:  # twice, or after a smaller one
            return None
        units = units[units.index(unit) + 1 :]
        try:
            total += float(number) * _UNITS[unit]
        except OverflowError:
            return None
        at = match.end()
    return total if at and not text[at:].strip() else None


def _nearest(text: str) -> str:
    match = _NEARLY.fullmatch(text)
    if not match or len(match[1]) > 9:
        return "1s, 500ms, 2m, 1h 30m or 30d"
    for unit, words in _WORDS.items():
        if match[2].lower() in (unit, *words):
            return match[1].replace(",", ".") + unit
    return "1s, 500ms, 2m, 1h 30m or 30d"


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, SecretStr):
        return "a secret"
    return str(value) if isinstance(value, int | float) else f"a {type(value).__name__}"


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
"""A `timedelta` in a pydantic model, written as `parse_duration` reads it."""
