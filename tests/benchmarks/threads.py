"""What a silent thread costs: memory, and the start, of the real daemon and of the SDK used as its quickstart does.

The daemon is `chatbot run` as a process, with a store that knows all threads; it is left alone until the emulator (in
another process, without quotas, so that nobody has to wait) has been asked for every thread. The quickstart is a
process with a client for each thread, each asked once. Memory is resident memory, less that of ten threads.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from tests.benchmarks.frame import ROOT, Frame, Report, Row, child, ratio

TITLE = "Threads: memory and start"

FEW = 10
ROUNDS = {1_000: 5, 10_000: 2}
OURS = "chatbot run"
QUICKSTART = "SDK quickstart"

PLUGIN = """
from chatbot import Context, Plugin

plugin = Plugin("quiet")

@plugin.command("hello")
async def hello(ctx: Context) -> str:
    return "hello"
"""
BOTS = """
version: 1
service: {service}
store: sqlite:///bots.db
bots:
  quiet:
    user: "{user}"
    plugins: [quiet]
    poll: {{rate: 1000}}
"""


@dataclass(frozen=True)
class Costs:
    """Of all threads of one process.

    Args:
        kilobytes: resident memory.
        made: seconds of processor time until the bot knew its threads, or all clients were made.
    """

    kilobytes: float
    made: float


def run(frame: Frame) -> Report:
    """Measure."""
    if not Path("/proc/self/statm").exists():
        return Report([Row("memory of a thread", None, "KB", note="not measured: resident memory is read from /proc")])
    few = frame.interleaved(_whom(frame, FEW), rounds=1 if frame.quick else ROUNDS[1_000])
    rows: list[Row] = []
    for count, rounds in {100: 1}.items() if frame.quick else ROUNDS.items():
        rows += _rows(count, frame.interleaved(_whom(frame, count), rounds=rounds), few)
    return Report(rows)


def _whom(frame: Frame, count: int) -> dict[str, Callable[[], Costs]]:
    return {who: partial(_costs, frame, who, count) for who in (OURS, QUICKSTART)}


def _rows(count: int, many: dict[str, list[Costs]], few: dict[str, list[Costs]]) -> list[Row]:
    def row(name: str, unit: str, target: str, part: Callable[[Costs], float]) -> Row:
        less = {who: statistics.median(map(part, few[who])) for who in many}
        own, other = ([max(0.0, part(one) - less[who]) for one in many[who]] for who in (OURS, QUICKSTART))
        quotient = ratio(own, other) if all(other) else None
        mine, theirs = statistics.median(own), statistics.median(other)
        note = f"of {len(own)} rounds"
        return Row(f"{count:,} threads: {name}", mine, unit, QUICKSTART, theirs, quotient, target, note)

    return [
        row("memory of each", "KB", "≤ 10 KB", lambda costs: costs.kilobytes / count),
        row("processor time until all are made", "ms", "≤ 500 ms", lambda costs: costs.made * 1000),
    ]


def _costs(frame: Frame, who: str, count: int) -> Costs:
    with _emulator(frame.workdir, count) as (place, emulator):
        directory = Path(place["directory"])
        if who == QUICKSTART:
            threads = directory / "threads.json"
            costs = Costs(**child("-m", "tests.benchmarks.clients", place["endpoint"], place["token"], threads))
            emulator.readline()
            return costs
        return _daemon(directory, emulator)


@contextmanager
def _emulator(workdir: Path, count: int) -> Iterator[tuple[dict[str, str], IO[str]]]:
    """An emulator with so many threads, and a directory in which a daemon finds a store that knows them."""
    command = [sys.executable, "-m", "tests.benchmarks.quiet", str(workdir), str(count)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            place = json.loads(process.stdout.readline())
            directory = Path(place["directory"])
            (directory / "quiet.py").write_text(PLUGIN)
            (directory / "bots.yaml").write_text(BOTS.format(**place))
            yield place, process.stdout
        finally:
            process.stdin.close()


def _daemon(directory: Path, emulator: IO[str]) -> Costs:
    command = [sys.executable, "-m", "chatbot", "run", "--log-format", "json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=directory, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        log = ""
        for line in process.stderr:
            log += line
            if json.loads(line)["event"] == "bot.started":
                break
        else:
            raise SystemExit(f"the daemon did not start:\n{log}")
        made = _processor_seconds(process.pid)
        emulator.readline()  # comes when all threads were asked for
        costs = Costs(_kilobytes(process.pid), made)
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
    return costs


def _kilobytes(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1024


def _processor_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
