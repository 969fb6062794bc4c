"""A recording: the messages of a thread as the steps of a script, with everybody masked. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

from chatbot.cli.masks import Masks
from chatbot.dispatch.plaintext import plain_text
from chatbot.model import ChatMessage, MessageType, UserId
from chatbot.testing.step import Step, Verb, as_written

PAUSE_MS: Final = 60_000
"""Shorter pauses are not worth a line."""


def recorded(messages: Sequence[ChatMessage], bots: Mapping[UserId, str]) -> list[Step]:
    """Make steps of messages: as they read now, without those that were taken back.

    Args:
        messages: of one thread, in any order.
        bots: the bots' names, which are kept.
    """
    ordered = sorted(messages, key=lambda one: one.number)
    recorder = _Recorder(bots, Masks(_people(ordered, bots), bots.values()))
    return list(recorder.steps(ordered))


def _people(messages: Sequence[ChatMessage], bots: Mapping[UserId, str]) -> dict[UserId, str | None]:
    """Everybody who is no bot, in the order in which they appear, with the latest name they went by."""
    people: dict[UserId, str | None] = {}
    for message in messages:
        named = [(one.user, one.display_name) for one in message.participants]
        for user, name in [*named, (message.initiator, None), (message.sender, message.sender_display_name)]:
            if user is not None and user not in bots:
                people[user] = name or people.get(user)
    return people


_LINE_ENDS: Final = re.compile("\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_CONTROLS: Final = re.compile("[\0-\x08\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_HALF_PAIRS: Final = re.compile("[\ud800-\udfff]")


def without_controls(text: str) -> str:
    """The text as a file may hold it: line ends of one kind, no control characters, no half of a surrogate pair."""
    return _HALF_PAIRS.sub("\ufffd", _CONTROLS.sub("", _LINE_ENDS.sub("\n", text)))


class _Recorder:
    """Writes one thread down."""

    def __init__(self, bots: Mapping[UserId, str], masks: Masks) -> None:
        self._bots = bots
        self._masks = masks
        self._present: set[UserId] = set()
        self._removed: set[UserId] = set()

    def steps(self, messages: Sequence[ChatMessage]) -> Iterator[Step]:
        before: int | None = None
        for message in messages:
            steps = list(self._steps(message))
            if not steps:
                continue
            if before is not None and message.number - before >= PAUSE_MS:
                yield Step(Verb.WAITS, duration=timedelta(minutes=math.ceil((message.number - before) / PAUSE_MS)))
            before = message.number
            yield from steps

    def _steps(self, message: ChatMessage) -> Iterator[Step]:
        if message.is_said:
            yield from self._said(message)
        elif message.type is MessageType.PARTICIPANT_ADDED:
            yield from self._added(message)
        elif message.type is MessageType.PARTICIPANT_REMOVED:
            yield from self._left(message)
        elif message.type is MessageType.TOPIC_UPDATED and message.initiator is not None:
            yield Step(
                Verb.RENAMES,
                self._name(message.initiator),
                " ".join(self._masks.text(without_controls(message.topic or "")).split()),
            )

    def _said(self, message: ChatMessage) -> Iterator[Step]:
        text = without_controls(plain_text(message.content) if message.type is MessageType.HTML else message.content)
        if message.sender is not None and message.deleted_on is None and as_written(text):
            yield Step(Verb.SAYS, self._name(message.sender), self._masks.text(text))

    def _added(self, message: ChatMessage) -> Iterator[Step]:
        people = [one.user for one in message.participants if one.user not in self._bots]
        back = [one.user for one in message.participants if one.user in self._removed]
        host = message.initiator if message.initiator in self._present else None
        if host is None or host in people:
            yield from (Step(Verb.JOINS, self._name(user)) for user in people)
            arrived = back if host is not None else []
        else:
            arrived = [*people, *back]
        if arrived and host is not None:
            yield Step(Verb.ADDS, self._name(host), ", ".join(self._name(user) for user in arrived))
        self._present.update(people)
        self._removed.difference_update(back)

    def _left(self, message: ChatMessage) -> Iterator[Step]:
        for user in (one.user for one in message.participants):
            self._present.discard(user)
            if user not in self._bots or message.initiator in (user, None):
                yield Step(Verb.LEAVES, self._name(user))
            elif message.initiator is not None:
                yield Step(Verb.REMOVES, self._name(message.initiator), self._name(user))
            if user in self._bots:
                self._removed.add(user)

    def _name(self, user: UserId) -> str:
        return self._bots.get(user) or self._masks.person(user)
