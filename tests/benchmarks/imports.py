"""What it costs to begin: a plugin's import of chatbot, and `chatbot --help`, beside the imports of others.

Processor time of a fresh process with warm files and compiled modules, less that of a Python which does nothing; of
--help the time on the clock, too, Python's own start included.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.benchmarks import dispatch
from tests.benchmarks.frame import ROOT, Frame, Report, Row, ratio
from tests.benchmarks.peers import PeerMissing, peer, versions

TITLE = "Beginning: imports and --help"

IMPORT = "import chatbot"
PLUGIN = "from chatbot import Plugin"
HELP = "chatbot --help"
OURS = {IMPORT: ("-c", IMPORT), PLUGIN: ("-c", PLUGIN), HELP: ("-m", "chatbot", "--help")}
OTHERS = {
    "python-telegram-bot": "import telegram.ext",
    "slack-bolt": "import slack_bolt.async_app",
    "microsoft-agents-hosting-core": "import microsoft_agents.hosting.core",
    "aiogram": "import aiogram",
}
SDK = "import azure.communication.chat.aio"


@dataclass(frozen=True)
class Cost:
    """Of one process: processor time and time on the clock, in ms."""

    processor: float
    clock: float


def run(frame: Frame) -> Report:
    """Measure; a quick run leaves out what would have to be installed."""
    whom: dict[str, Callable[[], Cost]] = {
        name: partial(_cost, sys.executable, words)
        for name, words in {"": ("-c", "pass"), **OURS, SDK: ("-c", SDK)}.items()
    }
    labels, missing = {SDK: "the SDK"}, []
    for name, statement in OTHERS.items():
        try:
            python = _peer(frame, name)
        except PeerMissing as error:
            missing.append(Row(f"{PLUGIN}, beside {name}", None, "ms", note=f"not measured: {error}"))
        else:
            whom[statement] = partial(_cost, python, ("-c", statement))
            labels[statement] = f"{name} {versions(Path(python), name)[name]}"
    for measure in whom.values():
        measure()  # compiles what is not compiled yet
    costs = frame.interleaved(whom)
    return Report([*_rows(costs, labels), *missing])


def _peer(frame: Frame, name: str) -> str:
    if frame.quick:
        text = "a quick run installs nothing"
        raise PeerMissing(text)
    return str(peer(name, *dispatch.CONTENDERS[name].requirements))


def _cost(python: str, words: Sequence[str]) -> Cost:
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([python, *words], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    clock, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(used * 1e3, clock * 1e3)


def _rows(costs: dict[str, list[Cost]], labels: dict[str, str]) -> list[Row]:
    def beyond(name: str) -> list[float]:
        return [max(0.0, one.processor - bare.processor) for one, bare in zip(costs[name], costs[""], strict=True)]

    rows = [
        Row(IMPORT, statistics.median(beyond(IMPORT)), "ms"),
        Row(PLUGIN, statistics.median(beyond(PLUGIN)), "ms", target="≤ 60 ms"),
    ]
    rows += [
        Row(PLUGIN, statistics.median(beyond(PLUGIN)), "ms", label, statistics.median(beyond(name)),
            ratio(beyond(PLUGIN), beyond(name)))
        for name, label in labels.items()
    ]  # fmt: skip
    rows += [
        Row(f"{HELP}, processor time", statistics.median(beyond(HELP)), "ms"),
        Row(f"{HELP}, on the clock", statistics.median(one.clock for one in costs[HELP]), "ms", target="≤ 150 ms"),
    ]
    return rows
