"""Everything that runs when people talk to a bot: the emulator in one process, `chatbot run` in another.

The bot's store knows all threads before, as after a stop. Whatever is started here ends with the block.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from chatbot.model import ThreadId, UserId
from chatbot.stores.records import BotRecord, ThreadRecord
from chatbot.stores.sqlite import SqliteStore
from chatbot.stores.writes import MoveHorizon, SaveBot, SaveThread
from tests.benchmarks.frame import ROOT

BOTS_YAML = """\
version: 1
service: {service}
store: sqlite:///chatbot.db
bots: {{echo: {{plugins: [echo_plugin], poll: {{rate: {looks_per_second}}}}}}}
log: {{format: json, level: info}}
"""

PLUGIN = """\
from chatbot import Context, Plugin

plugin = Plugin("echo")


@plugin.message()
async def echo(ctx: Context) -> str:
    return ctx.text
"""

START_SECONDS = 30.0
STOPPED_MS = 600_000
"""How long after its threads were made the bot was stopped."""

SETTLE_SECONDS = 90.0
FEW_THREADS = 1_000
"""So many are read in a second or two."""

WINDOW_SECONDS = 12.0


@dataclass(frozen=True)
class Stack:
    """Both processes, while they run."""

    facts: dict[str, Any]
    stage: subprocess.Popen[str]
    bot: subprocess.Popen[bytes]

    def tell(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have people do something; returns what came of it."""
        self.begin(do, **arguments)
        return self.end()

    def begin(self, do: str, **arguments: Any) -> None:
        """Have people begin with something."""
        stdin = _open(self.stage.stdin)
        stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        stdin.flush()

    def end(self) -> dict[str, Any]:
        """Wait until they have done it; returns what came of it."""
        line = _open(self.stage.stdout).readline()
        if not line:
            message = "the emulator's process has ended"
            raise RuntimeError(message)
        found: dict[str, Any] = json.loads(line)
        return found

    def settle(self) -> None:
        """Wait until the bot has read the list of its threads to its end, as it does once after a start."""
        if len(self.facts["threads"]) <= FEW_THREADS:
            self.tell("quiet", seconds=3.0)
            return
        until = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < until:
            # The quota lets it read some pages, then wait: only a whole window shows that it has done.
            calls = self.tell("quiet", seconds=WINDOW_SECONDS)["calls"]
            if calls.get("list_threads", 0) <= 1.5 * WINDOW_SECONDS:
                return

    def cpu(self) -> dict[str, float]:
        """Return the seconds of processor time that each of them has used."""
        return {"bot": cpu_seconds(self.bot.pid), "emulator": cpu_seconds(self.stage.pid)}


@contextmanager
def running(directory: Path, threads: int, *, looks_per_second: float = 100) -> Iterator[Stack]:
    """Run both until the block ends; it begins when the bot answers.

    Args:
        directory: for what the bot needs and leaves.
        threads: how many there are; the bot knows them.
        looks_per_second: how many looks that nobody asked for the bot may take; 100 is its default.
    """
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.benchmarks.stage", str(threads)]
    stage = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        facts = json.loads(_open(stage.stdout).readline())
        text = BOTS_YAML.format(service=json.dumps(facts["connection_string"]), looks_per_second=looks_per_second)
        (directory / "bots.yaml").write_text(text)
        (directory / "echo_plugin.py").write_text(PLUGIN)
        asyncio.run(_remember(directory / "chatbot.db", facts))
        with (directory / "log").open("wb") as log:
            command = [sys.executable, "-m", "chatbot", "run", str(directory / "bots.yaml")]
            bot = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=log)
        try:
            stack = Stack(facts, stage, bot)
            _await_answer(stack, directory / "log")
            yield stack
        finally:
            _end(bot)
    finally:
        _end(stage)


async def _remember(path: Path, facts: dict[str, Any]) -> None:
    """Write the store of a bot that was stopped when everything was settled."""
    user, made = UserId(facts["bot"]), int(facts["made_ms"])
    records = [ThreadRecord(ThreadId(thread), floor=made, base=made) for thread in facts["threads"]]
    async with SqliteStore(path) as store:
        await store.commit(
            user, [SaveBot(BotRecord("echo", facts["resource"], user, made)), MoveHorizon(made + STOPPED_MS)]
        )
        for start in range(0, len(records), 1000):
            await store.commit(user, [SaveThread(record) for record in records[start : start + 1000]])


def _await_answer(stack: Stack, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while not stack.tell("burst", messages=1, seconds=1.0)["replied"]:
        if stack.bot.poll() is not None or time.monotonic() > until:
            message = f"the bot does not answer:\n{log.read_text()[-2000:]}"
            raise RuntimeError(message)


def cpu_seconds(pid: int) -> float:
    """Return the processor time of all threads of a process; read from Linux's /proc, in nanoseconds there."""
    nanoseconds = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def resident_bytes(pid: int) -> int:
    """Return how much memory a process holds."""
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def _end(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _open(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
