"""What a durable commit costs: ours, grouped by the writer, beside the same statements in a transaction each.

A commit is what a handled event with a reply writes: the message seen, the reply journalled, the receipt owed, and
what came of the reply and the receipt before. Files are on the disk of the temporary directory, WAL and FULL.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from chatbot.actions import ActionKey, SendMessage, action_key
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.stores import open_store
from chatbot.stores.records import OutboxRow, RowStatus, ThreadRecord
from chatbot.stores.sqlite import SqliteStore
from chatbot.stores.statements import statements
from chatbot.stores.writes import Enqueue, MarkReceiptDue, MarkSeen, SaveThread, SettleReceipt, SettleRow, Write
from tests.benchmarks.frame import Frame, Report, Row, child, ratio
from tests.benchmarks.peers import PeerMissing, peer, versions

TITLE = "The store: durable commits"

EACH = Path(__file__).parent / "committers" / "each.py"
BOT, ANN = UserId("8:acs:bot"), UserId("8:acs:ann")
BEGUN_MS = 1_735_689_600_000
ALONE = 200
TOGETHER = 10_000
UNGROUPED = 500  # of those whose every commit waits for the disk
TASKS = 1_000
PACED_TASKS, PACED_SECONDS = 10_000, 2.0
TEXT = "well, this is what you said"

Result = dict[str, Any]


# ── the writes ────────────────────────────────────────────────────────────────────────────────────────────────────


def thread_of(number: int) -> ThreadId:
    return ThreadId(f"19:{number}@thread.v2")


def event_writes(thread: ThreadId, turn: int) -> list[Write]:
    """Return what the `turn`th message of a thread writes when it is answered."""
    now = BEGUN_MS + turn * 1000
    action = SendMessage(TEXT)
    writes: list[Write] = [
        Enqueue(OutboxRow(_key(thread, now), thread, action, after=now, created_ms=now, caused_by=ANN)),
        MarkReceiptDue(thread, MessageId(str(now))),
        MarkSeen(thread, {now: now}),
    ]
    if turn:
        before = now - 1000
        writes.append(SettleRow(_key(thread, before), RowStatus.DONE, MessageId(str(before + 500))))
        writes.append(SettleReceipt(thread, MessageId(str(before))))
    return writes


def _key(thread: ThreadId, message: int) -> ActionKey:
    return action_key(BOT, thread, str(message), "plugins.echo.echo", 0)


# ── ours, in a process of its own ─────────────────────────────────────────────────────────────────────────────────


async def commit_all(path: str, tasks: int, each: int, pause: float) -> Result:
    """Commit from so many tasks, each one after the other, or (`pause`) one in so many seconds."""
    latencies: list[float] = []
    prepared = [[event_writes(thread_of(number), turn) for turn in range(each)] for number in range(tasks)]
    is_file = not path.startswith("postgresql:")
    async with SqliteStore(path) if is_file else open_store(path, base_dir=Path()) as store:

        async def commit(number: int) -> None:
            for turn, writes in enumerate(prepared[number]):
                due = started + pause * (number / tasks + turn)
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                begun = time.perf_counter()
                await store.commit(BOT, writes)
                if turn or not pause:  # the first ones wait for thousands of tasks to begin
                    latencies.append(time.perf_counter() - begun)

        await store.commit(BOT, [SaveThread(ThreadRecord(thread_of(number), 0, 0)) for number in range(tasks)])
        started, used = time.perf_counter(), time.process_time()
        await asyncio.gather(*map(commit, range(tasks)))
        seconds, cpu = time.perf_counter() - started, time.process_time() - used
    return {"seconds": seconds, "cpu": cpu, "latencies": [one * 1e3 for one in latencies]}


# ── the comparison ────────────────────────────────────────────────────────────────────────────────────────────────


def run(frame: Frame) -> Report:
    """Measure alone, all at once, and at a steady pace."""
    divisor = 20 if frame.quick else 1
    alone, together, ungrouped = ALONE // divisor, TOGETHER // divisor, UNGROUPED // divisor
    tasks = TASKS // divisor
    pythons, missing = _pythons(frame)
    found = frame.interleaved(
        {
            "chatbot alone": partial(_ours, frame, 1, alone),
            "chatbot together": partial(_ours, frame, tasks, together // tasks),
            **{f"{name} alone": partial(_theirs, frame, name, python, 1, alone) for name, python in pythons.items()},
            **{
                f"{name} together": partial(_theirs, frame, name, python, tasks, ungrouped)
                for name, python in pythons.items()
            },
        }
    )
    rows = []
    for name, python in pythons.items():
        label = name if python == sys.executable else f"{name} {versions(Path(python), name)[name]}"
        rows += _rows(label, *(found[f"{who} {when}"] for when in ("alone", "together") for who in ("chatbot", name)))
    rows += [Row(name, None, "", note=f"not measured: {why}") for name, why in missing.items()]
    return Report([*rows, *_paced(frame, PACED_TASKS // divisor)])


def _pythons(frame: Frame) -> tuple[dict[str, str], dict[str, str]]:
    pythons = {"sqlite3": sys.executable}
    if frame.quick:
        return pythons, {"aiosqlite": "a quick run installs nothing"}
    try:
        return {**pythons, "aiosqlite": str(peer("aiosqlite", "aiosqlite>=0.20,<1"))}, {}
    except PeerMissing as error:
        return pythons, {"aiosqlite": f"it could not be installed: {error}"}


def _ours(frame: Frame, tasks: int, each: int, pause: float = 0.0) -> Result:
    result: Result = child("-m", "tests.benchmarks.store", _fresh(frame), tasks, each, pause)
    return result


def _theirs(frame: Frame, name: str, python: str, tasks: int, commits: int) -> Result:
    """Make the tables and the statements of ours, and let them be executed by somebody else."""
    path = _fresh(frame)
    asyncio.run(commit_all(str(path), tasks, 0, 0.0))
    turns = [event_writes(thread_of(number % tasks), number // tasks) for number in range(commits)]
    file = frame.workdir / "transactions.json"
    file.write_text(json.dumps([[one[:2] for one in statements(BOT, writes)] for writes in turns]))
    result: Result = child(EACH, path, file, name, tasks, python=python)
    return result


def _fresh(frame: Frame) -> Path:
    path = frame.workdir / "store.db"
    for old in frame.workdir.glob("store.db*"):
        old.unlink()
    return path


def _rows(
    label: str, ours: list[Result], theirs: list[Result], ours_many: list[Result], theirs_many: list[Result]
) -> list[Row]:
    def row(name: str, unit: str, measure: Callable[[Result], float], mine: list[Result], other: list[Result]) -> Row:
        own, foreign = [measure(one) for one in mine], [measure(one) for one in other]
        return Row(name, statistics.median(own), unit, label, statistics.median(foreign), ratio(own, foreign))

    return [
        row("one at a time: p50", "ms", partial(percentile, share=0.5), ours, theirs),
        row("one at a time: p99", "ms", partial(percentile, share=0.99), ours, theirs),
        row("1,000 at once: commits", "/s", _rate, ours_many, theirs_many),
        row("1,000 at once: processor time of a commit", "µs", _cpu, ours_many, theirs_many),
    ]


def _paced(frame: Frame, tasks: int) -> list[Row]:
    each = 2 if frame.quick else 3
    rounds = [_ours(frame, tasks, each, PACED_SECONDS) for _ in range(frame.rounds)]
    name = f"{tasks:,} tasks, one every {PACED_SECONDS:g} s each"
    return [
        Row(f"{name}: {title}", statistics.median(percentile(one, share) for one in rounds), "ms")
        for title, share in (("p50", 0.5), ("p99", 0.99))
    ]


def percentile(result: Result, share: float) -> float:
    """Return the latency that `share` of the commits do not exceed, in ms."""
    latencies = sorted(result["latencies"])
    return float(latencies[int(share * (len(latencies) - 1))])


def _rate(result: Result) -> float:
    return len(result["latencies"]) / float(result["seconds"])


def _cpu(result: Result) -> float:
    return float(result["cpu"]) / len(result["latencies"]) * 1e6


if __name__ == "__main__":  # ours
    file, tasks, each, pause = sys.argv[1:]
    print(json.dumps(asyncio.run(commit_all(file, int(tasks), int(each), float(pause)))))
