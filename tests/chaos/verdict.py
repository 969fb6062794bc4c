"""What a thread must look like when people have talked to the `checkable` bot, and what is wrong with it. Pure."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Self

HOSTILE: Final = frozenset(
    ("exit", "interrupt", "cancel", "await", "scope", "hang", "swallow")  # noqa: RUF005 - two lines
    + ("thread", "block", "unreadable", "unstorable", "bytes", "half")
)
"""Commands whose handlers do to their bot what they can, and never succeed."""

_ASKED = re.compile(r"(?:/(?P<command>\w+) |say )(?P<number>\d+)(?P<anew> anew)?(?: .*)?")


@dataclass(frozen=True, slots=True)
class Said:
    """A message that can be seen in a thread.

    Args:
        id: when it was made.
        is_bot: whether the bot said it.
        text: how it reads now.
    """

    id: int
    is_bot: bool
    text: str

    @classmethod
    def living(cls, messages: Iterable[dict[str, Any]], bot: str) -> list[Self]:
        """What people can see of a transcript of the emulator, eldest first."""
        said = [
            cls(message["id"], message["sender"] == bot, message["text"])
            for message in messages
            if message["type"] in {"text", "html"} and "deleted" not in message
        ]
        return sorted(said, key=lambda one: one.id)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of some threads; all but `sent`, `buried`, `expected` and `visible` ought to be 0.

    Args:
        sent: messages of people.
        buried: of those, the ones whose handler never succeeds.
        expected: replies that there must be.
        visible: replies that there are.
        missing: replies that there are not.
        doubled: replies that are there more than once, or twice over.
        unexpected: replies that nobody asked for.
        disordered: replies that stand before the reply to an earlier message.
        unanswered: messages that miss a reply.
    """

    sent: int = 0
    buried: int = 0
    expected: int = 0
    visible: int = 0
    missing: int = 0
    doubled: int = 0
    unexpected: int = 0
    disordered: int = 0
    unanswered: int = 0

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    @property
    def is_clean(self) -> bool:
        """Whether the promise was kept."""
        return not (self.missing or self.doubled or self.unexpected or self.disordered)


def judge(said: Sequence[Said], *, has_order: bool = True) -> Verdict:
    """Judge one thread.

    Args:
        said: all that is visible, eldest first.
        has_order: whether the service showed the messages of people in their order, so that the replies must keep it.
    """
    asked = [one.text for one in said if not one.is_bot]
    replies = [one.text for one in said if one.is_bot]
    answers = answers_to(asked)
    if not has_order:
        replies = [_without_count(text) for text in replies]
        answers = [tuple(map(_without_count, texts)) for texts in answers]
    wanted = {text: place for place, texts in enumerate(answers) for text in texts}
    possible = {reply_before_correction(text) for text in asked} - {None}
    counts = Counter(replies)
    return Verdict(
        sent=len(asked),
        buried=sum(not texts for texts in answers),
        expected=len(wanted),
        visible=len(replies),
        missing=len(wanted.keys() - counts.keys()),
        doubled=sum(count - 1 for count in counts.values()),
        unexpected=len(counts.keys() - wanted.keys() - possible),
        unanswered=sum(not counts.keys() >= set(texts) for texts in answers),
        disordered=_disorder([wanted[text] for text in replies if _has_place(text, wanted)]) if has_order else 0,
    )


def longest_wait(said: Sequence[Said]) -> float:
    """How many seconds the reply that came latest after its message took, corrections left aside."""
    people = [one for one in said if not one.is_bot]
    answers = answers_to([one.text for one in people])
    asked = {text: one.id for one, texts in zip(people, answers, strict=True) for text in texts}
    waits = [one.id - asked[one.text] for one in said if one.is_bot and _has_place(one.text, asked)]
    return max(waits, default=0) / 1000


def answers_to(asked: Sequence[str]) -> list[tuple[str, ...]]:
    """What the bot must have answered to each message of a thread as it reads now.

    Nothing where its handler never succeeds. Counts go by the order of the messages.

    Raises:
        ValueError: nobody says this to the checkable bot.
    """
    counts = itertools.count(1)
    return [_answer_to(text, counts) for text in asked]


def _answer_to(text: str, counts: Iterator[int]) -> tuple[str, ...]:
    asked = _ASKED.fullmatch(text)
    if asked is None:
        message = f"{text!r} is nothing that the checkable bot is asked"
        raise ValueError(message)
    number = asked["number"]
    match asked["command"]:
        case "two":
            return f"{number} a", f"{number} b"
        case "fix":
            return (f"{number} fixed",)
        case "count":
            return (f"{number} is {next(counts)}",)
        case "tell":
            return (f"{number} once upon a time",)
        case "poison" | "die":
            return ()
        case command if command in HOSTILE:
            return ()
    return (f"{number} anew" if asked["anew"] else number,)


def reply_before_correction(text: str) -> str | None:
    """What the bot may have answered before a message was corrected."""
    asked = _ASKED.fullmatch(text)
    return asked["number"] if asked and asked["anew"] else None


def _without_count(text: str) -> str:
    return re.sub(r" is \d+$", " is one", text)


def _has_place(text: str, wanted: Mapping[str, int]) -> bool:
    """The reply to a correction stands where the correction was seen, not where the message was."""
    return text in wanted and not text.endswith(" anew")


def _disorder(places: Iterable[int]) -> int:
    furthest, count = -1, 0
    for place in places:
        count += place < furthest
        furthest = max(furthest, place)
    return count
