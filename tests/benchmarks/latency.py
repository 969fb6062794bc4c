"""How soon a word is noticed and answered: `chatbot run` with default settings, and the emulator in another process.

The emulator enforces the service's quotas. A word's id and its reply's are milliseconds of the emulator's clock; when
a handler is called is written down by the plugin, by the same machine's clock. People talk at a pace that the quotas of
their threads allow (a word every four to six seconds), and say single words in threads that have long been silent.
Meanwhile messages are edited and deleted, and the bot is removed from threads: none of that moves a thread in the list.

The optimum is waiting only, under the quota of the list of threads: a silent thread's word waits half an interval in
the median, and less in a talking thread that is polled as well.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.frame import Frame, Plot, Report, Row
from tests.benchmarks.stack import Stack, running

TITLE = "Latency: from a word to its reply"

SIZES = (1, 100, 10_000)
SLOW = "*:latency=0.06..0.36"
"""What requests to the real service took in recorded sessions, seconds."""

PACES = {"on loopback": "", "at the service's recorded pace": SLOW}
PAUSE = (4.0, 6.0)
LONE_PAUSE = (25.0, 35.0)
"""Between words in an only thread, so that it counts as silent."""

BOTS = 10
COST_THREADS, COST_SECONDS = 100, 30.0
POLLS_PER_10_S = 33

PLUGIN = """\
import time
from pathlib import Path

from chatbot import Context, MessageDeleted, MessageEdited, Plugin, ThreadLeft

plugin = Plugin("echo")
notes = Path("notes").open("a", buffering=1)


def note(kind, key):
    notes.write(f"{kind} {key} {time.time() * 1000:.0f}\\n")


@plugin.message()
async def echo(ctx: Context) -> str:
    note("noticed", f"{ctx.thread}/{ctx.event.message.id}")
    return ctx.text


@plugin.on(MessageEdited)
async def edited(ctx: Context[MessageEdited]) -> None:
    note("edited", f"{ctx.thread}/{ctx.event.message.id}")


@plugin.on(MessageDeleted)
async def deleted(ctx: Context[MessageDeleted]) -> None:
    note("deleted", f"{ctx.thread}/{ctx.event.message.id}")


@plugin.on(ThreadLeft)
async def left(ctx: Context[ThreadLeft]) -> None:
    note("left", ctx.event.thread)
"""


@dataclass
class Found:
    """Seconds, by what was waited for, in one size at one pace; and the requests of the bot."""

    waits: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)

    def take(self, stack: Stack, directory: Path, result: dict[str, Any]) -> None:
        """Take in what people have said and changed, and when the bot noticed."""
        noted = _notes(directory / "notes")
        for kind in ("talking", "silent"):
            for thread, word, reply in result.get(kind, ()):
                self._add(f"{kind}: noticed", word, noted.get(("noticed", f"{thread}/{word}")))
                self._add(f"{kind}: reply visible", word, reply)
        for kind in ("edited", "deleted", "left"):
            for key, at in result.get(kind, {}).items():
                self._add(kind, at, noted.get((kind, key)))
        self.calls = result["calls"]

    def _add(self, kind: str, begun_ms: int, ended_ms: int | None) -> None:
        self.waits.setdefault(kind, [])
        if ended_ms is None:
            self.missing[kind] = self.missing.get(kind, 0) + 1
        else:
            self.waits[kind].append((ended_ms - begun_ms) / 1000)


def run(frame: Frame) -> Report:
    """Measure; the sizes that leave the machine idle run at the same time."""
    sizes = (1, 30) if frame.quick else SIZES
    found = {(size, pace): Found() for size in sizes for pace in PACES}
    with ExitStack() as stacks:
        small = {key: _begin(frame, stacks, *key) for key in found if key[0] <= sizes[1]}
        for key, stack in small.items():
            stack.begin(**_acts(frame, key[0]))
        for key, stack in small.items():
            _end(frame, stack, key, found[key])
    for key in (key for key in found if key[0] > sizes[1]):
        with ExitStack() as stacks:
            stack = _begin(frame, stacks, *key)
            stack.settle()
            stack.begin(**_acts(frame, key[0]))
            _end(frame, stack, key, found[key])
    rows = [row for pace in reversed(PACES) for size in sizes for row in _rows(size, pace, found[size, pace])]
    return Report([*rows, *_costs(frame)], [_optimum(found, sizes)])


def _begin(frame: Frame, stacks: ExitStack, size: int, pace: str) -> Stack:
    frame.say(f"start with {size:,} threads {pace}")
    directory = _directory(frame, size, pace)
    stage = ("tests.benchmarks.conversing", "1")
    stack = stacks.enter_context(running(directory, size, stage=stage, plugin=PLUGIN))
    if PACES[pace]:
        stack.tell("fault", rule=PACES[pace])
    return stack


def _directory(frame: Frame, size: int, pace: str) -> Path:
    return frame.workdir / f"{size}-{pace.replace(' ', '-')}"


def _acts(frame: Frame, size: int) -> dict[str, Any]:
    seconds = 12.0 if frame.quick else 150.0
    if size == 1:
        # First it talks, then it is silent; see `_end`.
        return {"do": "converse", "seconds": seconds / 4, "pause": PAUSE, "talking": 1, "silent": 0}
    talking = 5 if frame.quick else 20
    silent = min(size // 3, 60)
    conversing = {"seconds": seconds, "pause": PAUSE, "talking": talking, "silent": silent}
    return {"do": "both", "changing": {"seconds": seconds / 4}, **conversing}


def _end(frame: Frame, stack: Stack, key: tuple[int, str], found: Found) -> None:
    result = stack.end()
    if key[0] == 1:
        frame.say(f"let the only thread fall silent {key[1]}")
        pause = (3.0, 4.0) if frame.quick else LONE_PAUSE
        lone = stack.tell("converse", seconds=6.0 if frame.quick else 200.0, pause=pause, talking=1, silent=0)
        result["silent"] = lone["talking"][1:]
        result["calls"] = {
            name: result["calls"].get(name, 0) + lone["calls"].get(name, 0)
            for name in {**lone["calls"], **result["calls"]}
        }
    found.take(stack, _directory(frame, *key), result)


def _notes(path: Path) -> dict[tuple[str, str], int]:
    noted: dict[tuple[str, str], int] = {}
    for line in path.read_text().splitlines():
        kind, key, at = line.split()
        noted.setdefault((kind, key), int(at))
    return noted


# ── figures ───────────────────────────────────────────────────────────────────────────────────────────────────────

TARGETS = {
    "talking: noticed": ("≤ 0.15 s", "≤ 0.6 s"),
    "silent: noticed": ("≤ 0.25 s", "≤ 0.6 s"),
    "talking: reply visible": ("≤ 0.25 s", ""),
    "silent: reply visible": ("≤ 0.35 s", ""),
}


def _rows(size: int, pace: str, found: Found) -> list[Row]:
    where = f"{size:,} thread{'' if size == 1 else 's'} {pace}"
    rows: list[Row] = []
    for kind, waits in found.waits.items():
        median, late = TARGETS.get(kind, ("", "")) if not PACES[pace] else ("", "")
        note = f"{len(waits)} of {len(waits) + found.missing.get(kind, 0)}"
        if kind in ("edited", "deleted", "left"):
            rows.append(Row(f"{where}: {kind}, noticed at worst", max(waits, default=None), "s", note=note))
            continue
        rows.append(Row(f"{where}: {kind}, median", _share(waits, 0.5), "s", target=median, note=note))
        rows.append(Row(f"{where}: {kind}, p99", _share(waits, 0.99), "s", target=late, note=note))
    rows.append(Row(f"{where}: requests refused (429)", found.calls.get("refused", 0), "", target="0"))
    return rows


def _share(waits: list[float], share: float) -> float | None:
    ordered = sorted(waits)
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None


def _costs(frame: Frame) -> list[Row]:
    """Share of a core while nobody says anything."""
    rows = []
    plans = {"1 bot, interval 1s": (1, {"interval": "1s"}), "1 bot": (1, {}), f"{BOTS} bots": (BOTS, {})}
    for name, (bots, poll) in list(plans.items())[: 1 if frame.quick else None]:
        frame.say(f"the cost of {name}")
        directory = frame.workdir / f"cost-{name.replace(' ', '-')}"
        stage = ("tests.benchmarks.conversing", str(bots))
        with running(directory, COST_THREADS, poll=poll, stage=stage, plugin=PLUGIN) as stack:
            time.sleep(1.0 if frame.quick else 30.0)
            before = stack.cpu()["bot"]
            seconds = 1.0 if frame.quick else COST_SECONDS
            time.sleep(seconds)
            used = (stack.cpu()["bot"] - before) / seconds * 100
        rows.append(Row(f"{COST_THREADS} silent threads, {name}: processor time", used, "% of a core"))
    return rows


def _optimum(found: Mapping[tuple[int, str], Found], sizes: tuple[int, ...]) -> Plot:
    intervals = [10 / requests for requests in (5, 7, 10, 15, 20, 25, 33, 50)]
    lines = {
        "silent, optimum": [(10 / interval, interval / 2) for interval in intervals],
        "talking, optimum": [(10 / interval, interval * (1 - math.sqrt(0.5))) for interval in intervals],
    }
    for kind in ("silent", "talking"):
        waits = [wait for size in sizes for wait in found[size, "on loopback"].waits.get(f"{kind}: noticed", ())]
        if waits:
            lines[f"{kind}, measured"] = [(POLLS_PER_10_S, _share(waits, 0.5) or 0.0)]
    title = "Waiting for a poll, under the quota of 50 requests in 10 s"
    return Plot("latency", title, "requests for the list of threads in 10 s", "seconds, median", lines)
