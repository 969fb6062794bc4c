"""The service's paging cursors (`syncState`) and its ways to write times. Pure.

A message cursor is hex of `3e`, the length of the thread id (uint32, little endian), the thread id, `01`, the
version of the last item delivered and the version of the newest item delivered (int64 each). A thread cursor
is base64 of a JSON list of windows. Both layouts were verified against recorded nextLinks
(2021-04-05-preview6 and 2023-11-07).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
import urllib.parse
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ZERO = "1970-01-01T00:00:00+00:00"
_DOT_NET = re.compile(
    r"(\d{1,2})/(\d{1,2})/(\d{4}) (\d{1,2}):(\d{2}):(\d{2}) (AM|PM)(?: ([+-])(\d{2}):(\d{2}))?", re.ASCII
)
_MAX_MILLIS = 253_402_300_799_999


def wire_time(millis: int) -> str:
    """Return a time in chat's format: whole seconds, floored (all of 574 recorded `createdOn`)."""
    return (_EPOCH + timedelta(seconds=millis // 1000)).strftime("%Y-%m-%dT%H:%M:%SZ")


def precise_time(millis: int, ticks: int = 0) -> str:
    """Return a time in identity's format: up to seven digits of a second, no trailing zeros, and a numeric offset.

    `ticks` are the units of 100 nanoseconds beyond the milliseconds.
    """
    moment = _EPOCH + timedelta(milliseconds=millis)
    fraction = f".{millis % 1000:03d}{ticks:04d}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}+00:00"


def http_date(seconds: int) -> str:
    """Return an RFC 9110 date, independent of the locale."""
    moment = _EPOCH + timedelta(seconds=seconds)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[moment.weekday()]
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return f"{day}, {moment.day:02d} {months[moment.month - 1]} {moment.year:04d} {moment:%H:%M:%S} GMT"


def echo_time(millis: int) -> str:
    """Return `startTime` as a nextLink repeats it: .NET's general format, percent-encoded."""
    moment = _EPOCH + timedelta(milliseconds=millis)
    hour = moment.hour % 12 or 12
    half = "AM" if moment.hour < 12 else "PM"
    text = f"{moment.month}/{moment.day}/{moment.year} {hour}:{moment:%M:%S} {half} +00:00"
    return urllib.parse.quote(text, safe="")


def parse_time(text: str) -> int:
    """Parse an ISO 8601 time, or the format of `echo_time`, to milliseconds; ValueError if it is neither."""
    match = _DOT_NET.fullmatch(text.strip())
    moment = _from_dot_net(match) if match else _from_iso(text.strip())
    millis = (moment - _EPOCH) // timedelta(milliseconds=1)
    return max(0, min(millis, _MAX_MILLIS))


def _from_dot_net(match: re.Match[str]) -> datetime:
    month, day, year, hour, minute, second = (int(part) for part in match.groups()[:6])
    if not 1 <= hour <= 12:
        msg = "hour"
        raise ValueError(msg)
    hour = hour % 12 + (12 if match[7] == "PM" else 0)
    offset = timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0))
    moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    return moment + offset if match[8] == "-" else moment - offset


def _from_iso(text: str) -> datetime:
    if not text.isascii() or "T" not in text.upper():
        msg = "not a time"
        raise ValueError(msg)
    try:
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(text) from error


def message_cursor(thread: str, last: int, newest: int) -> str:
    """Return the syncState after a page whose last item has version `last`."""
    name = thread.encode()
    return (b"\x3e" + struct.pack("<I", len(name)) + name + b"\x01" + struct.pack("<qq", last, newest)).hex()


def parse_message_cursor(text: str, thread: str) -> tuple[int, int]:
    """Parse a cursor of this thread to its last and newest version; ValueError if it is not one."""
    raw = bytes.fromhex(text)
    name = thread.encode()
    head = b"\x3e" + struct.pack("<I", len(name)) + name + b"\x01"
    if not raw.startswith(head) or len(raw) != len(head) + 16:
        msg = "not a cursor of this thread"
        raise ValueError(msg)
    last, newest = struct.unpack("<qq", raw[len(head) :])
    return last, newest


def thread_cursor(start: int, end: int) -> str:
    """Return the syncState after a page of threads with activities (microseconds) between `start` and `end`."""
    windows = [{"start": _offset(start), "end": _offset(end)}, {"start": _ZERO, "end": _ZERO}]
    text = base64.b64encode(json.dumps(windows, separators=(",", ":")).encode()).decode()
    return urllib.parse.quote(text, safe="+/")


def parse_thread_cursor(text: str) -> tuple[int, int]:
    """Parse a thread cursor to start and end (microseconds); ValueError if it is not one."""
    try:
        # A `+` of base64 arrives as a space once the query was decoded.
        windows = json.loads(base64.b64decode(text.replace(" ", "+"), validate=True))
        first = windows[0]
        return _micros(first["start"]), _micros(first["end"])
    except (
        binascii.Error,
        UnicodeDecodeError,
        RecursionError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        msg = "not a cursor"
        raise ValueError(msg) from error


def _offset(micros: int) -> str:
    moment = _EPOCH + timedelta(microseconds=micros)
    fraction = f".{moment.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}+00:00"


def _micros(text: str) -> int:
    return (_from_iso(text) - _EPOCH) // timedelta(microseconds=1)
