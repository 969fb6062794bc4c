"""What it costs to get one event through 50 handlers and a middleware: 25 commands, 25 patterns for texts.

The text is matched by the last pattern of all, the command is the last one registered. Each contender's events go
through its own entry for one event, in this process, without a network; see the scripts in `dispatchers`.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.benchmarks.frame import Frame, Report, Row, child, ratio
from tests.benchmarks.peers import PeerMissing, peer, versions

TITLE = "Dispatch: one event through 50 handlers and a middleware"

SCRIPTS = Path(__file__).parent / "dispatchers"
OURS = "chatbot"
BARE = "bare Python"
TARGETS = {("text", BARE): "≤ 2.0", ("command", BARE): "≤ 12", ("text", "aiogram"): "≤ 0.10"}
KINDS = {"text": "a text, matched by the last handler", "command": "a command"}


@dataclass(frozen=True)
class Contender:
    """A script, its name as a library on PyPI with what else it takes, and how many events it gets."""

    script: str
    events: int
    requirements: tuple[str, ...] = ()


CONTENDERS = {
    OURS: Contender("chatbot_own", 10_000),
    BARE: Contender("bare", 10_000),
    "python-telegram-bot": Contender("python_telegram_bot", 10_000, ("python-telegram-bot>=22,<23",)),
    "discord.py": Contender("discord_commands", 10_000, ("discord.py>=2.5,<3",)),
    "aiogram": Contender("aiogram3", 1_000, ("aiogram>=3.20,<4",)),
    "slack-bolt": Contender("slack", 500, ("slack-bolt>=1.23,<2", "aiohttp>=3.12,<4")),
    "microsoft-agents-hosting-core": Contender(
        "microsoft_agents_sdk", 500, ("microsoft-agents-hosting-core>=1,<2", "microsoft-agents-activity>=1,<2")
    ),
    "nonebot2": Contender("nonebot_console", 50, ("nonebot2>=2.4,<3", "nonebot-adapter-console>=0.9,<1")),
}


def run(frame: Frame) -> Report:
    """Measure; a quick run leaves out what would have to be installed."""
    pythons, missing = _pythons(frame)
    divisor = 20 if frame.quick else 1
    costs: dict[str, list[dict[str, float]]] = frame.interleaved(
        {
            name: partial(
                child,
                SCRIPTS / f"{CONTENDERS[name].script}.py",
                CONTENDERS[name].events // divisor,
                python=python,
            )
            for name, python in pythons.items()
        }
    )
    labels = {name: _label(name, python) for name, python in pythons.items()}
    rows = [row for kind, title in KINDS.items() for row in _rows(kind, title, costs, labels)]
    return Report([*rows, *(Row(name, None, "µs", note=f"not measured: {why}") for name, why in missing.items())])


def _pythons(frame: Frame) -> tuple[dict[str, Path], dict[str, str]]:
    """Return whom there is to measure, each with its Python, and why the others are not."""
    pythons: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for name, contender in CONTENDERS.items():
        if not contender.requirements:
            pythons[name] = Path(sys.executable)
        elif frame.quick:
            missing[name] = "a quick run installs nothing"
        else:
            frame.say(f"install {name}")
            try:
                pythons[name] = peer(name, *contender.requirements)
            except PeerMissing as error:
                missing[name] = f"it could not be installed: {error}"
    return pythons, missing


def _label(name: str, python: Path) -> str:
    return f"{name} {versions(python, name)[name]}" if CONTENDERS[name].requirements else name


def _rows(kind: str, title: str, costs: dict[str, list[dict[str, float]]], labels: dict[str, str]) -> list[Row]:
    """Return ours beside everybody who knows this kind of event, the quickest first."""
    figures = {name: [cost[kind] for cost in rounds] for name, rounds in costs.items() if kind in rounds[0]}
    medians = {name: statistics.median(rounds) for name, rounds in figures.items()}
    return [
        Row(
            title,
            medians[OURS],
            "µs",
            labels[name],
            medians[name],
            ratio(figures[OURS], figures[name]),
            TARGETS.get((kind, name), "≤ 1.00"),
        )
        for name in sorted(medians.keys() - {OURS}, key=medians.__getitem__)
    ]
