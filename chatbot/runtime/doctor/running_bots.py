"""Check the health of the running bots and their remaining quotas."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from chatbot.durations import format_duration
from chatbot.runtime.doctor.finding import Finding, failed, ok, warning
from chatbot.runtime.run_directory import ControlDirectory
from chatbot.service.budget import SERVICE_QUOTAS

_SCARCE_SHARE: Final = 4
"""A quota is reported if less than one in this many of its requests is left."""


def check_running_bots(status: Mapping[str, Any] | None, control: ControlDirectory) -> Iterator[Finding]:
    """Report the status of the running bots.

    Args:
        status: The answer of the daemon; None if no bots run.
        control: The control directory of the daemon.
    """
    yield from _directory(control)
    if status is None:
        yield ok("bots", f"none run in {control.path.parent}")
        return
    since = format_duration(timedelta(seconds=round(status["uptime_seconds"])))
    what = f"process {status['pid']} of chatbot {status['version']}, up {since}"
    late = [f"{bot['name']}: {poller}" for bot in status["bots"] for poller in bot["missed"]]
    if late:
        yield failed(
            "bots", f"{what}, has stalled pollers: {', '.join(late)}", "see its log; restart it if the log is silent"
        )
    elif status["unready"]:
        yield failed("bots", f"{what}, is not ready: {'; '.join(status['unready'])}", "see its log for `trouble.began`")
    else:
        yield ok("bots", f"{what}, is healthy and ready")
    yield from (_degraded("bots", reason) for reason in status.get("degraded", ()))
    for bot in status["bots"]:
        yield from _of_bot(bot)


def _directory(control: ControlDirectory) -> Iterator[Finding]:
    if os.name != "posix" or not control.path.is_dir():
        return
    if control.path.stat().st_mode & 0o077:
        what = f"other users can read {control.path}, which contains keys"
        yield warning("bots", what, f"chmod 700 {control.path}")


def _degraded(who: str, reason: Mapping[str, Any]) -> Finding:
    since = format_duration(timedelta(seconds=round(reason["seconds"])))
    what = f"{who}: degraded for {since}: {reason['reason']}: {reason['detail']}"
    return warning("bots", what, "docs/how-to/monitor.md lists the reasons and what to do")


def _of_bot(bot: Mapping[str, Any]) -> Iterator[Finding]:
    name = bot["name"]
    yield from (_degraded(name, reason) for reason in bot.get("degraded", ()))
    if bot["troubles"]:
        troubles = ", ".join(f"{work} ({kind})" for work, kind in bot["troubles"].items())
        yield warning("bots", f"{name} has failing work: {troubles}", "see its log for `trouble.began`")
    if bot["dead_letters"]:
        yield warning("bots", f"{name} has {bot['dead_letters']} dead letters", "chatbot dead-letters list")
    limits = {label: min(window.limit for window in windows) for label, windows in SERVICE_QUOTAS.items()}
    scarce = [label for label, left in bot["quota_left"].items() if left * _SCARCE_SHARE < limits.get(label, 0)]
    if bot.get("quota_assumed_seconds") and "list_threads" in scarce:
        scarce.remove("list_threads")  # a bot that has just started counts what the process before may have requested
    throttled = bot.get("throttled", 0)  # missing from daemons of older versions
    refused = f"; {throttled} calls were throttled (429) since the start" if throttled else ""
    if scarce:
        yield warning(
            "quota",
            f"{name}: quotas are nearly used up: {', '.join(scarce)}{refused}",
            "quotas recover within a minute",
        )
    elif refused:
        yield warning(
            "quota",
            f"{name}: no quota is short{refused}",
            "check whether other processes use the bot's user or write in its threads",
        )
    else:
        yield ok("quota", f"{name}: no quota is short, and no call was throttled")
