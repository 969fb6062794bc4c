"""Stories: what people do, and what happens to replicas, the database and the service. A seed gives a story. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

SECONDS: Final = 40.0
"""How long people talk and things go wrong, in seconds of virtual time."""

THREADS: Final = 7
"""How many threads people use at any time; each begins with the first message in it."""

FRESH_THREADS: Final = 6
"""How many more there are at most, each of which begins while its owner changes; nothing else is said there."""

KNOWN_THREADS: Final = 3
"""How many of them the bot is in before the story begins: an action for a thread that it does not know fails."""

SHORT: Final = (0.2, 4.5)
"""Seconds of a pause or partition that ends before the session does; some end before anything but a commit fails."""

LONG: Final = (6.5, 13.0)
"""Seconds of a pause or partition during which others take over."""

FAULTS: Final = (
    "send_message:reset-after,times=2",
    "send_message:stale=4,times=2",
    "send_message:503,times=2",
    "list_messages:truncate,times=3",
    "list_messages:reset-after,times=3",
    "list_threads:503,times=3",
    "*:latency=0.2..2,times=12",
    "*:503,probability=0.3,times=8",
    "*:429,probability=0.2,times=4",
)
"""What the service does to the bot."""

SAYINGS: Final = ("say",) * 7 + ("slow", "slow", "two", "tally", "tally", "tell", "remind", "remind", "edit", "forget")
"""What people do, as often as it stands here."""

DISTURBANCES: Final = (
    ("kill", "kill", "leave", "pause", "pause", "cut store", "cut store", "cut store", "cut all", "cut service")
    + ("kill after send",) * 3
    + ("freeze send",) * 3
    + ("refuse",) * 3
    + ("rejoin askew", "visit", "visit", "lag", "fault", "fault", "drop notes")
)
"""What goes wrong, as often as it stands here."""

MOVES: Final = frozenset({"kill", "leave", "pause", "cut store", "cut all", "kill after send", "rejoin askew", "visit"})
"""What lets threads change their owners."""

SILENT: Final = frozenset({"pause", "cut all"})
"""What the others notice only after a while."""

BRIEF: Final = frozenset({"kill", "kill after send", "leave", "rejoin askew"})
"""What ends with a new replica, soon."""

Add = Callable[[float, str, int, float, str], None]


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happens.

    Args:
        number: its place among all steps of its seed; what is said carries it.
        at: when, in seconds from the beginning.
        what: one of `SAYINGS` or `DISTURBANCES`, `ask` or `die`.
        where: the number of the thread, or of the replica's place.
        seconds: how long it lasts, or until what it sets in motion.
        detail: the fault.
    """

    number: int
    at: float
    what: str
    where: int = 0
    seconds: float = 0.0
    detail: str = ""

    @property
    def is_said(self) -> bool:
        """Whether a person does it."""
        return self.what in SAYINGS or self.what in {"ask", "die"}

    def __str__(self) -> str:
        place = f"thread {self.where}" if self.is_said else "service" if self.detail else f"replica {self.where + 1}"
        lasting = f" {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.number:3} {self.at:6.2f} s  {place}: {self.what}{lasting} {self.detail}".rstrip()


@dataclass(frozen=True, slots=True)
class Story:
    """What happens in a run.

    Args:
        seed: of everything random.
        replicas: how many there are.
        steps: in the order of their times.
        seconds: how long it lasts, before everything is healed.
    """

    seed: int
    replicas: int
    steps: tuple[Step, ...]
    seconds: float = SECONDS

    def only(self, numbers: Sequence[int]) -> Story:
        """Return the story with these steps alone."""
        kept = set(numbers)
        return replace(self, steps=tuple(step for step in self.steps if step.number in kept))

    @property
    def numbers(self) -> list[int]:
        """The numbers of its steps."""
        return [step.number for step in self.steps]


def story_of(seed: int, replicas: int) -> Story:
    """Return the story of a seed."""
    dice = random.Random(f"story {seed}")
    steps: list[Step] = []

    def add(at: float, what: str, where: int = 0, seconds: float = 0.0, detail: str = "") -> None:
        steps.append(Step(0, round(at, 3), what, where, round(seconds, 3), detail))

    for _ in range(dice.randint(12, 24)):
        what = dice.choice(SAYINGS)
        seconds = dice.uniform(2, 25) if what == "remind" else 0.0
        at, where = dice.uniform(0, SECONDS), dice.randrange(THREADS)
        add(at, what, where, seconds)
        if what == "tally":  # in another thread, at the same time: both count the same
            add(at + dice.uniform(0, 0.3), what, (where + 1) % THREADS)
        if what == "say" and dice.random() < 0.2:
            _add_row(dice, add, at, where)
    if dice.random() < 0.7:
        add(dice.uniform(0, SECONDS - 10), "ask", dice.randrange(THREADS), dice.uniform(0.2, 20))
    if dice.random() < 0.15:
        add(dice.uniform(0, SECONDS / 3), "die", dice.randrange(THREADS))
    else:
        _disturb(dice, replicas, add)
    steps.sort(key=lambda step: (step.at, step.what, step.where))
    numbered = tuple(
        Step(number, step.at, step.what, step.where, step.seconds, step.detail) for number, step in enumerate(steps)
    )
    return Story(seed, replicas, numbered)


def _add_row(dice: random.Random, add: Add, at: float, where: int) -> None:
    """Let a person write several messages in a row: one poll shows some of them, while others are committed."""
    for _ in range(dice.randint(1, 3)):
        at += dice.uniform(0.0, 0.8)
        add(at, "say", where, 0.0, "")


def _disturb(dice: random.Random, replicas: int, add: Add) -> None:
    fresh = iter(range(THREADS, THREADS + FRESH_THREADS))
    for _ in range(dice.randint(2, 5)):
        at, where, what = dice.uniform(2, SECONDS - 6), dice.randrange(replicas), dice.choice(DISTURBANCES)
        seconds = dice.uniform(*(SHORT if dice.random() < 0.4 else LONG))
        if what == "fault":
            add(at, what, 0, 0.0, dice.choice(FAULTS))
            continue
        lasting = seconds
        if what in BRIEF:
            lasting = dice.uniform(0.3, 6)
        elif what == "refuse":
            lasting = dice.uniform(0.3, 2)
        add(at, what, where, lasting, "")
        if what == "refuse":  # what is being handled then
            for _ in range(dice.randint(2, 4)):
                add(max(0.0, at + dice.uniform(-1, lasting)), "say", dice.randrange(THREADS), 0.0, "")
        if what in MOVES:
            _add_around(dice, add, at, lasting)
            for new in islice(fresh, dice.randint(0, 2)):
                # Of a silent owner, nobody knows yet that it will not hear of them.
                add(at + dice.uniform(0, 3.5 if what in SILENT else lasting), "say", new, 0.0, "")
        if what in {"leave", "rejoin askew"} and dice.random() < 0.5:
            # It is asked to stop while what it has just done is being stored.
            add(at - 1, "say", dice.randrange(THREADS), 0.0, "")
            add(at - 0.5, "lag", where, 3.0, "")
        if what in {"cut store", "pause"} and dice.random() < 0.3:
            # It is slow when it is back: what it has lost meanwhile, it hears late.
            add(at + lasting - 0.3, "lag", where, dice.uniform(1, 3), "")
        if what in {"cut store", "pause"} and seconds > SHORT[1] and dice.random() < 0.4:
            # Whoever takes over dies before the first one is back: nobody holds then what both believe to have.
            for other in set(range(replicas)) - {where}:
                add(at + seconds - dice.uniform(0.1, 1.0), "kill", other, dice.uniform(0.3, 6), "")


def _add_around(dice: random.Random, add: Add, at: float, seconds: float) -> None:
    """Let people write, and set timers, just before threads change their owners, and meanwhile."""
    for _ in range(dice.randint(0, 3)):
        where = dice.randrange(THREADS)
        if dice.random() < 0.5:
            add(max(0.0, at - dice.uniform(0, 2)), "remind", where, dice.uniform(0.5, 10), "")
        else:
            _add_row(dice, add, max(0.0, at - 0.5 + dice.uniform(0, seconds)), where)


def shrunk(story: Story, fails: Callable[[Story], bool]) -> Story:
    """Return a story with as few steps as possible that still fails.

    Args:
        story: one that fails.
        fails: runs a story, and returns whether it fails in the same way.
    """
    size = max(1, len(story.steps) // 2)
    while True:
        begin, has_shrunk = 0, False
        while begin < len(story.steps):
            numbers = story.numbers
            shorter = story.only(numbers[:begin] + numbers[begin + size :])
            if shorter.steps and fails(shorter):
                story, has_shrunk = shorter, True
            else:
                begin += size
        if size > 1:
            size //= 2
        elif not has_shrunk:
            return story
