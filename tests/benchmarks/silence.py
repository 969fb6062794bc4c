"""What threads cost in which nobody speaks: the start with a store that knows them, processor time, and memory.

`chatbot run` with default settings in one process, the emulator with as many threads in another, one size after the
other. A word is said in one thread before the start; how long its answer takes is counted from the start of the
process. Then nobody speaks. From 3,000 threads on, silent threads are polled a hundred times a second in all, and the
list of threads is read to its end again and again; with 100,000 threads, almost always.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.benchmarks.frame import Frame, Report, Row
from tests.benchmarks.stack import Stack, resident_bytes, running

TITLE = "Silence: what threads cost in which nobody speaks"

SIZES = (10, 1_000, 10_000, 100_000)
QUICK_SIZES = (5, 20)
START_SECONDS = 120.0
SILENT_SECONDS = 40.0


@dataclass(frozen=True)
class Found:
    """What one size has cost.

    Attributes:
        answered: Seconds from the start of the process to the answer.
        started: Seconds of processor time until then.
        used: Seconds of processor time in a second of silence.
        polls, lists: Requests in a second of silence.
        bytes: Resident memory.
    """

    answered: float
    started: float
    used: float
    polls: float
    lists: float
    bytes: int


def run(frame: Frame) -> Report:
    """Measure size after size."""
    sizes = QUICK_SIZES if frame.quick else SIZES
    found: dict[int, Found] = {}
    for size in sizes:
        frame.say(f"start with {size:,} threads")
        with running(frame.workdir / str(size), size, said_before=1) as stack:
            found[size] = _measure(frame, stack)
    return Report([row for size in sizes for row in _rows(size, found[size], found[sizes[0]], sizes[0])])


def _measure(frame: Frame, stack: Stack) -> Found:
    polled = stack.tell("first_poll", bot=stack.bot.pid, seconds=START_SECONDS)
    answered = stack.tell("answered", bot=stack.bot.pid, seconds=START_SECONDS)
    if answered["unanswered"]:
        message = f"no answer after {START_SECONDS:.0f} s"
        raise RuntimeError(message)
    started = stack.cpu()["bot"]
    frame.say("nobody speaks")
    if not frame.quick:
        stack.settle()
    before, begun = stack.cpu()["bot"], time.monotonic()
    calls = stack.tell("quiet", seconds=1.0 if frame.quick else SILENT_SECONDS)["calls"]
    seconds = time.monotonic() - begun
    return Found(
        answered=polled["seconds"] + answered["seconds"],
        started=started,
        used=(stack.cpu()["bot"] - before) / seconds,
        polls=calls.get("list_messages", 0) / seconds,
        lists=calls.get("list_threads", 0) / seconds,
        bytes=resident_bytes(stack.bot.pid),
    )


def _rows(size: int, one: Found, least: Found, fewest: int) -> list[Row]:
    name = f"{size:,} silent threads"
    start = "≤ 10 s" if size == SIZES[-1] else ""
    share = "≤ 5 %" if size == 10_000 else ""
    rows = [
        Row(
            f"{name}: start to the first answer", one.answered, "s", target=start, note=f"{one.started:.1f} s of a core"
        ),
        Row(
            f"{name}: processor time",
            one.used * 100,
            "% of a core",
            target=share,
            note=f"{one.polls:.0f} polls and {one.lists:.1f} requests for the list a second",
        ),
    ]
    if size == fewest:
        return rows
    if one.polls > least.polls:
        cost = (one.used - least.used) / (one.polls - least.polls) * 1e6
        rows.append(Row(f"{name}: processor time of a poll", max(0.0, cost), "µs", note=f"beyond what {fewest} cost"))
    memory = (one.bytes - least.bytes) / (size - fewest) / 1e3
    target = "≤ 4 KB" if size == SIZES[-1] else ""
    return [*rows, Row(f"{name}: memory of each", max(0.0, memory), "KB", target=target)]
