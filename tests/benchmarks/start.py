"""How long a bot takes from its process's start until it polls threads that its store knows, and what that costs.

The emulator runs in this process, with its quotas; the store is a real file, as a bot leaves it that was stopped an
hour ago; a hundred threads have moved since. A contender is a fresh process: the bot with the note in its store up to
when everything was settled, and the bot without it, which has to look at every thread.
"""

from __future__ import annotations

import asyncio
import collections
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatbot.emulator import Emulator, Running, World, serve
from chatbot.model import ThreadId, UserId
from chatbot.stores import SqliteStore
from chatbot.stores.records import BotRecord, ThreadRecord
from chatbot.stores.writes import MoveHorizon, SaveBot, SaveThread
from tests.benchmarks.frame import Frame, Report, Row

TITLE = "Start: from the process's start until its threads are polled"

MOVED = 100
SILENT_SECONDS = 3600
WATCHED_SECONDS = 20.0


@dataclass(frozen=True)
class Scene:
    """An emulator that serves, the bot's user, and its store."""

    running: Running
    user: UserId
    person: str
    threads: Sequence[ThreadId]
    directory: Path


async def prepare(running: Running, directory: Path, count: int, ages: Ages) -> Scene:
    """Threads that are an hour old, and a store that knows them."""
    emulator = running.emulator
    user, person = UserId(emulator.create_user()), emulator.create_user()
    with ages.an_hour_ago():
        threads = [ThreadId(emulator.create_thread(person, f"{number}", [user])) for number in range(count)]
        for thread in threads:
            emulator.send(thread, person, "hi")
        horizon = int(ages() * 1000) + 5000
    scene = Scene(running, user, person, threads, directory)
    await remember(scene, "noted.db", MoveHorizon(horizon))
    await remember(scene, "unnoted.db")
    return scene


async def remember(scene: Scene, name: str, *writes: MoveHorizon) -> None:
    """Write the store of a bot that has handled everything."""
    async with SqliteStore(scene.directory / name) as store:
        records = [record_of(scene, thread) for thread in scene.threads]
        for begin in range(0, len(records), 500):
            await store.commit(scene.user, [SaveThread(record) for record in records[begin : begin + 500]])
        await store.commit(scene.user, [SaveBot(BotRecord("bot", "here", scene.user, 0)), *writes])


def record_of(scene: Scene, thread: ThreadId) -> ThreadRecord:
    seen = {message.id: message.version for message in scene.running.emulator.transcript(thread)}
    top = max(seen.values())
    return ThreadRecord(thread, floor=0, base=top, seen=seen)


class Ages:
    """The emulator's clock, which can be an hour late."""

    def __init__(self) -> None:
        self._offset = 0.0

    def __call__(self) -> float:
        return time.time() + self._offset

    def an_hour_ago(self) -> Ages:
        return self

    def __enter__(self) -> None:
        self._offset = -SILENT_SECONDS

    def __exit__(self, *exc_info: object) -> None:
        self._offset = 0.0


async def contend(scene: Scene, name: str, *, watched: float = 0.0) -> dict[str, Any]:
    """One start of the bot in a process of its own, after a hundred threads have moved."""
    emulator = scene.running.emulator
    emulator.calls.clear()
    emulator.quotas.clear()
    store = scene.directory / f"{time.monotonic_ns()}.db"
    store.write_bytes((scene.directory / f"{name}.db").read_bytes())
    moved = scene.threads[:: max(1, len(scene.threads) // MOVED)]
    for thread in moved:
        emulator.send(thread, scene.person, "are you there?")
    job = {
        "endpoint": scene.running.http_endpoint,
        "access_key": emulator.access_key,
        "user": scene.user,
        "store": str(store),
        "moved": len(moved),
        "all": name == "unnoted",
        "watched": watched,
        "begun": time.time(),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.starting", json.dumps(job), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode:
        message = f"the bot ended with {process.returncode}"
        raise SystemExit(message)
    return {**json.loads(output.splitlines()[-1]), **asked_of(emulator), "watched": watched}


def asked_of(emulator: Emulator) -> dict[str, float]:
    """What the service was asked: how much, how much at once, and how often too much."""
    lists = [call.at for call in emulator.calls if call.operation == "list_threads"]
    looks = collections.Counter(call.operation for call in emulator.calls)
    return {
        "list_threads": len(lists),
        "list_messages": looks["list_messages"],
        "requests": len(emulator.calls),
        "peak": max((sum(at - 10_000 < other <= at for other in lists) for at in lists), default=0),
        "refused": sum(call.status == 429 for call in emulator.calls),
    }


async def measure(frame: Frame, count: int) -> dict[str, list[dict[str, Any]]]:
    """Both ways of starting, round by round, and once with a longer watch."""
    ages = Ages()
    emulator = Emulator(World(seed=1), clock=ages)
    results: dict[str, list[dict[str, Any]]] = {"noted": [], "unnoted": [], "watched": []}
    async with serve(emulator, tls=False) as running:
        frame.say(f"making {count} threads, and the store that knows them")
        scene = await prepare(running, frame.workdir, count, ages)
        for turn in range(frame.rounds):
            for name in orders(turn, count):
                frame.say(f"round {turn + 1} of {frame.rounds}: {name}, {count} threads")
                results[name].append(await contend(scene, name))
        frame.say("a longer look at the requests")
        results["watched"].append(await contend(scene, "noted", watched=1.0 if frame.quick else WATCHED_SECONDS))
    return results


def orders(turn: int, count: int) -> list[str]:
    """Who starts in this round; ten thousand looks take so long that they are measured once."""
    if count > 1_000 and turn:
        return ["noted"]
    return ["noted", "unnoted"] if turn % 2 else ["unnoted", "noted"]


def run(frame: Frame) -> Report:
    """Measure."""
    rows: list[Row] = []
    for count in (200,) if frame.quick else (1_000, 10_000):
        found = asyncio.run(measure(frame, count))
        rows += rows_of(count, found)
    return Report(rows)


def rows_of(count: int, found: dict[str, list[dict[str, Any]]]) -> list[Row]:
    """The figures of one number of threads."""

    def median(name: str, key: str) -> float:
        return statistics.median(one[key] for one in found[name])

    def both(what: str, key: str, unit: str, target: str = "", note: str = "") -> Row:
        ours, theirs = median("noted", key), median("unnoted", key)
        ratio = statistics.median(
            mine[key] / other[key] for mine, other in zip(found["noted"], found["unnoted"], strict=False)
        )
        name = f"{count:,} threads: {what}"
        return Row(name, ours, unit, "a look at each thread", theirs, ratio, target, note)

    watched = found["watched"][0]
    refused = sum(one["refused"] for runs in found.values() for one in runs)
    return [
        both("until polled", "polled", "s", "≤ 5 s" if count == 10_000 else "", f"{MOVED} moved threads answered too"),
        both("of which reading the store", "remembered", "s"),
        both("processor time until then", "cpu", "s"),
        both("requests until then", "requests", "", note="at most the latest 10,000 are counted"),
        Row(
            f"{count:,} silent threads: processor time a second",
            1000 * watched["silent_cpu"] / watched["watched"],
            "ms",
            note=f"right after the start, over {watched['watched']:.0f} s, full walk and beats included",
        ),
        Row(f"{count:,} threads: list_threads in the busiest 10 s", watched["peak"], "", target="≤ 50"),
        Row(f"{count:,} threads: requests refused (429)", refused, "", target="0"),
    ]
