"""A running installation moves from SQLite to PostgreSQL: `chatbot run` is stopped, copied, and started again.

What people notice is counted: a word is said as soon as the bots have stopped, and answered when they run again. Each
thread has a state, as bots leave one.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any, Final

from chatbot.model import ThreadId, UserId
from chatbot.stores.records import StateKey
from chatbot.stores.sqlite import SqliteStore
from chatbot.stores.writes import SaveState
from tests.benchmarks.frame import Frame, Row
from tests.benchmarks.stack import SQLITE, Stack, cpu_seconds, running, running_bots

THREADS: Final = 10_000
STATE: Final = '{"count": 17, "note": "' + "what a bot remembers of a thread " * 6 + '"}'
QUIET_SECONDS: Final = 5.0
LIMIT_SECONDS: Final = 120.0


def rows(frame: Frame, url: str) -> list[Row]:
    """Measure each step, and the time from the signal to the answer."""
    threads = 20 if frame.quick else THREADS
    directory = frame.workdir / "move"
    frame.say(f"start with {threads:,} threads")
    with ExitStack() as stacks:
        stack = stacks.enter_context(running(directory, threads))
        stack.tell("burst", messages=min(threads, 100), seconds=LIMIT_SECONDS)
        stack.tell("quiet", seconds=0.5 if frame.quick else QUIET_SECONDS)
        frame.say("stop, copy, start")
        stopped = _stop(stack)
        asyncio.run(_fill(directory / "chatbot.db", stack.facts))
        size = sum(file.stat().st_size for file in directory.glob("chatbot.db*")) / 1e6
        stack.tell("place", messages=1)
        copied, processor_time = _copy(directory, url)
        begun = time.monotonic()
        bot = stacks.enter_context(running_bots(directory, stack.facts, url))
        answered = stack.tell("answered", bot=bot.pid, seconds=LIMIT_SECONDS)
        started, used = time.monotonic() - begun, cpu_seconds(bot.pid)
        if answered["unanswered"]:
            message = f"no answer on PostgreSQL:\n{(directory / 'log').read_text()[-2000:]}"
            raise RuntimeError(message)
    name = f"move: {threads:,} threads"
    note = f"of processor time {processor_time:.1f} s; {size:.0f} MB, a state in each thread"
    return [
        Row(f"{name}: stop in order", stopped, "s"),
        Row(f"{name}: chatbot store copy, with its check", copied, "s", note=note),
        Row(f"{name}: start to the first answer", started, "s", note=f"of processor time {used:.1f} s"),
        Row(f"{name}: without bots", stopped + copied + started, "s", target="≤ 60 s"),
    ]


def _stop(stack: Stack) -> float:
    begun = time.monotonic()
    stack.bot.send_signal(signal.SIGTERM)
    if code := stack.bot.wait(LIMIT_SECONDS):
        message = f"the bot ended with exit code {code}"
        raise RuntimeError(message)
    return time.monotonic() - begun


async def _fill(file: Path, facts: dict[str, Any]) -> None:
    """Write a state for each thread."""
    user = UserId(facts["bots"][0])
    states = [SaveState(StateKey("notes", ThreadId(thread)), STATE, None, 1) for thread in facts["threads"]]
    async with SqliteStore(file) as store:
        for start in range(0, len(states), 1000):
            await store.commit(user, states[start : start + 1000])


def _copy(directory: Path, url: str) -> tuple[float, float]:
    """Run the command; return its seconds, and those of processor time."""
    begun, before = time.monotonic(), getrusage(RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "chatbot", "store", "copy", SQLITE, url]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS)
    if done.returncode:
        message = f"the copy ended with exit code {done.returncode}:\n{done.stderr}"
        raise RuntimeError(message)
    seconds, after = time.monotonic() - begun, getrusage(RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
