"""What the playground costs a bot: nothing while it is off, and its stories while it is on.

One process has three bots, assembled as the daemon does it, each with an emulator and 20 threads of its own. They take
turns at answering a message in every thread, in virtual time, so that a round compares blocks of the same second.

* as on Azure: no sandbox, the machine's clock.
* off: as with `--no-playground` on the emulator, whose bots have a clock that can be shifted.
* on: stories are recorded, and no page is open.
"""

from __future__ import annotations

import asyncio
import json
import logging
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
from chatbot.testing.virtual_time import VirtualTimeLoop
from tests.benchmarks.frame import Frame, Report, Row, child, ratio
from tests.support.assembled import Assembled, assembled

TITLE = "Playground: processor time of a message, off and on"

AZURE, OFF, ON = "as on Azure", "off", "on"
THREADS = 20
TURNS, QUICK_TURNS, WARM_UP = 30, 2, 4
PAUSE_SECONDS = 3.0
"""Between two turns, in virtual time: a thread takes 30 messages a minute."""

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
    turns = QUICK_TURNS if frame.quick else TURNS
    found: dict[str, list[dict[str, float]]] = frame.interleaved(
        {"bots": lambda: child("-m", "tests.benchmarks.playground", turns)}
    )
    costs = {mode: [one[mode] for one in found["bots"]] for mode in (AZURE, OFF, ON)}
    base = statistics.median(costs[AZURE])
    rows = [
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
    return Report(rows)


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


def main() -> None:
    """Print the costs as JSON."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        sys.path.insert(0, directory)
        for number in range(3):
            sys.path.insert(0, str(Path(directory) / str(number)))
        print(json.dumps(runner.run(_measured(int(sys.argv[1]), Path(directory)))))


if __name__ == "__main__":
    main()
