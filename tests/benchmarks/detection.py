"""How soon a message is noticed, against what that costs in requests: ours beside fixed intervals and the optimum.

All of it in virtual time, so the figures are the same on every machine. The optimum under the quota is a poller of the
thread list alone, as often as the requests allow (50 in 10 s), and one poll of the thread for each message: half of its
interval in the median, and a request there and back.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from chatbot.polling.cadence import Cadence
from tests.benchmarks.detecting import BURSTY, BUSY, SILENT, Contender, Outcome, Talk, fixed, ours, play
from tests.benchmarks.frame import Frame, Plot, Report, Row

TITLE = "Detection: how soon a message is noticed, and at what cost"

KINDS: Mapping[str, Talk] = {"silent": SILENT, "bursty": BURSTY, "busy": BUSY}
THREADS = 20
INTERVALS = (0.3, 0.5, 1.0, 2.0, 5.0)
FIXED = (1.0, 2.0, 5.0)
MOST_LISTS = 300.0
"""Requests a minute: 50 list_threads in 10 s."""

REQUEST_SECONDS = 0.055
"""The median of what a request takes there."""


def run(frame: Frame) -> Report:
    """Measure."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    try:
        return _run(frame)
    finally:
        structlog.reset_defaults()


def _run(frame: Frame) -> Report:
    rows: list[Row] = []
    plots: list[Plot] = []
    for kind, talk in KINDS.items():
        lines: dict[str, list[tuple[float, float]]] = {}
        found: dict[str, Outcome] = {}
        for name, contender in contenders(quick=frame.quick).items():
            frame.say(f"{THREADS} {kind} threads: {name}")
            outcome = found[name] = play(contender, {kind: (talk, THREADS)}, seconds=30 if frame.quick else 240)
            lines.setdefault(name.split(",")[0], []).append((outcome.requests, outcome.median.get(kind, 0.0)))
        lines["the optimum under the quota"] = optimum(talk)
        rows += rows_of(kind, found)
        title = f"{THREADS} {kind} threads: how soon a message is noticed"
        plots.append(Plot(f"detection-{kind}", title, "requests a minute", "seconds, median", lines, is_x_log=True))
    rows += many(frame)
    return Report(rows, plots)


def contenders(*, quick: bool) -> dict[str, Contender]:
    """Ours at several intervals, and fixed ones."""
    ours_at = {f"ours, {interval:g} s": ours(Cadence(interval=interval)) for interval in INTERVALS}
    fixed_at = {f"fixed interval, {interval:g} s": fixed(interval) for interval in FIXED}
    if quick:
        return {"ours, 1 s": ours_at["ours, 1 s"], "fixed interval, 1 s": fixed_at["fixed interval, 1 s"]}
    return {**ours_at, **fixed_at}


def optimum(talk: Talk) -> list[tuple[float, float]]:
    """Return requests a minute, and seconds: polls of the thread list, and one poll of the thread for each message."""
    looks = 60 * THREADS * talk.burst / talk.pause
    waits = [(lists, 30 / lists + 1.5 * REQUEST_SECONDS) for lists in (12.0, 30.0, 60.0, 120.0, MOST_LISTS)]
    return [(lists + looks, seconds) for lists, seconds in waits]


def rows_of(kind: str, found: Mapping[str, Outcome]) -> list[Row]:
    """Ours beside a fixed interval of the same length; and how the others did, the shortest interval of ours first."""
    mine, other = found["ours, 1 s"], found["fixed interval, 1 s"]
    rival = "every thread each second"
    target = "≤ 2 s" if kind == "silent" else "≤ 1 s"
    seconds, theirs = mine.median[kind], other.median[kind]
    rows = [
        Row(f"{kind}: noticed after, median", seconds, "s", rival, theirs, seconds / theirs, target),
        Row(f"{kind}: noticed after, worst", mine.worst[kind], "s", rival, other.worst[kind]),
        Row(
            f"{kind}: requests a minute, {THREADS} threads", mine.requests, "", rival, other.requests,
            mine.requests / other.requests,
        ),
    ]  # fmt: skip
    for name, outcome in found.items():
        if outcome not in (mine, other):
            note = f"{outcome.requests:,.0f} requests a minute, {outcome.refused} refused, {outcome.missed} missed"
            rows.append(Row(f"{kind}: {name}, median", outcome.median[kind], "s", note=note))
    rows.append(Row(f"{kind}: messages missed", mine.missed, "", rival, other.missed, target="0"))
    return rows


def many(frame: Frame) -> list[Row]:
    """Ours among ten thousand threads, nearly all of them silent; a fixed interval would be far above the quotas."""
    threads, seconds = (500, 20) if frame.quick else (10_000, 90)
    frame.say(f"{threads} threads: ours")
    groups = {"silent": (Talk(seconds / 2), 60), "bursty": (BURSTY, 20), "busy": (BUSY, 20)}
    found = play(ours(Cadence()), groups, seconds=seconds, silent=threads - 100)
    where = f"among {threads:,} threads"
    targets = {"silent": "≤ 0.25 s", "bursty": "≤ 0.25 s", "busy": "≤ 0.25 s"}
    rows = [
        Row(f"{where}: {kind}, median", found.median[kind], "s", target=target, note=f"worst {found.worst[kind]:.2f} s")
        for kind, target in targets.items()
    ]
    return [
        *rows,
        Row(f"{where}: list_threads a minute", found.lists, "", target="≤ 200", note="and the full walk"),
        Row(f"{where}: list_messages a minute", found.requests - found.lists, ""),
        Row(f"{where}: requests refused (429)", found.refused, "", target="0"),
        Row(f"{where}: messages missed", found.missed, "", target="0"),
    ]
