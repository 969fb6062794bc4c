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
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks import javascript
from tests.benchmarks.frame import Frame, Plot, Report, Row
from tests.benchmarks.stack import FEW_THREADS, Stack, running

TITLE = "Latency: from a word to its reply"

SIZES = (1, 100, 10_000)
QUICK_SIZES = (1, 30)
SLOW = "*:latency=0.06..0.36"
"""What requests to the real service took in recorded sessions, seconds."""

RECORDED, LOOPBACK = "at the service's recorded pace", "on loopback"
PACES = {RECORDED: SLOW, LOOPBACK: ""}
KEYS = [(size, pace) for pace in PACES for size in SIZES]
PARTS = (*(f"{size}-{'recorded' if PACES[pace] else 'loopback'}" for size, pace in KEYS), "javascript", "cost")

PAUSE = (4.0, 6.0)
LONE_PAUSE = (20.0, 27.0)
"""Between words in an only thread, so that it counts as silent."""

LONE_BOTS = 6
"""So many bots with one thread each: a single one would hear too few words."""

SECONDS = {1: 40.0, 100: 120.0, 10_000: 130.0}
"""How long people talk: among 10,000 threads, an edit is noticed after 100 s. An only thread is then silent as long."""

LONE_SECONDS = 80.0
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
    """Seconds, by what was waited for, in one size at one pace; and the requests of the bots."""

    waits: dict[str, list[float]] = field(default_factory=dict)
    missing: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)

    def take(self, directory: Path, result: dict[str, Any]) -> None:
        """Take in what people have said and changed, and when the bot noticed."""
        noted = _notes(directory / "notes")
        for kind in ("talking", "silent"):
            for thread, word, reply in result.get(kind, ()):
                self._add(f"{kind}: noticed", word, noted.get(("noticed", f"{thread}/{word}")))
                self._add(f"{kind}: reply visible", word, reply)
        for kind in ("edited", "deleted", "left"):
            for key, at in result.get(kind, {}).items():
                self._add(kind, at, noted.get((kind, key)))
        self.calls.update(result["calls"])

    def _add(self, kind: str, begun_ms: int, ended_ms: int | None) -> None:
        self.waits.setdefault(kind, [])
        if ended_ms is None:
            self.missing[kind] += 1
        else:
            self.waits[kind].append((ended_ms - begun_ms) / 1000)


@dataclass(frozen=True)
class Scene:
    """A bot with so many threads, at one pace."""

    size: int
    pace: str
    directory: Path
    stack: Stack


def run(frame: Frame) -> Report:
    """Measure; what leaves the machine idle runs at the same time."""
    sizes = QUICK_SIZES if frame.quick else SIZES
    wanted = [(size, pace) for size, pace in KEYS if size in sizes and frame.wants(_part(size, pace))]
    wanted += [(size, pace) for size in sizes if size not in SIZES for pace in PACES if not frame.parts]  # if quick
    found: dict[tuple[int, str], Found] = {key: Found() for key in wanted}
    for keys in ([key for key in wanted if key[0] <= 100], [key for key in wanted if key[0] > 100]):
        with ExitStack() as stacks:
            scenes = [scene for key in keys for scene in _scenes(frame, stacks, *key)]
            _play(frame, scenes, found)
    measured = {_where(*key): _rows(*key, found[key]) for key in wanted}
    if frame.wants("javascript"):
        measured[javascript.NAME] = javascript.rows(frame, PLUGIN)
    if frame.wants("cost"):
        measured[COST] = _costs(frame)
    places = [*(_where(size, pace) for pace in PACES for size in sizes), javascript.NAME, COST]
    rows = [row for place in places for row in measured.get(place) or _of(frame.before, place)]
    return Report(rows, [_optimum(rows)])


def _part(size: int, pace: str) -> str:
    return PARTS[KEYS.index((size, pace))]


def _where(size: int, pace: str) -> str:
    return f"{size:,} thread{'' if size == 1 else 's'} {pace}"


def _of(rows: Iterable[Row], place: str) -> list[Row]:
    return [row for row in rows if row.name.startswith(f"{place}:")]


def _scenes(frame: Frame, stacks: ExitStack, size: int, pace: str) -> list[Scene]:
    frame.say(f"start with {_where(size, pace)}")
    bots = LONE_BOTS if size == 1 and not frame.quick else 1
    scenes = []
    for number in range(bots):
        directory = frame.workdir / f"{size}-{number}-{pace.replace(' ', '-')}"
        stage = ("tests.benchmarks.conversing", "1")
        stack = stacks.enter_context(running(directory, size, stage=stage, plugin=PLUGIN))
        if PACES[pace]:
            stack.tell("fault", rule=PACES[pace])
        scenes.append(Scene(size, pace, directory, stack))
    return scenes


def _play(frame: Frame, scenes: Sequence[Scene], found: Mapping[tuple[int, str], Found]) -> None:
    """Have people talk and change things, in all scenes at the same time."""
    for scene in scenes:
        if scene.size > FEW_THREADS:
            frame.say(f"read the list of {_where(scene.size, scene.pace)}")
            scene.stack.settle()
    for scene in scenes:
        scene.stack.begin(**_acts(frame, scene.size))
    lone = [scene for scene in scenes if scene.size == 1]
    for scene in lone:
        _end(scene, found)
    for scene in lone:  # which now falls silent; the first word ends that it talks, and does not count
        pause, seconds = ((3.0, 4.0), 6.0) if frame.quick else (LONE_PAUSE, LONE_SECONDS)
        scene.stack.begin("converse", seconds=seconds, pause=pause, talking=1, silent=0)
    for scene in scenes:
        if scene.size == 1:
            _end_silence(scene, found)
        else:
            frame.say(f"wait for {_where(scene.size, scene.pace)}")
            _end(scene, found)


def _acts(frame: Frame, size: int) -> dict[str, Any]:
    seconds = 12.0 if frame.quick else SECONDS[size]
    if size == 1:  # first it talks, then it is silent; see `_play`
        return {"do": "converse", "seconds": seconds / 2 if frame.quick else seconds, "pause": PAUSE,
                "talking": 1, "silent": 0}  # fmt: skip
    talking = 5 if frame.quick else 20
    silent = min(size // 3, 80)
    changing = {"seconds": seconds / 8}
    return {
        "do": "both",
        "changing": changing,
        "seconds": seconds,
        "pause": PAUSE,
        "talking": talking,
        "silent": silent,
    }


def _end(scene: Scene, found: Mapping[tuple[int, str], Found]) -> None:
    found[scene.size, scene.pace].take(scene.directory, scene.stack.end())


def _end_silence(scene: Scene, found: Mapping[tuple[int, str], Found]) -> None:
    result = scene.stack.end()
    silent, calls = result["talking"][1:], result["calls"]
    calls.pop(POLLS_WHILE_TALKING, None)
    found[scene.size, scene.pace].take(scene.directory, {"silent": silent, "calls": calls})


def _notes(path: Path) -> dict[tuple[str, str], int]:
    noted: dict[tuple[str, str], int] = {}
    for line in path.read_text().splitlines():
        kind, key, at = line.split()
        noted.setdefault((kind, key), int(at))
    return noted


# ── figures ───────────────────────────────────────────────────────────────────────────────────────────────────────

COST = f"{COST_THREADS} silent threads"
POLLS_WHILE_TALKING = "polls of talking threads"

TARGETS = {
    "talking: noticed": ("≤ 0.15 s", "≤ 0.6 s"),
    "silent: noticed": ("≤ 0.25 s", "≤ 0.6 s"),
    "talking: reply visible": ("≤ 0.25 s", ""),
    "silent: reply visible": ("≤ 0.35 s", ""),
}


def _rows(size: int, pace: str, found: Found) -> list[Row]:
    where = _where(size, pace)
    rows: list[Row] = []
    for kind, waits in found.waits.items():
        median, late = TARGETS.get(kind, ("", "")) if not PACES[pace] else ("", "")
        note = f"{len(waits)} of {len(waits) + found.missing[kind]}"
        if kind in ("edited", "deleted", "left"):
            rows.append(Row(f"{where}: {kind}, noticed at worst", max(waits, default=None), "s", note=note))
            continue
        rows.append(Row(f"{where}: {kind}, median", _share(waits, 0.5), "s", target=median, note=note))
        rows.append(Row(f"{where}: {kind}, p99", _share(waits, 0.99), "s", target=late, note=note))
    words = len(found.waits["talking: reply visible"])
    polls = found.calls[POLLS_WHILE_TALKING] / words if words else None
    often = "with recent activity, it is polled every 0.3 s"
    rows.append(Row(f"{where}: talking, polls for each word", polls, "", note=often))
    rows.append(Row(f"{where}: requests refused (429)", found.calls["refused"], "", target="0"))
    return rows


def _share(waits: list[float], share: float) -> float | None:
    ordered = sorted(waits)
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None


def _costs(frame: Frame) -> list[Row]:
    """Share of a core while nobody says anything; all at the same time, which moves processor time little."""
    plans = {"1 bot, interval 1s": (1, {"interval": "1s"}), "1 bot": (1, {}), f"{BOTS} bots": (BOTS, {})}
    with ExitStack() as stacks:
        bots: dict[str, Stack] = {}
        for name, (count, poll) in list(plans.items())[: 1 if frame.quick else None]:
            frame.say(f"the cost of {name}")
            directory = frame.workdir / f"cost-{name.replace(' ', '-')}"
            stage = ("tests.benchmarks.conversing", str(count))
            bots[name] = stacks.enter_context(running(directory, COST_THREADS, poll=poll, stage=stage, plugin=PLUGIN))
        seconds = 1.0 if frame.quick else COST_SECONDS
        time.sleep(seconds)
        before = {name: stack.cpu()["bot"] for name, stack in bots.items()}
        time.sleep(seconds)
        used = {name: (stack.cpu()["bot"] - before[name]) / seconds * 100 for name, stack in bots.items()}
    return [Row(f"{COST}: {name}, processor time", share, "% of a core") for name, share in used.items()]


def _optimum(rows: Sequence[Row]) -> Plot:
    """Draw how long a poll lets a word wait in the median, and what was measured on loopback."""
    intervals = [10 / requests for requests in (5, 7, 10, 15, 20, 25, 33, 50)]
    lines = {
        "silent, optimum": [(10 / interval, interval / 2) for interval in intervals],
        "talking, optimum": [(10 / interval, interval * (1 - math.sqrt(0.5))) for interval in intervals],
    }
    for kind in ("silent", "talking"):
        waits = [
            row.value for row in rows if f" {LOOPBACK}: {kind}: noticed, median" in row.name and row.value is not None
        ]
        if waits:
            lines[f"{kind}, measured"] = [(POLLS_PER_10_S, wait) for wait in waits]
    title = "Waiting for a poll, under the quota of 50 requests in 10 s"
    return Plot("latency", title, "requests for the list of threads in 10 s", "seconds, median", lines)
