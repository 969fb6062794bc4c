"""Where what was expected and what happened differ, as lines that people read. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Final

from chatbot.testing.step import Step

CONTEXT: Final = 3
"""How many steps are shown before and after a difference."""


def difference(expected: Sequence[Step], actual: Sequence[Step]) -> list[str]:
    """Show the differences: `-` is what was expected, with its line in the file; `+` is what happened.

    Returns:
        No line if there is no difference.
    """
    matcher = SequenceMatcher(None, [one.key for one in expected], [one.key for one in actual], autojunk=False)
    width = len(str(max((step.number for step in expected), default=0)))
    lines: list[str] = []
    for group in matcher.get_grouped_opcodes(CONTEXT):
        lines += ["…"] if lines else []
        for tag, first, last, begin, end in group:
            if tag == "equal":
                lines += _shown(" ", expected[first:last], width)
            else:
                lines += _shown("-", expected[first:last], width)
                lines += _shown("+", actual[begin:end], width)
    return lines


def first_difference(expected: Sequence[Step], actual: Sequence[Step]) -> int:
    """The line of the file at which they begin to differ."""
    for one, other in zip(expected, actual, strict=False):
        if one.key != other.key:
            return one.number
    rest = expected[len(actual) :] or expected[-1:]
    return rest[0].number if rest else 1


def _shown(sign: str, steps: Sequence[Step], width: int) -> Iterator[str]:
    for step in steps:
        for offset, line in enumerate(str(step).split("\n")):
            number = "" if sign == "+" or not step.number or offset else str(step.number)
            yield f"{sign} {number:>{width}}  {line}".rstrip()
