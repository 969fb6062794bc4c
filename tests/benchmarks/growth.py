"""Whether a thread, a second and an event cost the same among ten threads as among ten thousand.

`chatbot run` with 10, 100, 1,000 and 10,000 threads, all at the same time, each with an emulator of its own; what
counts is the processor time of each bot. First nobody speaks; then ten people speak at once, again and again, as often
as the quota of ten threads allows; what a second of silence costs is taken off. Silent threads are looked at five times
a second (`poll.rate: 5`), so that from 1,000 threads on whatever grows is no look, but something hidden.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass, field

from tests.benchmarks.frame import Frame, Plot, Report, Row
from tests.benchmarks.stack import Stack, resident_bytes, running

TITLE = "Growth: what an event, a second and a thread cost, from 10 threads to 10,000"

SIZES = (10, 100, 1_000, 10_000)
EVENTS = 10
BURSTS = 15
LOOKS = 5
"""Looks at silent threads in a second: few, so that they do not hide what an event costs."""

QUIET_SECONDS = 15.0
PAUSE_SECONDS = 3.0
LIMIT_SECONDS = 30.0
TARGET = "0.80 … 1.20"


@dataclass
class Found:
    """What one size has cost: seconds of processor time."""

    bytes: int = 0
    idle: float = 0.0  # in a second
    looks: float = 0.0  # in a second of silence
    events: list[float] = field(default_factory=list)


def run(frame: Frame) -> Report:
    """Measure all sizes at once."""
    sizes, bursts, quiet = ((5, 20), 1, 2.0) if frame.quick else (SIZES, BURSTS, QUIET_SECONDS)
    found = {size: Found() for size in sizes}
    with ExitStack() as stacks:
        running_now = {}
        for size in sizes:
            frame.say(f"start with {size:,} threads")
            running_now[size] = stacks.enter_context(running(frame.workdir / str(size), size, poll={"rate": LOOKS}))
        _settle(running_now)
        frame.say("nobody speaks")
        _listen(running_now, found, quiet)
        for turn in range(bursts):
            frame.say(f"burst {turn + 1} of {bursts}")
            _speak(running_now, found, min(EVENTS, *sizes))
    return Report(_rows(found), [_plot(found)])


def _settle(stacks: dict[int, Stack]) -> None:
    """Let every bot connect, and come to rest."""
    for size, stack in stacks.items():
        stack.tell("burst", messages=min(size, 10), seconds=LIMIT_SECONDS)
    for stack in stacks.values():
        stack.settle()


def _listen(stacks: dict[int, Stack], found: dict[int, Found], seconds: float) -> None:
    before = {size: stack.cpu()["bot"] for size, stack in stacks.items()}
    calls = _all(stacks, "quiet", seconds=seconds)
    for size, stack in stacks.items():
        one = found[size]
        one.bytes = resident_bytes(stack.bot.pid)
        one.idle = (stack.cpu()["bot"] - before[size]) / seconds
        one.looks = calls[size]["list_messages"] / seconds


def _speak(stacks: dict[int, Stack], found: dict[int, Found], messages: int) -> None:
    for size, stack in stacks.items():
        before = stack.cpu()["bot"]
        burst = stack.tell("burst", messages=messages, seconds=LIMIT_SECONDS)
        used = stack.cpu()["bot"] - before
        found[size].events.append((used - found[size].idle * burst["seconds"]) / max(1, len(burst["replied"])))
    _all(stacks, "quiet", seconds=PAUSE_SECONDS)


def _all(stacks: dict[int, Stack], do: str, **arguments: float) -> dict[int, dict[str, int]]:
    for stack in stacks.values():
        stack.begin(do, **arguments)
    return {size: {"list_messages": 0, **stack.end()["calls"]} for size, stack in stacks.items()}


# ── figures ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _rows(found: dict[int, Found]) -> list[Row]:
    least, *others = sorted(found)
    events = {size: statistics.median(one.events) * 1e6 for size, one in found.items()}
    rows = [Row(f"an event among {least:,} threads", events[least], "µs")]
    rows += [
        Row(
            f"an event among {size:,} threads",
            events[size],
            "µs",
            f"among {least:,}",
            events[least],
            events[size] / events[least],
            TARGET,
        )
        for size in others
    ]
    return [*rows, *_seconds(found), *_threads(found)]


def _seconds(found: dict[int, Found]) -> list[Row]:
    """Return what a second of silence costs, where the same number of looks is taken in it."""
    sizes = [size for size in sorted(found) if size >= 1_000] or [max(found)]
    costs = {size: found[size].idle * 1e6 for size in sizes}
    least = sizes[0]
    return [
        Row(
            f"a second of silence in {size:,} threads",
            costs[size],
            "µs",
            "" if size == least else f"in {least:,}",
            None if size == least else costs[least],
            None if size == least else costs[size] / costs[least],
            "" if size == least else TARGET,
            f"{found[size].looks:.1f} looks",
        )
        for size in sizes
    ]


def _threads(found: dict[int, Found]) -> list[Row]:
    least = min(found)
    return [
        Row(f"a silent thread among {size:,}: memory", (one.bytes - found[least].bytes) / (size - least) / 1e3, "KB")
        for size, one in found.items()
        if size >= 1_000
    ]


def _plot(found: dict[int, Found]) -> Plot:
    lines = {
        "an event with its reply": [(size, statistics.median(one.events) * 1e6) for size, one in found.items()],
        "a second in which nobody speaks": [(size, one.idle * 1e6) for size, one in found.items()],
    }
    title = "What an event, and a second of silence, costs the bot"
    return Plot("growth", title, "threads", "µs of processor time", lines, is_x_log=True, is_y_log=True)
