"""Event Grid: read deliveries, and decide whether they are reliable. Performs no I/O.

Rules of this module
1. A delivery only causes a poll. Its contents are not trusted: the poll reads the thread itself. So events that are
   false, repeated, late or out of order only cost a poll.
2. Event Grid delivers at least once, in any order, and a subscription can be missing, filtered or broken. So it counts
   as reliable only while the thread list shows no activity that it should have reported.

Sources: the chat events' schema (Azure documentation, "Azure Communication Services - Chat events"; threadId is in the
data of each), and "Webhook event delivery" for the handshake and the size of a delivery (1 MB).
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from msgspec import Struct

from chatbot.model import ThreadId

MAX_BYTES: Final = 1024 * 1024
"""Maximum size of a delivery."""

MAX_EVENTS: Final = 5000
"""Maximum number of events in a delivery."""

VALIDATION: Final = "Microsoft.EventGrid.SubscriptionValidationEvent"
_CHAT: Final = "Microsoft.Communication.Chat"
_MESSAGE: Final = f"{_CHAT}Message"
_MAX_TEXT: Final = 512
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")

MAX_DELAY_SECONDS: Final = 10.0
"""Maximum seconds between an activity and the arrival of its event."""

REMEMBERED_SECONDS: Final = 120.0
"""Seconds for which the last event of a thread is remembered."""

PROBATION_SECONDS: Final = 600.0
"""Seconds for which Event Grid counts as unreliable after it missed an activity."""


class InvalidDelivery(ValueError):
    """The request is not a delivery of Event Grid; the message gives the reason and never quotes the request."""


class Delivery(Struct, frozen=True):
    """The contents of a delivery.

    Args:
        threads: Threads with events.
        changed: Threads with events other than messages: participants may have changed.
        validation: Validation code, if this is the handshake.
        others: Number of events that do not concern a chat.
    """

    threads: frozenset[ThreadId]
    changed: frozenset[ThreadId] = frozenset()
    validation: str | None = None
    others: int = 0


def read_delivery(body: bytes) -> Delivery:
    """Read a delivery: a JSON array of events in Event Grid's own schema.

    Raises:
        InvalidDelivery: It is not a valid delivery.
    """
    if len(body) > MAX_BYTES:
        message = f"the delivery is larger than {MAX_BYTES} bytes"
        raise InvalidDelivery(message)
    try:
        events = json.loads(body)
    except (ValueError, RecursionError):
        message = "the delivery is not JSON"
        raise InvalidDelivery(message) from None
    if not isinstance(events, list) or len(events) > MAX_EVENTS:
        message = (
            f"the delivery is not an array of at most {MAX_EVENTS} events; set the subscription's schema to"
            " Event Grid Schema (CloudEvents are not supported)"
        )
        raise InvalidDelivery(message)
    return _read([_event(event) for event in events])


def _event(event: object) -> tuple[str, dict[str, Any]]:
    kind = event.get("eventType") if isinstance(event, dict) else None
    if not isinstance(event, dict) or not isinstance(kind, str):
        message = (
            "an event has no eventType; set the subscription's schema to Event Grid Schema (CloudEvents are not"
            " supported)"
        )
        raise InvalidDelivery(message)
    data = event.get("data")
    return kind, data if isinstance(data, dict) else {}


def _read(events: list[tuple[str, dict[str, Any]]]) -> Delivery:
    threads, changed, validation, others = set[ThreadId](), set[ThreadId](), None, 0
    for kind, data in events:
        code, thread = data.get("validationCode"), data.get("threadId")
        if kind == VALIDATION and isinstance(code, str):
            if not _is_text(code):
                message = "the validation code is not a short text"
                raise InvalidDelivery(message)
            validation = code
        elif kind.startswith(_CHAT) and _is_text(thread):
            threads.add(ThreadId(str(thread)))
            if not kind.startswith(_MESSAGE):
                changed.add(ThreadId(str(thread)))
        else:
            others += 1
    return Delivery(frozenset(threads), frozenset(changed), validation, others)


def _is_text(value: object) -> bool:
    """Return whether a value is a text that can be sent back. JSON can contain lone surrogates, UTF-8 cannot."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and not _LONE_SURROGATE.search(value)


class DeliveryReliability:
    """Decides whether the thread list may be polled less often because Event Grid reports all activity.

    Times are seconds of one clock.
    """

    __slots__ = ("_delivered_at", "_trusted_from")

    def __init__(self) -> None:
        self._delivered_at: dict[ThreadId, float] = {}
        self._trusted_from: float | None = None

    @property
    def remembered(self) -> int:
        """Number of threads with a remembered event."""
        return len(self._delivered_at)

    @property
    def is_delivered(self) -> bool:
        """Whether any event was ever delivered; otherwise there is nothing to decide."""
        return self._trusted_from is not None

    def record_delivery(self, thread: ThreadId, now: float) -> None:
        """Record an event of one of the bot's threads."""
        self._delivered_at.pop(thread, None)
        self._delivered_at[thread] = now  # the latest last
        if self._trusted_from is None:
            self._trusted_from = now
        while self._delivered_at[oldest := next(iter(self._delivered_at))] <= now - REMEMBERED_SECONDS:
            del self._delivered_at[oldest]

    def record_activity(self, thread: ThreadId, age: float, now: float) -> None:
        """Record activity in the thread list that no poll has covered yet.

        Args:
            thread: The thread.
            age: Seconds since the activity, by the service's clock.
            now: The time.
        """
        was_delivered = thread in self._delivered_at and self._delivered_at[thread] > now - REMEMBERED_SECONDS
        if age > MAX_DELAY_SECONDS and self._trusted_from is not None and not was_delivered:
            self._trusted_from = now + PROBATION_SECONDS

    def is_trusted(self, now: float) -> bool:
        """Return whether Event Grid has delivered events, and has not missed any for a while."""
        return self._trusted_from is not None and now >= self._trusted_from
