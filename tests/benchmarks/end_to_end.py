"""From a person's word to the bot's reply, visible, and its receipt: `chatbot run` in one process, emulator in another.

Latency: people talk at random moments, at a pace that the quotas of their threads allow. Throughput and cost: they
speak in many threads at once. Beside each of these bursts the same calls are made without a bot, in a process of
their own: by the SDK as its quickstart shows it, and by chatbot's client alone.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.benchmarks.frame import Frame, Plot, Report, Row, child, ratio
from tests.benchmarks.stack import Stack, running

TITLE = "End to end: from a person's word to the reply"

SIZES = (1, 100, 1_000, 10_000)
COMPARED = 1_000
"""The size at which the same calls are made without a bot."""

BURST = 500
RIVALS = {
    "sdk": "the same calls by the SDK, as in its quickstart",
    "client": "the same calls by chatbot's client alone",
}
MESSAGE = "a message: processor time of the bot"
RIVAL_MESSAGES = 300
RATE = 50.0
QUOTA_RATE = 0.25
"""Messages a second in one thread: with the replies, 30 a minute is all that its quota allows."""

TALK_SECONDS, LONE_TALK_SECONDS = 8.0, 24.0
PAUSE_SECONDS = 2.0
LIMIT_SECONDS = 60.0


@dataclass
class Found:
    """What came of one size."""

    talk: dict[str, Any] = field(default_factory=dict)
    bursts: list[dict[str, float]] = field(default_factory=list)
    rivals: dict[str, list[float]] = field(default_factory=dict)


def run(frame: Frame) -> Report:
    """Measure all sizes; the two smallest talk at the same time, as they leave the machine idle."""
    sizes = (1, 20) if frame.quick else SIZES
    found = {size: Found() for size in sizes}
    with ExitStack() as stacks:
        few = {size: _begin(frame, stacks, size) for size in sizes[:2]}
        for size, stack in few.items():
            stack.begin("talk", **_talk(frame, size))
        for size, stack in few.items():
            found[size].talk = stack.end()
        _burst(frame, few[sizes[1]], sizes[1], found[sizes[1]])
    for size in sizes[2:]:
        with ExitStack() as stacks:
            stack = _begin(frame, stacks, size)
            found[size].talk = stack.tell("talk", **_talk(frame, size))
            _burst(frame, stack, size, found[size])
    compared = COMPARED if COMPARED in found else sizes[1]
    rows = [row for size in sizes for row in _rows(size, found[size])]
    return Report([*rows, *_comparison(found[compared])], [_plot(found)])


def _begin(frame: Frame, stacks: ExitStack, size: int) -> Stack:
    frame.say(f"start with {size:,} threads")
    stack = stacks.enter_context(running(frame.workdir / str(size), size))
    stack.tell("burst", messages=min(size, 100), seconds=LIMIT_SECONDS)
    stack.settle()
    frame.say(f"talk in {size:,} threads")
    return stack


def _talk(frame: Frame, size: int) -> dict[str, float]:
    seconds = 6.0 if frame.quick else LONE_TALK_SECONDS if size == 1 else TALK_SECONDS
    return {"rate": min(RATE, size * QUOTA_RATE), "seconds": seconds}


def _burst(frame: Frame, stack: Stack, size: int, found: Found) -> None:
    """Speak in many threads at once, again and again; where the rivals take part, they take turns with that."""
    contenders: dict[str, Callable[[], Any]] = {"bot": partial(one_burst, stack, min(size, BURST))}
    if size == COMPARED or frame.quick:
        messages = 10 if frame.quick else RIVAL_MESSAGES
        contenders |= {name: partial(_rival, frame, stack, name, messages) for name in RIVALS}
    results = frame.interleaved(contenders, rounds=frame.rounds if len(contenders) > 1 else min(3, frame.rounds))
    found.bursts = results.pop("bot")
    found.rivals = results


def one_burst(stack: Stack, messages: int, cpu: Callable[[], dict[str, float]] | None = None) -> dict[str, float]:
    """Speak in so many threads at once; return messages a second, and microseconds of processor time for each.

    Args:
        stack: who takes part.
        messages: in how many threads.
        cpu: returns the seconds of processor time used so far, by name; those of the bot and the emulator by default.
    """
    cpu = cpu or stack.cpu
    stack.tell("quiet", seconds=PAUSE_SECONDS)
    before = cpu()
    burst = stack.tell("burst", messages=messages, seconds=LIMIT_SECONDS)
    after = cpu()
    handled = len(burst["replied"])
    if burst["unanswered"] or not handled:
        message = f"{burst['unanswered']} of {messages} messages were not answered"
        raise RuntimeError(message)
    used = {name: (after[name] - before[name]) / handled * 1e6 for name in after}
    return {"rate": handled / burst["seconds"], "looks": _polls(burst), **used}


def _rival(frame: Frame, stack: Stack, name: str, messages: int) -> float:
    facts = frame.workdir / "rival.json"
    facts.write_text(json.dumps({**stack.facts, **stack.tell("prepare", messages=messages)}))
    return float(child("-m", "tests.benchmarks.answering", name, facts))


# ── figures ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _rows(size: int, found: Found) -> list[Row]:
    where = f"{size:,} thread{'' if size == 1 else 's'}"
    count = len(found.talk["replied"])
    rows = [
        Row(
            f"{where}: to the {what}, {title}",
            _percentile(found.talk[key], share),
            "ms",
            note=f"{count} messages, {found.talk['unanswered']} unanswered"
            if key == "replied" and share == 0.5
            else "",
        )
        for what, key in (("reply", "replied"), ("receipt", "read"))
        for title, share in (("p50", 0.5), ("p99", 0.99))
    ]
    rows.append(Row(f"{where}: polls for each message, as people talk", _polls(found.talk), ""))
    if found.bursts:
        rows.append(Row(f"{where} speak at once: messages", _median(found, "rate"), "/s", note="noticing included"))
        rows.append(Row(f"{where} speak at once: polls for each message", _median(found, "looks"), ""))
    return rows


def _polls(done: dict[str, Any]) -> float:
    """Return the polls of all threads, silent ones included, for each message."""
    return float(done["calls"].get("list_messages", 0) / max(1, len(done["replied"])))


def _comparison(found: Found) -> list[Row]:
    ours = [one["bot"] for one in found.bursts]
    looks = f"{_median(found, 'looks'):.1f} looks a message"
    rows = [
        Row(
            MESSAGE,
            statistics.median(ours),
            "µs",
            title,
            statistics.median(found.rivals[name]),
            ratio(ours, found.rivals[name]),
            {"sdk": "≤ 1.50", "client": "≤ 1.35"}[name],
            looks,
        )
        for name, title in RIVALS.items()
    ]
    return [*rows, Row("a message: processor time of the emulator", _median(found, "emulator"), "µs")]


def _median(found: Found, key: str) -> float:
    return statistics.median(one[key] for one in found.bursts)


def _percentile(latencies: list[int], share: float) -> float | None:
    ordered = sorted(latencies)
    return float(ordered[int(share * (len(ordered) - 1))]) if ordered else None


def _plot(found: dict[int, Found]) -> Plot:
    lines = {
        f"{what}, {title}": [(size, _percentile(one.talk[key], share) or 0.0) for size, one in found.items()]
        for what, key in (("reply", "replied"), ("receipt", "read"))
        for title, share in (("p50", 0.5), ("p99", 0.99))
    }
    title = "From a person's word to the reply and the receipt"
    return Plot("end_to_end", title, "threads", "ms", lines, is_x_log=True)
