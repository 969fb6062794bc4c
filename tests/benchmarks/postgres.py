"""The store on PostgreSQL beside the one on SQLite: commits, messages, several replicas, failover, and the move.

A server of its own is started on this machine, with its files beside those of SQLite. Its processor time is that of all
its processes. Where a network is between bot and server, a proxy in a process of its own delays what passes.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

from tests.benchmarks import moving, takeovers
from tests.benchmarks.delaying import Delay, delayed
from tests.benchmarks.end_to_end import one_burst
from tests.benchmarks.frame import Frame, Report, Row, child, ratio
from tests.benchmarks.stack import SQLITE, Stack, cpu_seconds, running, running_bots
from tests.benchmarks.store import TASKS, percentile
from tests.support.postgres import PostgresServer, binaries, running_server

TITLE = "PostgreSQL: the store of several processes"

COMMITS, MESSAGES, REPLICAS, FAILOVER, MOVE = "commits", "messages", "replicas", "failover", "move"
PARTS = COMMITS, MESSAGES, REPLICAS, FAILOVER, MOVE
"""What can be run alone; the names of a part's figures begin with it."""

ROUNDS: Final = 3
ALONE: Final = 200
TOGETHER: Final = 10_000
ROUND_TRIP_MS: Final = 2.0
WORDS: Final = 300
COUNTS: Final = (1, 2, 4)
SILENT_SECONDS: Final = 6.0
QUICK_COUNTS: Final = (2,)

Found = dict[str, Any]
Urls = Callable[[], str]
"""Returns the URL of another empty store."""


def run(frame: Frame) -> Report:
    """Measure the parts that are wanted, one after the other."""
    try:
        binaries()
    except RuntimeError as error:
        return Report([Row(part, None, "", note=f"not measured: {error}") for part in PARTS])
    rows: list[Row] = []
    with running_server(is_on_disk=True) as server:
        schemas = count(1)

        def url() -> str:
            return f"{server.url}?schema=benchmark{next(schemas)}"

        measures: Mapping[str, Callable[[], list[Row]]] = {
            COMMITS: lambda: _commits(frame, server, url),
            MESSAGES: lambda: _messages(frame, server, url()),
            REPLICAS: lambda: _replicas(frame, server, url),
            FAILOVER: lambda: takeovers.rows(frame, url()),
            MOVE: lambda: moving.rows(frame, url()),
        }
        for part, measure in measures.items():
            if frame.wants(part):
                frame.say(part)
                rows += measure()
            else:
                rows += [row for row in frame.before if row.name.startswith(f"{part}: ")]
    return Report(rows)


def server_seconds(server: PostgresServer) -> float:
    """Return the processor time of all processes of a server, those that have ended included."""
    pid = int((server.data / "postmaster.pid").read_text().split()[0])
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ended = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return ended + sum(map(_seconds_of, [pid, *map(int, children)]))


def _seconds_of(pid: int) -> float:
    try:
        return cpu_seconds(pid)
    except FileNotFoundError:  # it has just ended
        return 0.0


# ── commits ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _commits(frame: Frame, server: PostgresServer, url: Urls) -> list[Row]:
    """Compare SQLite, a server on the same machine, and one that is 2 ms away."""
    divisor = 20 if frame.quick else 1
    alone, tasks, together = ALONE // divisor, TASKS // divisor, TOGETHER // divisor
    with delayed(server.port, ROUND_TRIP_MS / 2e3) as far:
        contenders: dict[str, Callable[[], Found]] = {}
        for name, size in (("alone", (1, alone)), ("together", (tasks, together // tasks))):
            contenders[f"sqlite {name}"] = partial(_on_sqlite, frame, *size)
            contenders[f"near {name}"] = partial(_on_server, server, url, None, *size)
            contenders[f"far {name}"] = partial(_on_server, server, url, far, *size)
        # What the tables and the first rows cost is not of a commit.
        empty = _on_server(server, url, far, 1, 0)
        found = frame.interleaved(contenders, rounds=min(ROUNDS, frame.rounds))
    rows: list[Row] = []
    for place, key in (("on this machine", "near"), (f"{ROUND_TRIP_MS:.0f} ms away", "far")):
        one, many = found[f"{key} alone"], found[f"{key} together"]
        one_here, many_here = found["sqlite alone"], found["sqlite together"]
        rows += [
            _beside(f"commits: {place}, one at a time: p50", "ms", partial(percentile, share=0.5), one, one_here),
            _beside(f"commits: {place}, one at a time: p99", "ms", partial(percentile, share=0.99), one, one_here),
            _beside(f"commits: {place}, one at a time", "/s", _rate, one, one_here),
            _beside(f"commits: {place}, {tasks:,} at once", "/s", _rate, many, many_here),
        ]
    rows.append(_beside("commits: processor time of the bot for each of them", "µs", _cpu, many, many_here))
    spent = statistics.median((one["server"] - empty["server"]) / together * 1e6 for one in many)
    rows.append(Row("commits: processor time of the server for each of them", max(0.0, spent), "µs"))
    trips = {name: [one["trips"] - empty["trips"] for one in found[f"far {name}"]] for name in ("alone", "together")}
    note = "the query that a session makes every second included"
    rows.append(Row("commits: round trips, one at a time", statistics.median(trips["alone"]) / alone, "", note=note))
    grouped = statistics.median(together / max(1, one) for one in trips["together"])
    rows.append(Row(f"commits: in one round trip, {tasks:,} at once", grouped, ""))
    return rows


def _on_sqlite(frame: Frame, tasks: int, each: int) -> Found:
    for old in frame.workdir.glob("commits.db*"):
        old.unlink()
    found: Found = child("-m", "tests.benchmarks.store", frame.workdir / "commits.db", tasks, each, 0.0)
    return found


def _on_server(server: PostgresServer, url: Urls, far: Delay | None, tasks: int, each: int) -> Found:
    where = url() if far is None else url().replace(f":{server.port}/", f":{far.port}/")
    if far is not None:
        far.round_trips()
    before = server_seconds(server)
    found: Found = child("-m", "tests.benchmarks.store", where, tasks, each, 0.0)
    return {**found, "server": server_seconds(server) - before, "trips": far.round_trips() if far else 0}


def _beside(
    name: str, unit: str, measure: Callable[[Found], float], ours: Sequence[Found], sqlite: Sequence[Found]
) -> Row:
    own, other = [measure(one) for one in ours], [measure(one) for one in sqlite]
    return Row(name, statistics.median(own), unit, "SQLite", statistics.median(other), ratio(own, other))


def _rate(found: Found) -> float:
    return len(found["latencies"]) / float(found["seconds"])


def _cpu(found: Found) -> float:
    return float(found["cpu"]) / len(found["latencies"]) * 1e6


# ── a message with its reply ──────────────────────────────────────────────────────────────────────────────────────


def _messages(frame: Frame, server: PostgresServer, url: str) -> list[Row]:
    """Let a bot on SQLite and one on PostgreSQL take turns."""
    words = 10 if frame.quick else WORDS
    with (
        running(frame.workdir / "sqlite", words, store=SQLITE) as here,
        running(frame.workdir / "postgres", words, store=url) as there,
    ):
        if not frame.quick:
            there.settle()
            here.settle()

        def used() -> dict[str, float]:
            return {**there.cpu(), "server": server_seconds(server)}

        found = frame.interleaved(
            {
                "sqlite": partial(one_burst, here, words),
                "postgres": partial(one_burst, there, words, used),
            }
        )
    ours, theirs = found["postgres"], found["sqlite"]

    def measure(key: str) -> Callable[[Found], float]:
        return lambda one: float(one[key])

    looks = f"{statistics.median(one['looks'] for one in ours):.1f} polls a message"
    server_time = statistics.median(one["server"] for one in ours)
    both = [one["bot"] + one["server"] for one in ours]
    alone = [one["bot"] for one in theirs]
    return [
        _beside("messages: processor time of the bot", "µs", measure("bot"), ours, theirs),
        Row("messages: processor time of the server", server_time, "µs", note=looks),
        Row("messages: both together", statistics.median(both), "µs", "SQLite", statistics.median(alone),
            ratio(both, alone)),
        _beside(f"messages: in {words} threads at once, answered", "/s", measure("rate"), ours, theirs),
    ]  # fmt: skip


# ── several replicas ──────────────────────────────────────────────────────────────────────────────────────────────


def _replicas(frame: Frame, server: PostgresServer, url: Urls) -> list[Row]:
    """Speak in many threads at once, with ever more replicas, each a process of its own."""
    counts = QUICK_COUNTS if frame.quick else COUNTS
    words = 10 if frame.quick else WORDS
    rows: list[Row] = []
    for number in counts:
        frame.say(f"{number} replica{'s' if number > 1 else ''}")
        bursts, silence = _shared(frame, server, url(), number, words)
        rows += _of_count(number, bursts, silence)
    return rows


def _shared(
    frame: Frame, server: PostgresServer, url: str, number: int, words: int
) -> tuple[list[Found], dict[str, float]]:
    """Return what came of each burst, and the processor time of a second of silence, by name."""
    directory = frame.workdir / f"{number}-replicas"
    with ExitStack() as stacks:
        stack: Stack = stacks.enter_context(running(directory / "1", words, store=url))
        others = [
            stacks.enter_context(running_bots(directory / f"{other}", stack.facts, url))
            for other in range(2, number + 1)
        ]
        takeovers.await_shares(server, url, number)
        if not frame.quick:
            stack.settle()
        pids = [stack.bot.pid, *(other.pid for other in others)]

        def used() -> dict[str, float]:
            bots = {f"bot {index}": cpu_seconds(pid) for index, pid in enumerate(pids)}
            return {**bots, "server": server_seconds(server), "emulator": stack.cpu()["emulator"]}

        before, seconds = used(), 1.0 if frame.quick else SILENT_SECONDS
        stack.tell("quiet", seconds=seconds)
        silence = {name: (after - before[name]) / seconds for name, after in used().items()}
        return [one_burst(stack, words, used) for _ in range(min(ROUNDS, frame.rounds))], silence


def _of_count(number: int, bursts: list[Found], silence: dict[str, float]) -> list[Row]:
    name = f"replicas: {number}"
    median = statistics.median
    bots = [[value for key, value in one.items() if key.startswith("bot ")] for one in bursts]
    silent = sum(value for key, value in silence.items() if key.startswith("bot "))
    polls = median([one["looks"] for one in bursts])
    return [
        Row(f"{name}: answered", median([one["rate"] for one in bursts]), "/s",
            note="this machine's cores are shared by replicas, server and emulator"),
        Row(f"{name}: answered, by the processor time of the busiest replica",
            median([1e6 / max(each) for each in bots]), "/s", note="with a core for each of them"),
        Row(f"{name}: processor time of all replicas for a message", median([sum(each) for each in bots]), "µs"),
        Row(f"{name}: polls for each message", polls, ""),
        Row(f"{name}: processor time of the server for a message", median([one["server"] for one in bursts]), "µs"),
        Row(f"{name}: a second of silence, processor time of all replicas", silent * 1e3, "ms",
            note=f"and {silence['server'] * 1e3:.0f} ms of the server"),
    ]  # fmt: skip
