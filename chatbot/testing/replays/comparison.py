"""Compare the recorded answers of bots with those of a replay. Pure.

Replies are compared in pairs: an old and a new one with the same key. Where the keys are others, because a handler was
renamed, equal texts in order are pairs, and what lies between them. What differs between the two runs of a replay, or
was made from the clock or from random numbers, is not repeatable; it is not counted as a difference.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from difflib import SequenceMatcher
from enum import StrEnum
from typing import Any

from chatbot.testing.chat_files.script import Script, ScriptStep, Verb, final_replies, find_target, with_final_texts
from chatbot.testing.replays.recording import Recording, Reply, Step, StepKind

Json = dict[str, Any]


class Mark(StrEnum):
    """How a reply of the replay compares with the recorded one."""

    SAME = "same"
    DIFFERENT = "different"
    MISSING = "missing"
    NEW = "new"
    NOT_REPEATABLE = "not repeatable"


@dataclass(frozen=True, slots=True)
class Pair:
    """A recorded reply and that of the replay; one of them may be missing.

    Args:
        old: as recorded.
        new: of the first run.
        mark: how they compare.
        reasons: why the reply is not repeatable: what its handler reads, and where.
        answers: the id of the message that it answers; empty if that is not known.
    """

    old: Reply | None
    new: Reply | None
    mark: Mark
    reasons: tuple[str, ...] = ()
    answers: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of a replay.

    Args:
        rows: what people did and what the bots answered, in order.
        stories: what the bots did with each event, in the first run.
        refused: what the guard has refused, and where.
        problems: why the replay is not complete.
    """

    rows: Sequence[Step | Pair]
    stories: Sequence[Json] = ()
    refused: Sequence[Mapping[str, str]] = ()
    problems: Sequence[str] = field(default_factory=tuple)

    @property
    def pairs(self) -> list[Pair]:
        """All pairs of replies."""
        return [row for row in self.rows if isinstance(row, Pair)]

    def count(self, mark: Mark) -> int:
        """Return how many pairs have a mark."""
        return sum(pair.mark is mark for pair in self.pairs)


class _Result:
    """What one run has found, in the terms of the recording."""

    def __init__(self, result: Json) -> None:
        self.replies = [Reply(**reply) for reply in result["replies"]]
        self.stories: list[Json] = result["stories"]
        self._unrepeatable = [story for story in self.stories if "unrepeatable" in story]
        self._messages = {
            step["key"]: story.get("message", "")
            for story in self.stories
            for step in story["steps"]
            if step["kind"] == "action"
        }
        self._by_key = {
            step["key"]: _reasons(story["unrepeatable"])
            for story in self._unrepeatable
            for step in story["steps"]
            if step["kind"] == "action"
        }

    def message_of(self, key: str | None) -> str:
        """Return the id of the message that the reply with a key answers."""
        return self._messages.get(key, "") if key else ""

    def reasons_of(self, key: str | None) -> tuple[str, ...]:
        """Return why the reply with a key is not repeatable."""
        return self._by_key.get(key, ()) if key else ()

    def reasons_in(self, messages: Sequence[str], bots: Mapping[str, str], bot: str) -> tuple[str, ...]:
        """Return why what a bot does with some messages is not repeatable."""
        mine = (story for story in self._unrepeatable if bots.get(story["bot"]) == bot)
        return tuple(
            text for story in mine if story.get("message") in messages for text in _reasons(story["unrepeatable"])
        )


def _reasons(noted: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    return tuple(f"{one['what']}, read at {one['place']}" for one in noted)


def compare(recording: Recording, results: Sequence[Json]) -> Comparison:
    """Compare a recording with the two runs of its replay.

    Args:
        recording: what was replayed.
        results: of both runs.
    """
    first, second = map(_Result, results)
    times = [step.ms for step in recording.steps]
    olds = _pairs(recording.replies, first.replies, times)
    others: dict[int, Reply | None] = {}
    for mine, other in _pairs(first.replies, second.replies, times):
        if mine is not None:
            others[mine.id] = other
    seconds = _pairs(recording.replies, second.replies, times)
    in_second = {old.id: new for old, new in seconds if old is not None}
    unmatched = [new for old, new in seconds if old is None and new is not None]
    known_keys = {reply.key for reply in first.replies}
    users = {bot.name: str(bot.user) for bot in recording.bots}
    pairs: list[Pair] = []
    for old, new in olds:
        if new is None:
            assert old is not None
            reasons = _reasons_of_absence(first, second, recording.steps, times, users, old)
            is_stable = in_second.get(old.id) is None and not reasons
            pairs.append(Pair(old, None, Mark.MISSING if is_stable else Mark.NOT_REPEATABLE, reasons))
            continue
        reasons = first.reasons_of(new.key)
        judged = _judge(old, new, others.get(new.id), reasons)
        pairs.append(replace(judged, answers=first.message_of(new.key)))
    pairs += [
        Pair(None, new, Mark.NOT_REPEATABLE, second.reasons_of(new.key))
        for new in unmatched
        if new.key not in known_keys and not any(pair.new is not None and _is_like(pair.new, new) for pair in pairs)
    ]
    refused = {(one["what"], one["place"]): one for result in results for one in result["refused"]}
    problems = list(dict.fromkeys(problem for result in results for problem in result["problems"]))
    return Comparison(list(_rows(recording.steps, pairs)), first.stories, list(refused.values()), problems)


def _judge(old: Reply | None, new: Reply, other: Reply | None, reasons: tuple[str, ...]) -> Pair:
    if old is not None and _is_same(old, new) and other is not None and _is_same(new, other):
        return Pair(old, new, Mark.SAME)
    if reasons or other is None or not _is_same(new, other):
        return Pair(old, new, Mark.NOT_REPEATABLE, reasons)
    return Pair(old, new, Mark.NEW if old is None else Mark.DIFFERENT)


def _is_same(one: Reply, other: Reply) -> bool:
    return (one.text, one.is_html) == (other.text, other.is_html)


def _is_like(one: Reply, other: Reply) -> bool:
    return one.bot == other.bot and one.id == other.id


def _reasons_of_absence(
    first: _Result, second: _Result, steps: Sequence[Step], times: Sequence[int], users: Mapping[str, str], old: Reply
) -> tuple[str, ...]:
    """Return why an answer that is missing now may have been there by chance."""
    at = bisect_right(times, old.id)
    messages = [str(steps[at - 1].ms)] if at else []
    found = (*first.reasons_in(messages, users, old.bot), *second.reasons_in(messages, users, old.bot))
    return tuple(dict.fromkeys(found))


def _pairs(
    olds: Sequence[Reply], news: Sequence[Reply], times: Sequence[int]
) -> list[tuple[Reply | None, Reply | None]]:
    """Pair the replies of two runs: by key; else, for each bot, equal texts in order, and what lies between them."""
    by_key = {reply.key: reply for reply in news if reply.key is not None}
    partner = {old.id: by_key[old.key] for old in olds if old.key is not None and old.key in by_key}
    taken = {new.id for new in partner.values()}
    for bot in dict.fromkeys(old.bot for old in olds):
        rest = [old for old in olds if old.bot == bot and old.id not in partner]
        left = [new for new in news if new.bot == bot and new.id not in taken]
        for old, new in _in_order(rest, left, times):
            partner[old.id] = new
            taken.add(new.id)
    found: list[tuple[Reply | None, Reply | None]] = [(old, partner.get(old.id)) for old in olds]
    return [*found, *((None, new) for new in news if new.id not in taken)]


def _in_order(olds: Sequence[Reply], news: Sequence[Reply], times: Sequence[int]) -> Iterator[tuple[Reply, Reply]]:
    """Yield pairs of equal texts; between them, as many as before are pairs, others only between the same lines."""
    matcher = SequenceMatcher(None, [one.text for one in olds], [one.text for one in news], autojunk=False)
    for tag, first, last, begin, end in matcher.get_opcodes():
        before, after = olds[first:last], news[begin:end]
        if tag == "equal" or len(before) == len(after):
            yield from zip(before, after, strict=True)
            continue
        gaps: dict[int, list[Reply]] = {}
        for new in after:
            gaps.setdefault(bisect_right(times, new.id), []).append(new)
        for old in before:
            if same := gaps.get(bisect_right(times, old.id)):
                yield old, same.pop(0)


def _rows(steps: Sequence[Step], pairs: Sequence[Pair]) -> Iterator[Step | Pair]:
    """Yield lines of people and pairs of replies in the order of their times; new replies by their own."""

    def place(row: Step | Pair) -> int:
        if isinstance(row, Step):
            return row.ms
        found = row.old or row.new
        assert found is not None
        return found.id

    rows: list[Step | Pair] = [*steps, *pairs]
    yield from sorted(rows, key=lambda row: (place(row), isinstance(row, Pair)))


def as_json(comparison: Comparison) -> Json:
    """Return a comparison for the page, without the stories."""
    return {
        "rows": [_step(row) if isinstance(row, Step) else _pair(row) for row in comparison.rows],
        "refused": list(comparison.refused),
        "problems": list(comparison.problems),
        "counts": {mark.value: comparison.count(mark) for mark in Mark},
    }


def _step(step: Step) -> Json:
    facts = {"kind": str(step.kind), "id": str(step.ms), "user": step.user, "name": step.name, "text": step.text}
    facts |= {"before": step.before} if step.before is not None else {}
    if step.kind is StepKind.SAYS:
        return {**facts, "is_html": step.is_html}
    return {**facts, "people": [{"user": one.user, "name": one.display_name or ""} for one in step.people]}


def _pair(pair: Pair) -> Json:
    found = pair.new or pair.old
    assert found is not None
    return {
        "kind": "reply",
        "id": str((pair.old or found).id),
        "user": found.bot,
        "mark": pair.mark.value,
        "answers": pair.answers,
        "reasons": list(pair.reasons),
        "key": found.key,
        "old": None if pair.old is None else {"text": pair.old.text, "is_html": pair.old.is_html},
        "new": None if pair.new is None else {"text": pair.new.text, "is_html": pair.new.is_html},
    }


# ── `.chat` files ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Unrepeatable:
    """A reply in a replay of a `.chat` file that is not repeatable.

    Args:
        step: of the replay.
        number: the line of the file that it stands for; 0 if there is none.
        reasons: what its handler reads, and where.
    """

    step: ScriptStep
    number: int
    reasons: tuple[str, ...] = ()


def repeatable_steps(
    script: Script, steps: Sequence[ScriptStep], others: Sequence[ScriptStep], noted: Mapping[int, Sequence[Json]]
) -> tuple[list[ScriptStep], list[Unrepeatable]]:
    """Return the steps of a run, with what is not repeatable as the file has it; and what is not repeatable.

    Args:
        script: the file.
        steps: of the first run.
        others: of the second run.
        noted: what the handlers of bots' steps read that is not repeatable, by the number of the step.
    """
    numbered = [replace(step, number=-at) if step.who in script.bots else step for at, step in enumerate(steps, 1)]
    reasons = {-at - 1: _reasons(found) for at, found in noted.items()}
    for at in _other_steps(steps, others, script.bots):
        reasons.setdefault(-at - 1, ())
    for number in [number for number in reasons if steps[-number - 1].verb is Verb.EDITS]:
        said = [one for one in numbered[: -number - 1] if one.who == steps[-number - 1].who and one.verb is Verb.SAYS]
        target = find_target(said, steps[-number - 1])
        if target is not None:
            reasons.setdefault(said[target].number, reasons[number])
    found: list[Unrepeatable] = []
    settled: dict[int, ScriptStep | None] = {}
    final = with_final_texts(numbered, script.bots)
    for bot in script.bots:
        before = final_replies(script.steps, bot)
        now = [step for step in final if step.who == bot and step.verb is Verb.SAYS]
        for old, new in _aligned(before, now):
            if new is None or new.number not in reasons:
                continue
            settled[new.number] = old
            if old is None or old.key != new.key or not reasons[new.number]:
                found.append(Unrepeatable(new, old.number if old else 0, reasons[new.number]))
    kept = [settled.get(step.number, step) if step.who in script.bots else step for step in final]
    return [step for step in kept if step is not None], found


def _aligned(
    before: Sequence[ScriptStep], now: Sequence[ScriptStep]
) -> Iterator[tuple[ScriptStep | None, ScriptStep | None]]:
    matcher = SequenceMatcher(None, [step.key for step in before], [step.key for step in now], autojunk=False)
    for _, first, last, begin, end in matcher.get_opcodes():
        size = min(last - first, end - begin)
        yield from zip(before[first : first + size], now[begin : begin + size], strict=True)
        yield from ((step, None) for step in before[first + size : last])
        yield from ((None, step) for step in now[begin + size : end])


def _other_steps(steps: Sequence[ScriptStep], others: Sequence[ScriptStep], bots: Sequence[str]) -> set[int]:
    """Return the places of the bots' steps of a run that another run of the same file did not take alike."""
    found: set[int] = set()
    for part, counterpart in zip(_parts(steps, bots), _parts(others, bots), strict=False):
        for bot in bots:
            mine = [at for at in part if steps[at].who == bot]
            theirs = [others[at].key for at in counterpart if others[at].who == bot]
            found |= {at for n, at in enumerate(mine) if n >= len(theirs) or theirs[n] != steps[at].key}
    return found


def _parts(steps: Sequence[ScriptStep], bots: Sequence[str]) -> list[list[int]]:
    """Return the places of the bots' steps between each two steps of people."""
    parts: list[list[int]] = [[]]
    for at, step in enumerate(steps):
        if step.who in bots:
            parts[-1].append(at)
        else:
            parts.append([])
    return parts


def steps_of(result: Json) -> list[ScriptStep]:
    """Return the steps in the result of a run of a `.chat` file."""
    return [
        ScriptStep(
            Verb(step["verb"]),
            step["who"],
            step["text"],
            step["target"],
            timedelta(seconds=step["seconds"]),
            step["number"],
        )
        for step in result["steps"]
    ]
