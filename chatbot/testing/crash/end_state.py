"""End states: how a chat ended, without what differs between runs, and the differences between two of them. Pure.

A kill costs time, and changes the ids and times that the service gives. Nothing else may differ between two runs.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from chatbot.events import (
    ActionFailed,
    Event,
    MessageDeleted,
    MessageEvent,
    ParticipantsAdded,
    ParticipantsRemoved,
)

_KEY: Final = re.compile(r"\bk[0-9a-f]{32}\b")
_TIMES: Final = re.compile(r"(?<!\d)1[67]\d{11}(?!\d)")
"""Milliseconds since 1970 as the service's ids and versions have them, on the days of a virtual clock."""


@dataclass(frozen=True, slots=True)
class RoomState:
    """How one room ended.

    Args:
        replies: name and final text of what bots said, in order.
        handled: the events that handlers were given, in the order of the last time of each.
        read: by bot in the room, the text up to which it has sent read receipts.
        people: the names of all who are in the room.
        topic: the topic.
    """

    replies: Sequence[tuple[str, str]]
    handled: Sequence[str]
    read: Mapping[str, str]
    people: Sequence[str]
    topic: str


@dataclass(frozen=True, slots=True)
class EndState:
    """How a chat ended.

    Args:
        rooms: its rooms, in the order in which they were opened.
        stored: what is in the store, by kind.
    """

    rooms: Sequence[RoomState]
    stored: Mapping[str, Sequence[str]] = field(default_factory=dict)


def without_times(text: str) -> str:
    """Replace the ids and times of the service, which differ between runs."""
    return _TIMES.sub("<time>", text)


def without_ids(value: str, names: Mapping[str, str]) -> str:
    """Replace user ids in a stored state (JSON text) by names, and the keys of messages and timers by "a key".

    User ids differ between runs, and keys are made from the bot's id.
    """
    value = _KEY.sub("a key", value)
    for user, name in names.items():
        value = value.replace(user, json.dumps(name)[1:-1])
    return without_times(json.dumps(json.loads(value), sort_keys=True, ensure_ascii=False))


def describe_event(event: Event, names: Mapping[str, str]) -> str:
    """Describe an event without ids and times."""
    kind = type(event).__name__
    if isinstance(event, ParticipantsAdded | ParticipantsRemoved):
        return f"{kind} {', '.join(names.get(member.user, member.user) for member in event.participants)}"
    if isinstance(event, MessageEvent) and not isinstance(event, MessageDeleted):
        return without_times(f"{kind} {event.message.content!r}")
    if isinstance(event, ActionFailed):
        return without_times(f"{kind} {event.action!r}: {event.reason}")
    return kind


def differences(expected: EndState, actual: EndState) -> list[str]:
    """Return what differs from the expected end state, one sentence each."""
    wrong: list[str] = []
    for number, (there, here) in enumerate(zip(expected.rooms, actual.rooms, strict=False)):
        where = f" in room {number}" if len(expected.rooms) > 1 else ""
        wrong += [f"{sentence}{where}" for sentence in _room_differences(there, here)]
    if len(expected.rooms) != len(actual.rooms):
        wrong.append(f"there are {len(actual.rooms)} rooms, not {len(expected.rooms)}")
    for kind in sorted({*expected.stored, *actual.stored}):
        wanted, got = expected.stored.get(kind, ()), actual.stored.get(kind, ())
        if wanted != got:
            wrong.append(f"{kind}: {_listed(got)}; without the crash: {_listed(wanted)}")
    return wrong


def _room_differences(expected: RoomState, actual: RoomState) -> list[str]:
    wanted, got = Counter(expected.replies), Counter(actual.replies)
    wrong = [f"missing: {name}: {text!r}" for name, text in wanted - got]
    for reply in got - wanted:
        kind = "doubled" if reply in wanted else "unexpected"
        wrong.append(f"{kind}: {reply[0]}: {reply[1]!r}")
    if not wrong and list(expected.replies) != list(actual.replies):
        wrong.append(f"out of order: {[text for _, text in actual.replies]}")
    lost = Counter(expected.handled) - Counter(actual.handled)
    wrong += [f"never handled: {event}" for event in lost]
    if not lost and _only_expected(actual.handled, expected.handled) != list(expected.handled):
        wrong.append(f"handled out of order: {_listed(actual.handled)}")
    for what in ("read", "people", "topic"):
        wanted, got = getattr(expected, what), getattr(actual, what)
        if wanted != got:
            wrong.append(f"{what}: {got}, not {wanted}")
    return wrong


def _only_expected(handled: Sequence[str], expected: Sequence[str]) -> list[str]:
    """Drop repeated and additional events from what was handled: neither is a loss of order."""
    surplus = Counter(handled) - Counter(expected)
    kept: list[str] = []
    for event in handled:
        if surplus[event]:
            surplus[event] -= 1
        else:
            kept.append(event)
    return kept


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items) or "nothing"
