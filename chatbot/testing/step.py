"""A step of a conversation: one thing that a person or a bot did, or that time passed; and how it is written down.

The same words are read from `.chat` files, written by recordings, and shown where a bot said something else.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Final

UNITS: Final[Mapping[str, timedelta]] = {
    "week": timedelta(weeks=1),
    "day": timedelta(days=1),
    "hour": timedelta(hours=1),
    "minute": timedelta(minutes=1),
    "second": timedelta(seconds=1),
}


class Verb(StrEnum):
    """What can happen in a conversation, by the word that `.chat` files have for it."""

    SAYS = "says"
    EDITS = "edits"
    DELETES = "deletes"
    JOINS = "joins"
    LEAVES = "leaves"
    ADDS = "adds"
    REMOVES = "removes"
    RENAMES = "sets the topic"
    WAITS = "later"
    RESTARTS = "restart"


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Args:
        verb: what happened.
        who: the person or bot; empty where time passes or the bots are restarted.
        text: what was said; the new text, or topic; or the names of those who are added or removed.
        target: of an edit or deletion: the first line of what stood there; None is what was said last.
        duration: how much time passed.
        number: the line of the file; 0 if it comes from none.
    """

    verb: Verb
    who: str = ""
    text: str = ""
    target: str | None = None
    duration: timedelta = timedelta(0)
    number: int = 0

    @property
    def key(self) -> tuple[object, ...]:
        """What two steps must have in common to be the same."""
        return self.verb, self.who, as_written(self.text), self.duration

    @property
    def others(self) -> list[str]:
        """The names of those who are added or removed."""
        return [name.strip() for name in self.text.split(",")]

    def __str__(self) -> str:
        if self.verb is Verb.RESTARTS:
            return "(restart)"
        if self.verb is Verb.WAITS:
            return f"({_written_duration(self.duration)} later)"
        if self.verb is Verb.SAYS:
            return _with_text(f"{self.who}:", self.text)
        target = "" if self.target is None else f' "{self.target}"'
        act = f"* {self.who} {self.verb}{target}"
        if self.verb in (Verb.EDITS, Verb.RENAMES):
            return _with_text(f"{act}:", self.text)
        return f"{act} {self.text}".rstrip()


def as_written(text: str) -> str:
    """The text as a file can hold it: white space at the ends of the text and of its lines does not count."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip()


def as_it_read(steps: Iterable[Step], bots: Container[str]) -> list[Step]:
    """The steps with what these bots have said as it read in the end, where they had said it first."""
    read: list[Step] = []
    for step in steps:
        if step.who not in bots or step.verb not in (Verb.EDITS, Verb.DELETES):
            read.append(step)
            continue
        places = [place for place, one in enumerate(read) if one.who == step.who and one.verb is Verb.SAYS]
        found = find_target([read[place] for place in places], step)
        if found is not None and step.verb is Verb.EDITS:
            read[places[found]] = replace(read[places[found]], text=step.text)
        elif found is not None:
            del read[places[found]]
    return read


def final_replies(steps: Iterable[Step], who: str) -> list[Step]:
    """What somebody has said and not taken back, in order, as it read in the end."""
    own = as_it_read((step for step in steps if step.who == who), {who})
    return [step for step in own if step.verb is Verb.SAYS]


def find_target(said: list[Step], step: Step) -> int | None:
    """Which of the things said an edit or deletion means; None if it means none of them."""
    fitting = [
        place for place, one in enumerate(said) if step.target is None or first_line(one.text) == step.target.strip()
    ]
    return fitting[-1] if fitting else None


def first_line(text: str) -> str:
    """What names a message in an edit or deletion."""
    return as_written(text).partition("\n")[0].strip()


def _with_text(head: str, text: str) -> str:
    first, *more = as_written(text).split("\n")
    return "\n".join([f"{head} {first}", *(f"  {line}" if line else "" for line in more)])


def _written_duration(duration: timedelta) -> str:
    parts, rest = [], duration
    for unit, size in UNITS.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}{'s' * (count != 1)}")
    return ", ".join(parts) or "0 seconds"
