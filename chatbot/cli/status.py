"""`chatbot status`: how running bots are doing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import anyio
from cyclopts import Parameter

from chatbot.cli.boundary import EXIT_UNAVAILABLE
from chatbot.cli.table import table
from chatbot.config.duration import format_duration
from chatbot.config.place import printable
from chatbot.errors import StateError
from chatbot.runtime.asking import ask, find_daemon
from chatbot.runtime.control import ControlDirectory

WATCH_SECONDS: Final = 2.0
_CLEAR: Final = "\x1b[H\x1b[2J"


def status(
    config: Annotated[Path, Parameter(help="The configuration of the running bots.")] = Path("bots.yaml"),
    /,
    *,
    watch: Annotated[bool, Parameter(negative="", help="Show it again and again, until Ctrl-C.")] = False,
    format: Annotated[Literal["text", "json"], Parameter(help="For people, or for programs.")] = "text",
) -> int:
    """Show how running bots are doing."""
    while True:
        found = _ask(config)
        text = json.dumps(found, indent=None if watch else 2) if format == "json" else "\n".join(portrait(found))
        is_screen = watch and format == "text" and sys.stdout.isatty()
        print(f"{_CLEAR}{text}" if is_screen else text, flush=True)
        if not watch:
            return 0 if found["is_healthy"] and found["is_ready"] else EXIT_UNAVAILABLE
        time.sleep(WATCH_SECONDS)


def _ask(config: Path) -> Mapping[str, Any]:
    directory = config.absolute().parent
    daemon = find_daemon(ControlDirectory(directory), config)
    if daemon is None:
        message = f"no bots run in {directory}; start them with `chatbot run` in another terminal"
        raise StateError(message)
    return anyio.run(ask, daemon, {"ask": "status"})


def portrait(found: Mapping[str, Any]) -> Iterator[str]:
    """The status for people, line by line."""
    where = "the emulator" if found["service"]["is_emulator"] else found["service"]["endpoint"]
    health = "healthy" if found["is_healthy"] else "NOT HEALTHY"
    ready = "ready" if found["is_ready"] else "NOT READY"
    memory = f", {found['memory_bytes'] / 1e6:.0f} MB" if found["memory_bytes"] else ""
    yield f"chatbot {found['version']}, process {found['pid']}, up {_span(found['uptime_seconds'])}, on {where}"
    yield f"{health}, {ready}, {found['tasks']} tasks{memory}"
    yield from (f"  not ready: {printable(reason)}" for reason in found["unready"])
    yield ""
    head = ("BOT", "THREADS", "LAG", "UNHANDLED", "OUTBOX", "SENDS LEFT", "DEAD LETTERS", "TOKEN")
    yield from table(head, [_row(bot) for bot in found["bots"]])
    for bot in found["bots"]:
        yield from _remarks(bot)


def _row(bot: Mapping[str, Any]) -> tuple[str, ...]:
    outbox = str(bot["outbox"]["rows"])
    if bot["outbox"]["oldest_seconds"] is not None:
        outbox += f" ({_span(bot['outbox']['oldest_seconds'])})"
    return (
        bot["name"],
        str(bot["threads"]),
        _span(bot["lag_seconds"]),
        _span(bot["oldest_unhandled_seconds"]),
        outbox,
        str(bot["quota_left"]["send, edit and delete messages"]),
        "?" if bot["dead_letters"] is None else str(bot["dead_letters"]),
        _span(bot["token_seconds_left"]),
    )


def _remarks(bot: Mapping[str, Any]) -> Iterator[str]:
    """What of a bot is not as it should be, or takes its time."""
    name = bot["name"]
    for poller, seconds in bot["missed"].items():
        yield f"{name}: {printable(poller)} has not been heard of for {_span(seconds)}"
    for work, kind in bot["troubles"].items():
        yield f"{name}: trouble with {work}: {kind}"
    for one in bot["running"][:3]:
        where = f" in {printable(one['thread'])}" if one["thread"] else ""
        yield f"{name}: handles {one['event']}{where} since {_span(one['seconds'])}"
    for one in bot["last_failures"][-3:]:
        yield f"{name}: {printable(one['handler'])} failed {_span(one['seconds_ago'])} ago: {one['error']}"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return format_duration(timedelta(seconds=round(seconds) if seconds >= 10 else round(seconds, 1)))
