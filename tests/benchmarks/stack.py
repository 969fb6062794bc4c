"""Everything that runs when people talk to a bot: the emulator in one process, `chatbot run` in another.

The bot's store knows all threads before, as after a stop. Whatever is started here ends with the block.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from chatbot.model import ThreadId, UserId
from chatbot.stores.base import Store
from chatbot.stores.records import BotRecord, ThreadRecord
from chatbot.stores.url import open_store
from chatbot.stores.writes import MoveHorizon, SaveBot, SaveThread
from tests.benchmarks.frame import ROOT

BOTS_YAML = """\
version: 1
service: {service}
store: {store}
bots: {bots}
log: {{format: json, level: info}}
"""

PLUGIN = """\
from chatbot import Context, Plugin

plugin = Plugin("echo")


@plugin.message()
async def echo(ctx: Context) -> str:
    return ctx.text
"""

LISTENER = """\
from chatbot import Context, Plugin

plugin = Plugin("listen")


@plugin.message()
async def listen(ctx: Context) -> None:
    pass
"""

SQLITE = "sqlite:///chatbot.db"
START_SECONDS = 120.0
STOPPED_MS = 600_000
"""How long after its threads were made the bot was stopped."""

SETTLE_SECONDS = 90.0
FEW_THREADS = 1_000
"""So many are read in a second or two."""

WINDOW_SECONDS = 12.0
POLLS_PER_SECOND = 3.6
"""A little more than the polls of the list while nothing else is requested of it."""


@dataclass(frozen=True)
class Stack:
    """Both processes, while they run."""

    facts: dict[str, Any]
    stage: subprocess.Popen[str]
    bot: subprocess.Popen[bytes]

    def tell(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have people do something; returns what came of it."""
        return _tell(self.stage, do, **arguments)

    def begin(self, do: str, **arguments: Any) -> None:
        """Have people begin with something."""
        _begin(self.stage, do, **arguments)

    def end(self) -> dict[str, Any]:
        """Wait until they have done it; returns what came of it."""
        return _result(self.stage)

    def settle(self) -> None:
        """Wait until the bot has read the list of its threads to its end, as it does once after a start."""
        if len(self.facts["threads"]) <= FEW_THREADS:
            self.tell("quiet", seconds=3.0)
            return
        until = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < until:
            # The quota lets it read some pages, then wait: only a whole window shows that it has done.
            calls = self.tell("quiet", seconds=WINDOW_SECONDS)["calls"]
            if calls.get("list_threads", 0) <= POLLS_PER_SECOND * WINDOW_SECONDS:
                return

    def cpu(self) -> dict[str, float]:
        """Return the seconds of processor time that each of them has used."""
        return {"bot": cpu_seconds(self.bot.pid), "emulator": cpu_seconds(self.stage.pid)}


@contextmanager
def running(
    directory: Path,
    threads: int,
    *,
    poll: Mapping[str, Any] = MappingProxyType({}),
    stage: Sequence[str] = ("tests.benchmarks.stage",),
    plugin: str = PLUGIN,
    said_before: int = 0,
    has_own_cores: bool = False,
    settings: str = "",
    store: str = SQLITE,
) -> Iterator[Stack]:
    """Run both until the block ends; it begins when the bot answers.

    Args:
        directory: for what the bot needs and leaves.
        threads: how many there are; the bot knows them.
        poll: how often the bots poll, as in bots.yaml.
        stage: the module of the emulator's process, and its further arguments.
        plugin: the source of the plugin of the first bot; all others listen.
        said_before: in how many threads a word is said before the bot is started; then the block begins at its start.
        has_own_cores: each of both processes stays on a core of its own, as far as there are two.
        settings: further lines of bots.yaml.
        store: the URL of the bot's store.
    """
    directory.mkdir(parents=True, exist_ok=True)
    module, *options = stage
    command = [sys.executable, "-m", module, str(threads), *options]
    people = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    cores = sorted(os.sched_getaffinity(0))
    if has_own_cores:
        os.sched_setaffinity(people.pid, {cores[0]})
    try:
        facts = json.loads(_open(people.stdout).readline())
        asyncio.run(_remember(open_store(store, base_dir=directory), facts))
        if said_before:
            _tell(people, "place", messages=said_before)
        with running_bots(directory, facts, store, poll=poll, plugin=plugin, settings=settings) as bot:
            if has_own_cores:
                os.sched_setaffinity(bot.pid, {cores[-1]})
            stack = Stack(facts, people, bot)
            if not said_before:
                _await_answer(stack, directory / "log")
            yield stack
    finally:
        _end(people)


@contextmanager
def running_bots(
    directory: Path,
    facts: Mapping[str, Any],
    store: str,
    *,
    poll: Mapping[str, Any] = MappingProxyType({}),
    plugin: str = PLUGIN,
    settings: str = "",
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `chatbot run` for all bots until the block ends; see `running`, whose `facts` say who is who."""
    directory.mkdir(parents=True, exist_ok=True)
    plugins = [("echo", "echo_plugin"), *((f"bot{n}", "listen_plugin") for n in range(1, len(facts["bots"])))]
    bots = {name: {"plugins": [module], "poll": dict(poll)} for name, module in plugins}
    text = BOTS_YAML.format(service=json.dumps(facts["connection_string"]), store=store, bots=json.dumps(bots))
    (directory / "bots.yaml").write_text(text + settings)
    (directory / "echo_plugin.py").write_text(plugin)
    (directory / "listen_plugin.py").write_text(LISTENER)
    with (directory / "log").open("ab") as log:
        command = [sys.executable, "-m", "chatbot", "run", str(directory / "bots.yaml")]
        bot = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=log)
    try:
        yield bot
    finally:
        _end(bot)


async def _remember(store: Store, facts: dict[str, Any]) -> None:
    """Write the store of a bot that was stopped when everything was settled."""
    made = int(facts["made_ms"])
    records = [ThreadRecord(ThreadId(thread), floor=made, base=made) for thread in facts["threads"]]
    async with store:
        for number, user in enumerate(map(UserId, facts["bots"])):
            record = BotRecord(f"bot{number}" if number else "echo", facts["resource"], user, made)
            await store.commit(user, [SaveBot(record), MoveHorizon(made + STOPPED_MS)])
            for start in range(0, len(records), 1000):
                await store.commit(user, [SaveThread(record) for record in records[start : start + 1000]])


def _await_answer(stack: Stack, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while not stack.tell("burst", messages=1, seconds=5.0)["replied"]:
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


def _tell(people: subprocess.Popen[str], do: str, **arguments: Any) -> dict[str, Any]:
    _begin(people, do, **arguments)
    return _result(people)


def _begin(people: subprocess.Popen[str], do: str, **arguments: Any) -> None:
    stdin = _open(people.stdin)
    stdin.write(json.dumps({"do": do, **arguments}) + "\n")
    stdin.flush()


def _result(people: subprocess.Popen[str]) -> dict[str, Any]:
    line = _open(people.stdout).readline()
    if not line:
        message = "the emulator's process has ended"
        raise RuntimeError(message)
    found: dict[str, Any] = json.loads(line)
    return found


def _end(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _open(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
