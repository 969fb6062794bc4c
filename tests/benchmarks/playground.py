"""What the playground costs a bot: nothing while it is off, and its stories while it is on.

One process has three bots, assembled as the daemon does it, each with an emulator and 20 threads of its own. They take
turns at answering a message in every thread, in virtual time, so that a round compares blocks of the same second.

* as on Azure: no sandbox, the machine's clock.
* off: as with `--no-playground` on the emulator, whose bots have a clock that can be shifted.
* on: stories are recorded, and no page is open.

The part `fork` replays a thread as a fork does: twice at once, in processes of their own. It begins when both have
loaded the bots, and ends when the answers are compared.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import structlog

from chatbot.model import ThreadId
from chatbot.runtime.observe.story import Stories
from chatbot.runtime.sandbox import ShiftedClock
from chatbot.testing.replays.child import ReplayJob
from chatbot.testing.replays.comparison import compare
from chatbot.testing.replays.processes import RUNS, run_twice
from chatbot.testing.virtual_time import VirtualTimeLoop
from tests.benchmarks.frame import Frame, Report, Row, child, ratio
from tests.support.assembled import Assembled, assembled
from tests.support.recordings import recorded, said

TITLE = "Playground: processor time of a message, off and on; a fork"
MESSAGES, FORK = PARTS = ("playground-messages", "fork")

AZURE, OFF, ON = "as on Azure", "off", "on"
LINES, QUICK_LINES = 500, 20
FORK_ENDS = CLOCK, COST = "on the clock", "processor time of a run"
THREADS = 20
TURNS, QUICK_TURNS, WARM_UP = 30, 2, 4
PAUSE_SECONDS = 3.0
"""Between two turns, in virtual time: a thread takes 30 messages a minute."""

GAP_MS = 10_000
"""Milliseconds between two lines of the thread that is forked."""

PLUGIN = """
from dataclasses import dataclass

from chatbot import Context, Plugin, State

plugin = Plugin("p")


@dataclass
class Count:
    messages: int = 0


@plugin.command("help")
async def help(ctx: Context) -> str:
    return "none"


@plugin.message()
async def echo(ctx: Context, count: State[Count]) -> str:
    count.value = Count(count.value.messages + 1)
    return f"{ctx.text}, {count.value.messages}"
"""


def run(frame: Frame) -> Report:
    """Measure."""
    rows: list[Row] = []
    for part, prefix, measure in ((MESSAGES, "a message", _messages), (FORK, "a fork", _forks)):
        rows += measure(frame) if frame.wants(part) else [row for row in frame.before if row.name.startswith(prefix)]
    return Report(rows)


def _forks(frame: Frame) -> list[Row]:
    lines = QUICK_LINES if frame.quick else LINES
    found: dict[str, list[dict[str, float]]] = frame.interleaved(
        {"fork": lambda: child("-m", "tests.benchmarks.playground", "fork", lines)}
    )
    clock, cost = (statistics.median(one[name] for one in found["fork"]) for name in ("seconds", "cpu"))
    name, note = f"a fork of {lines} lines", "each with a state and an answer; bot, client and service in one process"
    return [
        Row(f"{name}, {CLOCK}", clock, "s", target="≤ 2", note="both runs and the comparison, after their start"),
        Row(f"{name}, {COST}", cost, "s", note=note),
    ]


def _messages(frame: Frame) -> list[Row]:
    turns = QUICK_TURNS if frame.quick else TURNS
    found: dict[str, list[dict[str, float]]] = frame.interleaved(
        {"bots": lambda: child("-m", "tests.benchmarks.playground", turns)}
    )
    costs = {mode: [one[mode] for one in found["bots"]] for mode in (AZURE, OFF, ON)}
    base = statistics.median(costs[AZURE])
    return [
        Row(
            f"a message, playground {mode}",
            statistics.median(costs[mode]),
            "µs",
            AZURE,
            base,
            ratio(costs[mode], costs[AZURE]),
            target,
            note="bot, client and emulator in one process",
        )
        for mode, target in ((OFF, "≤ 1.02"), (ON, ""))
    ]


async def _measured(turns: int, directory: Path) -> dict[str, float]:
    """Return the microseconds of processor time of a message, by mode: the median turn."""
    modes: dict[str, dict[str, Any]] = {
        AZURE: {"clock": time.time},
        OFF: {"clock": ShiftedClock()},
        ON: {"clock": ShiftedClock(), "stories": Stories()},
    }
    async with AsyncExitStack() as stack:
        turn_of: dict[str, Callable[[], Any]] = {}
        for number, (mode, options) in enumerate(modes.items()):
            place = directory / str(number)
            place.mkdir()
            bot = await stack.enter_async_context(assembled(place, PLUGIN, **options))
            bot.emulator.has_quotas = False
            turn_of[mode] = _Turn(bot, [await bot.another_thread() for _ in range(THREADS)]).run
        costs: dict[str, list[float]] = {mode: [] for mode in modes}
        for number in range(turns + WARM_UP):
            order = list(modes)
            for mode in order[number % 3 :] + order[: number % 3]:
                begun = time.process_time()
                await turn_of[mode]()
                if number >= WARM_UP:
                    costs[mode].append((time.process_time() - begun) / THREADS * 1e6)
            await anyio.sleep(PAUSE_SECONDS)
    # Of each turn, against the same turn as on Azure: what the machine does meanwhile slows all three alike.
    base = statistics.median(costs[AZURE])
    return {mode: base * ratio(costs[mode], costs[AZURE]) for mode in modes}


class _Turn:
    def __init__(self, bot: Assembled, threads: list[ThreadId]) -> None:
        self._bot = bot
        self._threads = threads

    async def run(self) -> None:
        """Say something in every thread, and wait for the replies."""
        sent = [(thread, await self._bot.ann.send_message(thread, "well")) for thread in self._threads]
        for thread, message in sent:
            await self._bot.bot.wait_until_settled(thread, int(message))


def _forked(lines: int, directory: Path) -> dict[str, float]:
    """Fork a thread; return the seconds on the clock, and those of processor time for each of the two runs."""
    (directory / "replayed.py").write_text(PLUGIN)
    bots = directory / "bots.yaml"
    bots.write_text("version: 1\nservice: emulator\nbots:\n  bo: {display_name: Bo, plugins: [replayed]}\n")
    begun_at = seconds = 0.0

    def report(done: int) -> None:
        nonlocal begun_at
        begun_at = begun_at if done else time.perf_counter()

    costs: list[float] = []
    for count in (1, lines):  # one line costs as much as the start
        recording = recorded(said(*(f"line {number}" for number in range(count)), gap_ms=GAP_MS))
        before = _used()
        compared = compare(recording, anyio.run(run_twice, ReplayJob(recording, bots), report))
        seconds = time.perf_counter() - begun_at
        costs.append((_used() - before) / RUNS)
        assert len(compared.pairs) == count
    return {"seconds": seconds, "cpu": costs[1] - costs[0]}


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the costs as JSON."""
    if sys.argv[1] == "fork":
        with tempfile.TemporaryDirectory() as place:
            print(json.dumps(_forked(int(sys.argv[2]), Path(place))))
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        sys.path.insert(0, directory)
        for number in range(3):
            sys.path.insert(0, str(Path(directory) / str(number)))
        print(json.dumps(runner.run(_measured(int(sys.argv[1]), Path(directory)))))


if __name__ == "__main__":
    main()
