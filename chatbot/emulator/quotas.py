"""The service's documented rate limits (service limits of Chat and Identity), counted per user, thread or both.

Operations in one row share the row's counts (a quirk counts each on its own). Refused requests are counted, too ("all
requests accrue"; a quirk lets them be free), but the hint of a refusal does not reckon with itself: who obeys it once
may be refused once more, as was recorded. Pure: `now` is an argument.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from chatbot.emulator.quirks import Quirks

Bucket = Literal["user", "thread", "user+thread", "resource"]


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` requests within `seconds`."""

    count: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the documented table: operations, what they are counted by, and the limits."""

    operations: tuple[str, ...]
    bucket: Bucket
    limits: tuple[Limit, ...]


def _row(operations: str, bucket: Bucket, per_10: int, per_60: int | None = None) -> Row:
    limits = (Limit(per_10, 10),) if per_60 is None else (Limit(per_10, 10), Limit(per_60, 60))
    return Row(tuple(operations.split()), bucket, limits)


TABLE = (
    _row("create_thread", "user", 10),
    _row("delete_thread", "user", 10),
    _row("update_thread", "thread", 5),
    _row("add_participants remove_participant", "thread", 10, 30),
    _row("get_thread list_threads", "user", 50),
    _row("get_message", "user+thread", 50),
    _row("get_message", "thread", 250),
    _row("list_messages", "user+thread", 50, 200),
    _row("list_messages", "thread", 250, 400),
    _row("list_participants", "user+thread", 10),
    _row("list_participants", "thread", 250),
    _row("list_read_receipts", "user+thread", 5),
    _row("list_read_receipts", "thread", 100),
    _row("send_message update_message delete_message", "thread", 10, 30),
    _row("send_read_receipt", "user+thread", 10, 30),
    _row("send_typing_notification", "user+thread", 5, 15),
    _row("send_typing_notification", "thread", 10, 30),
    Row(("create_user",), "resource", (Limit(1000, 30),)),
    Row(("issue_token",), "resource", (Limit(1000, 30),)),
    Row(("delete_user",), "resource", (Limit(500, 30),)),
    Row(("revoke_tokens",), "resource", (Limit(500, 30),)),
    Row(("exchange_token",), "resource", (Limit(500, 30),)),
)

_MAX_COUNTERS = 200_000


class Quotas:
    """Counts requests against the table."""

    def __init__(self, table: tuple[Row, ...] = TABLE) -> None:
        self._rows: dict[str, list[tuple[int, Row]]] = {}
        for number, row in enumerate(table):
            for operation in row.operations:
                self._rows.setdefault(operation, []).append((number, row))
        self._counters: dict[tuple[object, ...], deque[int]] = {}

    def admit(self, operation: str, user: str, thread: str, now: int, quirks: Quirks) -> float:
        """Count a request and return 0, or return the seconds until it would be allowed."""
        counters: list[deque[int]] = []
        wait = 0
        for number, row in self._rows.get(operation, ()):
            times = self._counter(number, row, operation if quirks.quota_rows == "each" else "", user, thread)
            counters.append(times)
            for limit in row.limits:
                wait = max(wait, _wait(times, limit, now, quirks))
        if wait <= 0 or quirks.refused_requests == "counted":
            for times in counters:
                times.append(now)
        return max(0, wait) / 1000

    def clear(self) -> None:
        """Reset all counters."""
        self._counters.clear()

    def _counter(self, number: int, row: Row, operation: str, user: str, thread: str) -> deque[int]:
        bucket = row.bucket
        key: tuple[object, ...] = (
            number,
            operation,
            user if bucket in {"user", "user+thread"} else "",
            thread if bucket in {"thread", "user+thread"} else "",
        )
        times = self._counters.get(key)
        if times is None:
            if len(self._counters) >= _MAX_COUNTERS:
                self._counters.clear()
            times = self._counters[key] = deque(maxlen=max(limit.count for limit in row.limits))
        return times


def _wait(times: deque[int], limit: Limit, now: int, quirks: Quirks) -> int:
    """Return the milliseconds until another request is allowed."""
    if len(times) < limit.count:
        return 0
    width = limit.seconds * 1000
    first = times[-limit.count]
    if quirks.quota_window == "fixed":
        return width - now % width if first // width == now // width else 0
    return max(0, first + width - now)
