"""`chatbot status` as people see it: many bots, long names, small screens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from chatbot.cli import app, main, status_report
from chatbot.cli.status_report import MAX_NAME_WIDTH, status_lines
from chatbot.config.source_location import cells


def bot(name: str, **facts: Any) -> dict[str, Any]:
    return {
        "name": name,
        "threads": 3,
        "lag_seconds": 0.4,
        "missed": {},
        "oldest_unhandled_seconds": None,
        "outbox": {"rows": 0, "oldest_seconds": None},
        "quota_left": {"list_threads": 50, "list_messages": 44, "write_message": 10},
        "running": [],
        "troubles": {},
        "last_failures": [],
        "dead_letters": 0,
        "token_seconds_left": 80_012,
        **facts,
    }


def status(*bots: dict[str, Any], **facts: Any) -> dict[str, Any]:
    return {
        "version": "1.2.3",
        "pid": 42,
        "uptime_seconds": 12_345.0,
        "service": {"endpoint": "https://x.communication.azure.com", "is_emulator": False},
        "is_healthy": True,
        "is_ready": True,
        "unready": [],
        "last_reload": None,
        "tasks": 9,
        "memory_bytes": 123_000_000,
        "bots": list(bots),
        **facts,
    }


def failing(name: str) -> dict[str, Any]:
    return bot(name, last_failures=[{"seconds_ago": 3.0, "handler": "plugins.shop.buy", "error": "ValueError"}])


def test_each_bot_is_a_line_with_what_matters() -> None:
    shown = status_lines(status(bot("echo", outbox={"rows": 2, "oldest_seconds": 65.0}, dead_letters=None)))

    assert shown[:3] == [
        "chatbot 1.2.3, process 42, up 3h 25m, on https://x.communication.azure.com",
        "healthy, ready, 9 tasks, 123 MB",
        "",
    ]
    cells_of_row = [part.strip() for part in shown[4].split("  ") if part.strip()]
    assert cells_of_row == ["echo", "3", "400ms", "-", "2 (1m 5s)", "44", "10", "?", "22h 13m"]
    assert len(shown) == 5


def test_long_wide_and_hostile_names_leave_the_columns_where_they_are() -> None:
    names = ["echo", "n" * 500, "\u52a9\u624b" * 40, "\x1b[31mred\n"]
    shown = status_lines(status(*(bot(name) for name in names)))

    rows = shown[4:]
    assert len(rows) == len(names)
    assert all(row.isprintable() for row in rows)
    assert len({cells(row) for row in rows}) == 1
    assert rows[1].startswith("n" * (MAX_NAME_WIDTH - 1) + "\u2026")


def test_what_is_alike_is_counted() -> None:
    running = [{"thread": f"19:{number}", "event": "MessageReceived", "seconds": 9.0} for number in range(5)]
    failures = [
        {"seconds_ago": float(9 - number), "handler": "plugins.shop.buy", "error": "ValueError"} for number in range(8)
    ]
    missed = {f"19:{number}": 400.0 + number for number in range(1000)}
    remarks = status_lines(status(bot("echo", running=running, last_failures=failures, missed=missed)))[5:]

    assert remarks == [
        "echo: 19:999 has been stalled for 23m 19s",
        "echo: 19:998 has been stalled for 23m 18s",
        "echo: 19:997 has been stalled for 23m 17s",
        "echo: and so have 997 more pollers",
        "echo: has been handling MessageReceived in 19:0 for 9s",
        "echo: has been handling MessageReceived in 19:1 for 9s",
        "echo: has been handling MessageReceived in 19:2 for 9s",
        "echo: and 2 more running handlers",
        "echo: plugins.shop.buy failed 2s ago: ValueError, 8 times recently",
    ]


def test_reasons_to_be_degraded_and_waiting_events_are_shown() -> None:
    reason = {"reason": "list_threads:403", "detail": "the service answers 403\x1b[31m", "seconds": 200.0}
    handlers = {"most": 32, "running": 32, "waiting": 7}
    of_process = {"reason": "settings_postponed", "detail": "only a restart applies store", "seconds": 5.0}
    shown = status_lines(
        status(bot("echo", degraded=[reason], handlers=handlers), is_degraded=True, degraded=[of_process])
    )

    assert shown[1:3] == [
        "healthy, ready, DEGRADED, 9 tasks, 123 MB",
        "  degraded: settings_postponed for 5s: only a restart applies store",
    ]
    assert shown[-2:] == [
        "echo: degraded: list_threads:403 for 3m 20s: the service answers 403\\x1b[31m",
        "echo: 7 events wait for one of 32 handlers to end (max_handlers)",
    ]


def test_doubles_that_were_healed_are_counted() -> None:
    assert status_lines(status(bot("echo", doubles_healed=0)))[5:] == []
    assert status_lines(status(bot("echo", doubles_healed=2)))[5:] == [
        "echo: 2 replies were sent twice; the newer copies were deleted"
    ]


def test_what_does_not_fit_on_a_screen_is_counted_and_bots_with_remarks_come_first() -> None:
    bots = [bot(f"calm-{number}") for number in range(40)] + [failing("sick"), bot("full", quota_left={
        "list_threads": 0, "list_messages": 0, "write_message": 1})]  # fmt: skip
    shown = status_lines(status(*bots), max_lines=20)

    assert len(shown) == 20
    assert [row.split()[0] for row in shown[4:7]] == ["sick", "full", "calm-0"]
    assert shown[-3] == "and 29 more bots"
    assert shown[-2:] == [
        "sick: plugins.shop.buy failed 3s ago: ValueError",
        "full: no quota left right now: list_threads, list_messages",
    ]
    assert len(status_lines(status(*(failing(f"sick-{number}") for number in range(40))), max_lines=20)) == 20
    assert len(status_lines(status(*bots))) == 4 + 42 + 2


def test_a_bot_that_has_just_started_is_not_said_to_have_used_up_what_it_only_assumes() -> None:
    quota_left = {"list_threads": 0, "list_messages": 44, "write_message": 10}
    shown = status_lines(status(bot("echo", quota_left=quota_left, quota_assumed_seconds=8.0)))

    assert shown[5:] == [
        "echo: has just started: for 8s, requests for the list of threads keep to what the process before may have left"
        " of their quota"
    ]


def test_a_quota_that_is_used_up_later_is_said_to_be() -> None:
    quota_left = {"list_threads": 0, "list_messages": 44, "write_message": 10}
    shown = status_lines(status(bot("echo", quota_left=quota_left, quota_assumed_seconds=0.0)))

    assert shown[5:] == ["echo: no quota left right now: list_threads"]


def test_how_far_the_list_of_threads_is_read_is_said_until_its_end() -> None:
    unread, read = ({"thread_list": {"read": 1_200, "is_complete": is_complete}} for is_complete in (False, True))

    assert status_lines(status(bot("echo", **unread)))[5:] == [
        "echo: is still reading the list of its threads; it has read 1200 so far"
    ]
    assert status_lines(status(bot("echo", **read)))[5:] == []


def test_what_is_not_ready_is_shown_with_its_reason() -> None:
    shown = status_lines(status(bot("echo"), is_ready=False, is_healthy=False, unready=["no\x1b[31m token"]))

    assert shown[1:3] == ["NOT HEALTHY, NOT READY, 9 tasks, 123 MB", "  not ready: no\\x1b[31m token"]


def test_a_refused_reload_and_settings_that_wait_for_a_restart_are_shown() -> None:
    last = {"seconds_ago": 90.0, "is_refused": True, "postponed": ["store"]}

    shown = "\n".join(status_lines(status(bot("echo"), last_reload=last)))

    assert "  REFUSED a reload 1m 30s ago: the bots run unchanged; `chatbot check` shows why\n" in shown
    assert "  applied only after a restart: store\n" in shown


def test_a_narrow_terminal_shows_whole_columns_and_leaves_out_those_that_matter_least() -> None:
    wide = status_lines(status(bot("a-bot-with-a-name")), max_width=120)
    narrow = status_lines(status(bot("a-bot-with-a-name")), max_name_width=10, max_width=40)

    assert "SENDS LEFT" in wide[3]
    assert narrow[3].split() == ["BOT", "LAG", "UNHANDLED", "DEAD"]
    assert max(map(cells, narrow[3:5])) <= 40


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["my bots.yaml"],
        ["--format", "json"],
        ["--format=json", "other.yaml", "--watch"],
        ["--watch", "--format", "text"],
        ["--config", "other.yaml"],
        ["--config=other.yaml", "--format", "json"],
        ["--", "other.yaml"],
        ["--no-such"],
        ["--format", "xml"],
        ["--format"],
        ["a.yaml", "b.yaml"],
        ["--help"],
    ],
)
def test_the_short_way_to_the_status_means_what_the_command_line_library_would(
    words: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Path, bool, str]] = []

    def show(config: Path, *, watch: bool = False, format: str = "text") -> int:
        asked.append((config, watch, format))
        return 7

    monkeypatch.setattr(status_report, "show_status", show)
    monkeypatch.setattr("chatbot.cli.status.show_status", show)

    codes = [main(["status", *words]), app.run_command(["status", *words])]

    assert codes[0] == codes[1]
    assert asked[:1] == asked[1:]
    printed = capsys.readouterr()
    assert printed.out[: len(printed.out) // 2] * 2 == printed.out


def test_the_status_is_asked_for_without_libraries_that_take_longer_than_the_answer(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from chatbot.cli import main
        main(["status"])
        slow = {"cyclopts", "anyio", "asyncio", "filelock", "pydantic", "structlog", "yaml", "rich", "aiohttp"}
        sys.exit(str(slow & set(sys.modules)) if slow & set(sys.modules) else 0)
        """

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )

    assert done.returncode == 0, done.stderr
    assert "no bots run in" in done.stderr
