"""What a benchmark is given and what it gives back.

A benchmark is a module of this package with a `TITLE` and `run(frame: Frame) -> Report`. Every figure stands next to
its rival's of the same interleaved run; a contender is a fresh process in each round, and what counts is the processor
time of that process (user + system), so that whatever else the machine does counts little.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ROUNDS = 5
CHILD_SECONDS = 170
ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".benchmarks"


@dataclass(frozen=True)
class Row:
    """One figure. `ratio` is the median of the rounds' ratios, not the ratio of the medians."""

    name: str
    value: float | None  # None: not measured, and `note` says why
    unit: str
    rival: str = ""
    rival_value: float | None = None
    ratio: float | None = None
    target: str = ""
    note: str = ""


@dataclass(frozen=True)
class Plot:
    """Lines over an axis; written as `<name>.svg`."""

    name: str
    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    is_x_log: bool = False
    is_y_log: bool = False


@dataclass(frozen=True)
class Report:
    """What a benchmark found."""

    rows: Sequence[Row]
    plots: Sequence[Plot] = ()


class ChildFailed(Exception):
    """A contender's process did not end well; the text says what it wrote."""


@dataclass(frozen=True)
class Frame:
    """How to run: `quick` is a run of seconds that only shows that it runs; its figures mean nothing."""

    quick: bool
    workdir: Path
    say: Callable[[str], None] = field(default=lambda text: None)
    parts: frozenset[str] = frozenset()
    """The only parts to run, of a benchmark that has some; all if empty."""

    before: Sequence[Row] = ()
    """What the last run found: parts that are not run keep their figures."""

    def wants(self, part: str) -> bool:
        """Return whether to run this part."""
        return not self.parts or part in self.parts

    @property
    def rounds(self) -> int:
        """How many rounds figures are medians of."""
        return 1 if self.quick else ROUNDS

    def interleaved(
        self, contenders: Mapping[str, Callable[[], T]], *, rounds: int | None = None, seed: int = 1
    ) -> dict[str, list[T]]:
        """Call every contender once a round, in another order each time: `{name: [one result for each round]}`."""
        results: dict[str, list[T]] = {name: [] for name in contenders}
        shuffle = random.Random(seed).shuffle
        total = self.rounds if rounds is None else rounds
        for turn in range(total):
            order = list(contenders)
            shuffle(order)
            for name in order:
                self.say(f"round {turn + 1} of {total}: {name}")
                results[name].append(contenders[name]())
        return results


def child(*arguments: object, python: str | Path = sys.executable, seconds: float = CHILD_SECONDS) -> Any:
    """Run `python ARGUMENTS` in the repository's root, and return the JSON on the last line that it prints.

    A worker of a benchmark is usually the benchmark itself: `child("-m", "tests.benchmarks.store", "worker", 100)`.

    Raises:
        ChildFailed: it ended with another exit code than 0, or took longer than `seconds`.
    """
    command = [str(python), *map(str, arguments)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        text = f"{' '.join(command)} took more than {seconds:.0f} s"
        raise ChildFailed(text) from error
    if done.returncode:
        text = f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}"
        raise ChildFailed(text)
    return json.loads(done.stdout.splitlines()[-1])


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
