"""What a daemon with one bot and one thread takes: memory, and processor time from its start to the first poll.

`chatbot run` in one process, the emulator in another; beside it a daemon with a status server, one in which the
emulator is embedded, and a Python that only imports the libraries which a daemon cannot do without. Memory is private
memory: what the process has written, which the kernel cannot drop, and which it shares with no other process. Resident
memory contains files, such as libraries, and is in the notes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.frame import Frame, Report, Row
from tests.benchmarks.stack import PLUGIN, running

TITLE = "A daemon: memory, and the way to the first poll"

SETTLE_SECONDS = 10.0
START_SECONDS = 60.0
MEGABYTE = 2**20

EMBEDDED = """\
version: 1
service: emulator
store: sqlite:///chatbot.db
bots: {echo: {plugins: [echo_plugin]}}
log: {format: json, level: info}
"""

LIBRARIES = """\
import sys
sys.modules["rich"] = None  # structlog would import it; a daemon does without
import aiohttp, anyio, azure.communication.chat.aio, azure.communication.identity.aio
import filelock, msgspec, pydantic, sqlite3, structlog, uvloop, yaml
class Model(pydantic.BaseModel): pass
print(flush=True)
input()
"""


@dataclass(frozen=True)
class Memory:
    """Bytes of a process."""

    private: int
    resident: int

    @classmethod
    def of(cls, pid: int) -> Memory:
        """Read from Linux's /proc what a process takes."""
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return cls(kilobytes["Private_Dirty"] * 1024, kilobytes["Rss"] * 1024)


def run(frame: Frame) -> Report:
    """Measure."""
    if not Path("/proc/self/smaps_rollup").exists():
        return Report([Row("memory", None, "MB", note="not measured: private memory is read from Linux's /proc")])
    starts = [_start(frame, number) for number in range(frame.rounds)]
    return Report([*_memory_rows(_memories(frame)), *_start_rows(starts)])


def _memories(frame: Frame) -> dict[str, Memory]:
    """Let all of them run at the same time: this moves processor time, but not memory."""
    server = "server: {listen: 127.0.0.1:0}\n"
    with ExitStack() as stacks:
        pids = {
            "one": stacks.enter_context(running(frame.workdir / "one", 1)).bot.pid,
            "with pages": stacks.enter_context(running(frame.workdir / "pages", 1, settings=server)).bot.pid,
            "embedded": stacks.enter_context(_embedded(frame.workdir / "embedded")),
            "libraries": stacks.enter_context(_importing(LIBRARIES)),
        }
        frame.say("let the daemons run")
        time.sleep(1.0 if frame.quick else SETTLE_SECONDS)
        return {name: Memory.of(pid) for name, pid in pids.items()}


@contextmanager
def _embedded(directory: Path) -> Iterator[int]:
    """Run a daemon on its own emulator."""
    directory.mkdir()
    (directory / "bots.yaml").write_text(EMBEDDED)
    (directory / "echo_plugin.py").write_text(PLUGIN)
    command = [sys.executable, "-m", "chatbot", "run", "bots.yaml"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=log)
    try:
        until = time.monotonic() + START_SECONDS
        while not _has_started(directory / "log"):
            if process.poll() is not None or time.monotonic() > until:
                message = f"the daemon does not start:\n{(directory / 'log').read_text()[-2000:]}"
                raise RuntimeError(message)
            time.sleep(0.1)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _has_started(log: Path) -> bool:
    lines = log.read_text().splitlines(keepends=True)
    return any(json.loads(line)["event"] == "daemon.started" for line in lines if line.endswith("\n"))


@contextmanager
def _importing(program: str) -> Iterator[int]:
    """Run a program that prints a line when it is ready, until the block ends."""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


@dataclass(frozen=True)
class Start:
    """Of a process until its first poll."""

    processor_seconds: float
    clock_seconds: float


def _start(frame: Frame, number: int) -> Start:
    frame.say(f"start {number + 1} of {frame.rounds}")
    with running(frame.workdir / f"start-{number}", 1, said_before=1) as stack:
        found = stack.tell("first_poll", bot=stack.bot.pid, seconds=START_SECONDS)
        return Start(found["bot"], found["seconds"])


def _memory_rows(memories: dict[str, Memory]) -> list[Row]:
    def row(name: str, key: str, target: str = "") -> Row:
        memory, libraries = memories[key], memories["libraries"]
        return Row(
            name, memory.private / MEGABYTE, "MB", "the libraries alone", libraries.private / MEGABYTE,
            memory.private / libraries.private, target, f"resident {memory.resident / MEGABYTE:.0f} MB",
        )  # fmt: skip

    return [
        row("one bot: private memory", "one", "≤ 42 MB"),
        row("one bot with a status server: private memory", "with pages"),
        row("one bot and the emulator in its process: private memory", "embedded"),
    ]


def _start_rows(starts: list[Start]) -> list[Row]:
    processor = statistics.median(start.processor_seconds for start in starts)
    clock = statistics.median(start.clock_seconds for start in starts)
    note = f"of {len(starts)} starts; on the clock {clock:.2f} s"
    return [Row("chatbot run: processor time until its first poll", processor, "s", target="≤ 0.5 s", note=note)]
