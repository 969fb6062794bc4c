"""Where what was expected and what happened differ, as lines that people read. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Final

from chatbot.testing.script import Script
from chatbot.testing.step import Step, as_it_read, final_replies

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


def other_replies(script: Script, done: Sequence[Step]) -> Iterator[tuple[str, list[str]]]:
    """Show what bots say otherwise, one after the other, each with its lines. How their replies mix with what people
    say does not count: people do not wait for bots, and in a performance they do.
    """
    for bot in script.bots:
        before, now = final_replies(script.steps, bot), final_replies(done, bot)
        if [one.key for one in before] != [one.key for one in now]:
            shown = [one for one in as_it_read(done, script.bots) if one.who == bot or one.who not in script.bots]
            yield bot, difference(_among(shown, before, now), shown)


def _among(done: Sequence[Step], before: Sequence[Step], now: Sequence[Step]) -> list[Step]:
    """What was done, with a bot's earlier replies in the place of those it gives now."""
    matcher = SequenceMatcher(None, [one.key for one in before], [one.key for one in now], autojunk=False)
    places: dict[int, list[Step]] = {}
    for tag, first, last, begin, _ in matcher.get_opcodes():
        for offset, step in enumerate(before[first:last]):
            places.setdefault(begin + offset if tag == "equal" else begin, []).append(step)
    mixed: list[Step] = []
    count = 0
    for step in done:
        if step not in now:
            mixed.append(step)
            continue
        mixed += places.pop(count, [])
        count += 1
    return [*mixed, *(step for rest in places.values() for step in rest)]


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
