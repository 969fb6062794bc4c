"""Ask running bots for their status, and show it.

It must answer at once, also while the event loop of the bots is blocked on a busy machine, so this imports little.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from chatbot.cli.boundary import EXIT_DEGRADED, EXIT_UNAVAILABLE
from chatbot.cli.output import CLEAR, span, table, truncated
from chatbot.config.source_location import cells, printable
from chatbot.errors import StateError
from chatbot.runtime.control_client import ask_at_once, find_daemon
from chatbot.runtime.run_directory import ControlDirectory

WATCH_SECONDS: Final = 2.0
CHECK_SECONDS: Final = 0.2
"""How long to wait for an answer before each check whether the process is blocked."""

ANSWER_SECONDS: Final = 1.4
"""How long to wait for an answer at all. With the start of Python, this is less than two seconds."""

MAX_NAME_WIDTH: Final = 28
"""Maximum width of a bot's name, in terminal columns."""

MIN_NAME_WIDTH: Final = 10
COLUMNS_BESIDE_NAME: Final = 72

MAX_SIMILAR: Final = 3
LIST_THREADS: Final = "list_threads"


def show_status(config: Path, *, watch: bool = False, format: str = "text") -> int:
    """Print the status of the bots of a bots.yaml, and return the exit code.

    Args:
        config: the configuration of the running bots.
        watch: refresh until Ctrl-C.
        format: `text` or `json`.
    """
    while True:
        found = _ask(config)
        is_screen = watch and format == "text" and sys.stdout.isatty()
        if format == "json":
            text = json.dumps(found, indent=None if watch else 2)
        elif is_screen:
            import shutil

            size = shutil.get_terminal_size()
            name = min(MAX_NAME_WIDTH, max(MIN_NAME_WIDTH, size.columns - COLUMNS_BESIDE_NAME))
            lines = status_lines(found, max_lines=size.lines - 1, max_name_width=name, max_width=size.columns)
            text = "\n".join(truncated(line, size.columns) for line in lines)
        else:
            text = "\n".join(status_lines(found))
        print(f"{CLEAR}{text}" if is_screen else text, flush=True)
        if not watch:
            return exit_code(found)
        time.sleep(WATCH_SECONDS)


def _ask(config: Path) -> Mapping[str, Any]:
    """Ask the daemon; if it does not answer, find out from outside whether its event loop is blocked.

    Raises:
        StateError: it does not answer; the message names the blocking line, if known.
    """
    directory = config.absolute().parent
    control = ControlDirectory(directory)
    daemon = find_daemon(control, config)
    if daemon is None:
        message = f"no bots run in {directory}; start them with `chatbot run` in another terminal"
        raise StateError(message)

    stacks = 0

    def read_place(number: int) -> None:
        nonlocal stacks
        from chatbot.runtime.watchdog import last_known_place

        place = last_known_place(control, directory, may_signal=False)
        if place is None and number > 0:
            # What its watchdog has not noted may be a process that is just slow: it must be at work twice.
            place = last_known_place(control, directory)
            stacks = stacks + 1 if place is not None else 0
        if place is not None and stacks != 1:
            message = (
                f"the process does not answer: its event loop is blocked by {place}; "
                "run such code in a thread (`anyio.to_thread.run_sync`), or await it"
            )
            raise StateError(message)

    return ask_at_once(daemon, {"ask": "status"}, ANSWER_SECONDS, read_place, CHECK_SECONDS)


def exit_code(found: Mapping[str, Any]) -> int:
    if not (found["is_healthy"] and found["is_ready"]):
        return EXIT_UNAVAILABLE
    return EXIT_DEGRADED if found.get("is_degraded") else 0


def status_lines(
    found: Mapping[str, Any],
    *,
    max_lines: int | None = None,
    max_name_width: int = MAX_NAME_WIDTH,
    max_width: int | None = None,
) -> list[str]:
    """Yield the status as lines of text.

    Args:
        found: the status.
        max_lines: how many fit on the screen; if there are more, bots with remarks come first, the rest is counted.
        max_name_width: maximum width of a bot's name, in terminal columns.
        max_width: how many terminal columns there are; columns of the table that do not fit are left out.
    """
    bots, head = list(found["bots"]), _head(found)
    remarks = {bot["name"]: list(_remarks(bot, max_name_width)) for bot in bots}
    reload_lines = [line for lines in remarks.values() for line in lines]
    if max_lines is not None and len(head) + 1 + len(bots) + len(reload_lines) > max_lines:
        room = max(2, (max_lines - len(head) - 1) // 2)
        bots.sort(key=lambda bot: not remarks[bot["name"]])
        reload_lines = _truncate_lines(reload_lines, room, "remarks")
        bots = bots[: max(1, max_lines - len(head) - len(reload_lines) - 2)]
    lines = [*head, *_fitting_table([_row(bot, max_name_width) for bot in bots], max_width)]
    if left := len(found["bots"]) - len(bots):
        lines.append(f"and {left} more bots")
    return [*lines, *reload_lines]


def _fitting_table(rows: list[tuple[str, ...]], max_width: int | None) -> list[str]:
    """Return the table, without the columns that matter least where it would be too wide."""
    titles, dispensable = list(_TITLES), list(_DISPENSABLE)
    while True:
        kept = [_TITLES.index(title) for title in titles]
        lines = list(table(titles, [tuple(row[column] for column in kept) for row in rows]))
        if max_width is None or not dispensable or max(map(cells, lines)) <= max_width:
            return lines
        titles.remove(dispensable.pop(0))


def _truncate_lines(lines: list[str], limit: int, what: str) -> list[str]:
    return lines if len(lines) <= limit else [*lines[: limit - 1], f"and {len(lines) - limit + 1} more {what}"]


def _head(found: Mapping[str, Any]) -> list[str]:
    where = "the emulator" if found["service"]["is_emulator"] else found["service"]["endpoint"]
    health = "healthy" if found["is_healthy"] else "NOT HEALTHY"
    ready = "ready" if found["is_ready"] else "NOT READY"
    degraded = ", DEGRADED" if found.get("is_degraded") else ""
    memory = f", {found['memory_bytes'] / 1e6:.0f} MB" if found["memory_bytes"] else ""
    return [
        f"chatbot {found['version']}, process {found['pid']}, up {span(found['uptime_seconds'])}, on {where}",
        f"{health}, {ready}{degraded}, {found['tasks']} tasks{memory}",
        *(f"  not ready: {printable(reason)}" for reason in found["unready"]),
        *(f"  degraded: {_reason(reason)}" for reason in found.get("degraded", ())),
        *_reload(found["last_reload"]),
        *_sharing(found.get("sharing")),
        *_canary(found.get("canary")),
        "",
    ]


def _reload(last: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield lines about the last reload, if it was refused or some settings need a restart."""
    if last is not None and last["is_refused"]:
        advice = last.get("advice") or "`chatbot check` shows why"
        yield f"  REFUSED a reload {span(last['seconds_ago'])} ago: the bots run unchanged; {advice}"
    if last is not None and last["postponed"]:
        yield f"  applied only after a restart: {', '.join(last['postponed'])}"


def _sharing(sharing: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield lines about the processes that share the store."""
    if sharing is None:
        return
    shards, replicas = sharing["shards"], sharing["replicas"]
    others = [f"{one['host']}, pid {one['pid']} ({one['shards']})" for one in replicas if not one["is_oneself"]]
    beside = f"; beside it: {'; '.join(map(printable, others[:MAX_SIMILAR]))}" if others else "; no other process runs"
    more = f" and {len(others) - MAX_SIMILAR} more" if len(others) > MAX_SIMILAR else ""
    yield f"owns {shards['owned']} of {shards['all']} shards of the store{beside}{more}"
    if not sharing["is_held"]:
        yield "  DISCONNECTED from the server of the store: nothing is polled or sent until it is back"
    if shards["without_owner"]:
        yield f"  WITHOUT OWNER: {shards['without_owner']} shards; `chatbot cluster status` shows more"


def _canary(canary: Mapping[str, Any] | None) -> Iterator[str]:
    if canary is not None:
        own, others = canary["events"], canary["events_of_others"]
        state = "HAS HANDED ITS THREADS BACK" if canary["has_handed_back"] else f"{canary['share']:.3g} of the threads"
        yield (
            f"  canary: {state}, {canary['shards']} of 256 shards; failed in the last 10 minutes: "
            f"{own['failed']} of {own['handled']} events here, {others['failed']} of {others['handled']} elsewhere"
        )


_TITLES: Final = ("BOT", "THREADS", "LAG", "UNHANDLED", "OUTBOX", "READS LEFT", "SENDS LEFT", "DEAD", "TOKEN")


_DISPENSABLE: Final = ("SENDS LEFT", "READS LEFT", "TOKEN", "THREADS", "OUTBOX", "UNHANDLED")
"""What is left out on narrow terminals, in this order."""


def _row(bot: Mapping[str, Any], max_name_width: int) -> tuple[str, ...]:
    outbox = str(bot["outbox"]["rows"])
    if bot["outbox"]["oldest_seconds"] is not None:
        outbox += f" ({span(bot['outbox']['oldest_seconds'])})"
    return (
        truncated(bot["name"], max_name_width),
        str(bot["threads"]),
        span(bot["lag_seconds"]),
        span(bot["oldest_unhandled_seconds"]),
        outbox,
        str(bot["quota_left"]["list_messages"]),
        str(bot["quota_left"]["write_message"]),
        "?" if bot["dead_letters"] is None else str(bot["dead_letters"]),
        span(bot["token_seconds_left"]),
    )


def _remarks(bot: Mapping[str, Any], max_name_width: int) -> Iterator[str]:
    """Yield remarks on what is wrong with a bot or takes long; similar remarks are counted."""
    name = truncated(bot["name"], max_name_width)
    if bot.get("paused_seconds") is not None:
        yield f"{name}: PAUSED for {span(bot['paused_seconds'])}; `chatbot resume` starts it again"
    missed = sorted(bot["missed"].items(), key=lambda item: -item[1])
    for poller, seconds in missed[:MAX_SIMILAR]:
        yield f"{name}: {printable(poller)} has been stalled for {span(seconds)}"
    if len(missed) > MAX_SIMILAR:
        yield f"{name}: and so have {len(missed) - MAX_SIMILAR} more pollers"
    degraded = bot.get("degraded", ())
    yield from (f"{name}: degraded: {_reason(reason)}" for reason in degraded[:MAX_SIMILAR])
    if (more := len(degraded) - MAX_SIMILAR) > 0:
        yield f"{name}: and {more} more reasons to be degraded"
    for work, kind in bot["troubles"].items():
        yield f"{name}: failing {work}: {kind}"
    used_up = [operation for operation, left in bot["quota_left"].items() if left == 0]
    assumed = bot.get("quota_assumed_seconds")
    if assumed and LIST_THREADS in used_up:
        used_up.remove(LIST_THREADS)
        yield (
            f"{name}: has just started: for {span(assumed)}, requests for the list of threads keep to what the process"
            " before may have left of their quota"
        )
    if used_up:
        yield f"{name}: no quota left right now: {', '.join(used_up)}"
    thread_list = bot.get("thread_list")
    if thread_list is not None and not thread_list["is_complete"]:
        yield f"{name}: is still reading the list of its threads; it has read {thread_list['read']} so far"
    for one in bot["running"][:MAX_SIMILAR]:
        where = f" in {printable(one['thread'])}" if one["thread"] else ""
        yield f"{name}: has been handling {one['event']}{where} for {span(one['seconds'])}"
    if (more := len(bot["running"]) - MAX_SIMILAR) > 0:
        yield f"{name}: and {more} more running handlers"
    if healed := bot.get("doubles_healed"):
        replies = "reply was" if healed == 1 else "replies were"
        yield f"{name}: {healed} {replies} sent twice; the newer copies were deleted"
    handlers = bot.get("handlers", {})
    if waiting := handlers.get("waiting"):
        yield f"{name}: {waiting} events wait for one of {handlers['most']} handlers to end (max_handlers)"
    failures: dict[tuple[str, str], list[float]] = {}
    for one in bot["last_failures"]:
        failures.setdefault((one["handler"], one["error"]), []).append(one["seconds_ago"])
    for (handler, error), ages in list(failures.items())[-MAX_SIMILAR:]:
        times = f", {len(ages)} times recently" if len(ages) > 1 else ""
        yield f"{name}: {printable(handler)} failed {span(min(ages))} ago: {error}{times}"


def _reason(degraded: Mapping[str, Any]) -> str:
    detail = printable(degraded["detail"])
    return f"{printable(degraded['reason'])} for {span(degraded['seconds'])}: {detail}"
