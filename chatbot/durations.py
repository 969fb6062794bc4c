"""Parsing and formatting of durations: `500ms`, `1s`, `2m`, `1h 30m`, `30d`, `2w`. Performs no I/O.

bots.yaml, command-line options and chat commands all parse durations here, so that they accept the same syntax.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

from chatbot.errors import TimeTooFar

LONGEST: Final = timedelta(days=36_500)
"""The longest accepted duration. A date further away may not fit into a `datetime`."""

_UNITS: Final = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_WRITTEN: Final = ("d", "h", "m", "s", "ms")
_PART: Final = re.compile(r"\s*(\d+(?:\.\d+)?)(ms|w|d|h|m|s)(?=\s|\d|$)", re.ASCII | re.IGNORECASE)
_NEARLY: Final = re.compile(r"\s*(\d+(?:[.,]\d+)?)\s*([a-zµ]*)\.?\s*", re.ASCII | re.IGNORECASE)
_WORDS: Final = {
    "ms": ("millisecond", "milliseconds", "millis", "msec", "msecs"),
    "s": ("", "sec", "secs", "second", "seconds"),
    "m": ("min", "mins", "minute", "minutes"),
    "h": ("hr", "hrs", "hour", "hours"),
    "d": ("day", "days"),
    "w": ("week", "weeks"),
}
_SHOWN: Final = 40
"""The maximum number of characters of an invalid duration that an error quotes."""


class TooLong(ValueError):
    """The duration exceeds `MAX_QUOTE`; the text states the limit."""


def parse_duration(value: object) -> timedelta:
    """Parse a duration: numbers with units, largest first (`1h 30m`). A `timedelta` is returned unchanged.

    Raises:
        TooLong: the duration exceeds `MAX_QUOTE`.
        ValueError: the value is not a duration; the text suggests a correction.
    """
    total = value if isinstance(value, timedelta) else _sum_of_parts(value) if isinstance(value, str) else None
    shown = f'"{_shortened(value)}"' if isinstance(value, str) else _shown(value)
    if total is None:
        message = f"{shown} is not a duration (try {_nearest(str(value))})"
        raise ValueError(message)
    if total > LONGEST:
        message = f"{shown} is too long: {format_duration(LONGEST)} (100 years) is the most"
        raise TooLong(message)
    return total


def due_on(now: datetime, when: timedelta | datetime) -> datetime:
    """Return the due time for a delay or a datetime; a time too far in the past becomes `MAX_QUOTE` before now.

    Raises:
        TimeTooFar: the time is more than `MAX_QUOTE` from now; the text is meant for the user who requested it.
        ValueError: the datetime has no time zone.
    """
    if isinstance(when, datetime) and when.utcoffset() is None:
        msg = f"later() got {when.isoformat()} without a time zone; give it one (datetime.now(UTC), ZoneInfo(…))"
        raise ValueError(msg)
    delay = when if isinstance(when, timedelta) else when - now
    if delay > LONGEST:
        msg = "Sorry, that is too far in the future. I can remember a time up to 100 years from now."
        raise TimeTooFar(msg)
    if delay < -LONGEST:  # due immediately anyway; a date before the year 1 would overflow
        return now - LONGEST
    return now + when if isinstance(when, timedelta) else when


def format_duration(value: timedelta) -> str:
    """Format a duration so that `parse_duration` can read it; fractions of a millisecond are dropped."""
    rest = round(value / _UNITS["ms"])
    parts = []
    for name in _WRITTEN:
        count, rest = divmod(rest, _UNITS[name] // _UNITS["ms"])
        if count:
            parts.append(f"{count}{name}")
    return " ".join(parts) or "0s"


def _sum_of_parts(text: str) -> timedelta | None:
    total, at, units = timedelta(), 0, list(_UNITS)
    while match := _PART.match(text, at):
        number, unit = match[1], match[2].lower()
        if unit not in units:  # repeated, or after a smaller unit
            return None
        units = units[units.index(unit) + 1 :]
        try:
            total += float(number) * _UNITS[unit]
        except OverflowError:
            total = timedelta.max  # further parts cannot make it shorter
            return total if not _PART.sub("", text[match.end() :]).strip() else None
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


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if hasattr(value, "get_secret_value"):  # a pydantic secret; this module does not import pydantic
        return "a secret"
    return str(value) if isinstance(value, int | float | timedelta) else f"a {type(value).__name__}"
