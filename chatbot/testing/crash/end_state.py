"""How a chat ended, in words that hold for another run of the same chat too; and what is wrong with one. Pure.

Two runs of a chat differ in what a kill costs: time, and with it the ids and times that the service gives. They must
not differ in anything else.
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
class StatePath:
    """How one room ended.

    Args:
        replies: what bots have said there, as it reads at last, in order: who, and what.
        handled: the events that handlers were given, each where it was handled for the last time.
        read: what bots that are there have confirmed to have read.
        people: who is there.
        topic: what it is called.
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
        places: its rooms, in the order in which they were opened.
        memory: what the bots remember, kind by kind.
    """

    places: Sequence[StatePath]
    memory: Mapping[str, Sequence[str]] = field(default_factory=dict)


def timeless(text: str) -> str:
    """A text without what no two runs have in common."""
    return _TIMES.sub("<time>", text)


def impersonal(value: str, names: Mapping[str, str]) -> str:
    """A state, JSON text, with people's names in the place of their ids, which are others in every run.

    So are the keys of messages and timers, which are made of the bot's id: of these only stays that there is one.
    """
    value = _KEY.sub("a key", value)
    for user, name in names.items():
        value = value.replace(user, json.dumps(name)[1:-1])
    return timeless(json.dumps(json.loads(value), sort_keys=True, ensure_ascii=False))


def name_of(event: Event, names: Mapping[str, str]) -> str:
    """An event in words."""
    kind = type(event).__name__
    if isinstance(event, ParticipantsAdded | ParticipantsRemoved):
        return f"{kind} {', '.join(names.get(one.user, one.user) for one in event.participants)}"
    if isinstance(event, MessageEvent) and not isinstance(event, MessageDeleted):
        return timeless(f"{kind} {event.message.content!r}")
    if isinstance(event, ActionFailed):
        return timeless(f"{kind} {event.action!r}: {event.reason}")
    return kind


def differences(expected: EndState, actual: EndState) -> list[str]:
    """What is wrong with an ending, a sentence each; nothing if it is as expected."""
    wrong: list[str] = []
    for number, (there, here) in enumerate(zip(expected.places, actual.places, strict=False)):
        where = f" in room {number}" if len(expected.places) > 1 else ""
        wrong += [f"{sentence}{where}" for sentence in _differences_of_places(there, here)]
    if len(expected.places) != len(actual.places):
        wrong.append(f"there are {len(actual.places)} rooms, not {len(expected.places)}")
    for kind in sorted({*expected.memory, *actual.memory}):
        wanted, got = expected.memory.get(kind, ()), actual.memory.get(kind, ())
        if wanted != got:
            wrong.append(f"{kind}: {_listed(got)}; without the crash: {_listed(wanted)}")
    return wrong


def _differences_of_places(expected: StatePath, actual: StatePath) -> list[str]:
    wanted, got = Counter(expected.replies), Counter(actual.replies)
    wrong = [f"missing: {name}: {text!r}" for name, text in wanted - got]
    for reply in got - wanted:
        kind = "doubled" if reply in wanted else "unexpected"
        wrong.append(f"{kind}: {reply[0]}: {reply[1]!r}")
    if not wrong and list(expected.replies) != list(actual.replies):
        wrong.append(f"out of order: {[text for _, text in actual.replies]}")
    lost = Counter(expected.handled) - Counter(actual.handled)
    wrong += [f"never handled: {event}" for event in lost]
    if not lost and _known(actual.handled, expected.handled) != list(expected.handled):
        wrong.append(f"handled out of order: {_listed(actual.handled)}")
    for what in ("read", "people", "topic"):
        wish, fact = getattr(expected, what), getattr(actual, what)
        if wish != fact:
            wrong.append(f"{what}: {fact}, not {wish}")
    return wrong


def _known(handled: Sequence[str], expected: Sequence[str]) -> list[str]:
    """Of what was handled only what was expected: being told more than once, and of more, is no loss of order."""
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
