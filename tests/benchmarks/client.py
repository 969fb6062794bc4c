"""What a call costs: our client and our whole bot, beside the SDK used as its quickstart uses it, and raw aiohttp.

What counts is the processor time of the client's process for each call, of some thousands, 32 at a time over kept
connections, to a server that gives every call the same answer. The bot polls 200 threads as fast as their quota
allows, with its thread list, its scheduler, its cursor and its quotas. It polls some twenty threads at each wake-up, so
it is compared with a quickstart that does the same: a single call costs more than one among many.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec

from tests.benchmarks import canned
from tests.benchmarks.frame import Frame, Report, Row, child, ratio

TITLE = "The client: processor time of a call"

QUICKSTART = "SDK quickstart"
OURS = "our client"
BOT = "our whole bot"
PACED = "SDK quickstart, at the bot's pace"
RAW = "raw aiohttp + json"
UVLOOP = "our client, on uvloop"
TITLES = {
    "0": "an empty page",
    "1": "a page of 1 message",
    "20": "a page of 20 messages",
    "200": "a page of 200 messages",
    "send": "a message sent",
}
TARGETS = {("0", OURS): "≤ 0.20", ("200", OURS): "≤ 0.08"}

Costs = dict[str, float]


def run(frame: Frame) -> Report:
    """Measure."""
    who = [QUICKSTART, OURS, BOT, PACED, RAW, *([UVLOOP] if find_spec("uvloop") else [])]
    with ExitStack() as servers:
        endpoints = {what: servers.enter_context(canned.running(int(what))) for what in TITLES if what.isdigit()}
        endpoints["send"] = endpoints["0"]
        costs = frame.interleaved({name: partial(_costs, frame, name, endpoints) for name in who})
    return Report([*(row for what in TITLES for row in _rows(what, costs)), *_uvloop(costs)])


def _costs(frame: Frame, who: str, endpoints: Mapping[str, str]) -> Costs:
    costs: Costs = child("-m", "tests.benchmarks.callers", who, json.dumps(endpoints), 20 if frame.quick else 1)
    return costs


def _rows(what: str, costs: Mapping[str, list[Costs]]) -> list[Row]:
    rivals = {OURS: QUICKSTART, BOT: PACED, RAW: QUICKSTART}
    return [
        _row(
            f"{TITLES[what]}: {who}",
            _each(what, costs[who]),
            rival,
            _each(what, costs[rival]),
            TARGETS.get((what, who), ""),
        )
        for who, rival in rivals.items()
        if what in costs[who][0]
    ]


def _each(what: str, rounds: list[Costs]) -> list[float]:
    return [costs[what] for costs in rounds]


def _uvloop(costs: Mapping[str, list[Costs]]) -> list[Row]:
    if UVLOOP not in costs:
        return [Row(UVLOOP, None, "µs", note="not measured: uvloop is not installed")]
    return [_row(f"{TITLES['0']}: {UVLOOP}", _each("0", costs[UVLOOP]), OURS, _each("0", costs[OURS]))]


def _row(name: str, own: list[float], rival: str, other: list[float], target: str = "") -> Row:
    return Row(name, statistics.median(own), "µs", rival, statistics.median(other), ratio(own, other), target)
