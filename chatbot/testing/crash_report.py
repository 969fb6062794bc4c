"""What came of killing a bot at every point of a conversation, for people to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chatbot.testing.fate import Kind, Point

SHOWN_VIOLATIONS: Final = 5


@dataclass(frozen=True, slots=True)
class Violation:
    """A run that did not end as the undisturbed one.

    Args:
        point: where the bots were killed; None if they were not, so that the fault alone did it.
        fault: what the service did to them.
        wrong: what is wrong, a sentence each.
        transcript: the conversation.
    """

    point: Point | None
    fault: str
    wrong: Sequence[str]
    transcript: str

    def __str__(self) -> str:
        where = f"killed at {self.point}" if self.point else "not killed"
        lines = [f"{where}, {f'under {self.fault}' if self.fault else 'without a fault'}:"]
        lines += [f"  {sentence}" for sentence in self.wrong]
        lines += [f"    {line}" for line in self.transcript.splitlines()]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class CrashReport:
    """What came of all the kills.

    Args:
        points: how many points there were under each fault, by kind.
        runs: how often the conversation was played.
        violations: the runs that did not end well.
        unreached: kills that never came, as the run took another way; 0 unless the bots or the script do something
            random that `random` does not know of.
    """

    points: Mapping[str, Mapping[Kind, int]]
    runs: int
    violations: Sequence[Violation]
    unreached: int = 0

    @property
    def count(self) -> int:
        """How many points there were in all."""
        return sum(sum(kinds.values()) for kinds in self.points.values())

    @property
    def is_clean(self) -> bool:
        """Whether all was as it would have been without a kill."""
        return not self.violations

    def __str__(self) -> str:
        kinds = [kind for kind in Kind if any(kind in counts for counts in self.points.values())]
        width = max(len(text) for text in ("fault", "none", *self.points))
        lines = [f"{'fault':{width}}  {'points':>6}  {'  '.join(kinds)}"]
        for fault, counts in self.points.items():
            cells = "  ".join(f"{counts.get(kind, 0):{len(kind)}}" for kind in kinds)
            lines.append(f"{fault or 'none':{width}}  {sum(counts.values()):6}  {cells}")
        lines.append(f"{self.count} crash points in {self.runs} runs: {len(self.violations)} violations")
        if self.unreached:
            lines.append(f"{self.unreached} points were not reached again: something in the chat is random")
        lines += [f"\n{violation}" for violation in self.violations[:SHOWN_VIOLATIONS]]
        if len(self.violations) > SHOWN_VIOLATIONS:
            lines.append(f"\n… and {len(self.violations) - SHOWN_VIOLATIONS} more")
        return "\n".join(lines)
