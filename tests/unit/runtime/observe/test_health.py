"""What is reported where: the table of docs/how-to/monitor.md, row by row and cell by cell, over a real bot."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import anyio
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from chatbot.bot.degraded import LASTING_SECONDS
from chatbot.cli.status_report import exit_code
from chatbot.cluster.admission import Admission
from chatbot.cluster.canary import CanaryVerdict, Counted
from chatbot.errors import StoreError
from chatbot.model import UserId
from chatbot.runtime import status_pages as pages_module
from chatbot.runtime.observe.status import StatusMonitor
from chatbot.runtime.run_directory import ControlDirectory
from chatbot.runtime.status_pages import pages
from chatbot.runtime.watchdog import BLOCKED_SECONDS, LoopWatchdog
from chatbot.stores import MemoryStore
from tests.cluster.database import Database
from tests.cluster.gate import Gate
from tests.cluster.store import ModelStore
from tests.support.assembled import Assembled, assembled

DOCS = Path(__file__).parents[4] / "docs" / "how-to" / "monitor.md"

PLUGIN = """
import anyio
from chatbot import Context, Plugin, Retry
from datetime import timedelta

plugin = Plugin("watched")
go = anyio.Event()

@plugin.command("slow", timeout=None)
async def slow(ctx: Context) -> None:
    await go.wait()

@plugin.command("stubborn", timeout=timedelta(minutes=2))
async def stubborn(ctx: Context) -> None:
    with anyio.CancelScope(shield=True):
        await go.wait()

@plugin.command("fail", retry=Retry(100, first=timedelta(seconds=1)))
async def fail(ctx: Context) -> None:
    raise ValueError("a secret of Ann's")

@plugin.message()
async def echo(ctx: Context) -> str:
    return ctx.text
"""


@dataclass(frozen=True)
class Site:
    """A bot that runs, and what is reported of it."""

    talk: Assembled
    status_monitor: StatusMonitor

    async def get(self, path: str) -> tuple[int, str]:
        return await get(self.status_monitor, path)


async def get(status_monitor: StatusMonitor, path: str) -> tuple[int, str]:
    """A page, asked for without a socket."""
    return await ask(pages(status_monitor), path)


async def ask(app: Any, path: str) -> tuple[int, str]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", "scheme": "http"}
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent).decode()


Make = Callable[[Site], Awaitable[None]]


async def quiet(site: Site) -> None:
    await anyio.sleep(600)


async def ended(site: Site) -> None:
    site.talk.bot.is_started = False
    site.status_monitor.ended = lambda: ["echo"]


async def lane_not_begun(site: Site) -> None:
    """The scheduler begins nothing any more, in silence."""
    site.talk.bot.context.settings = replace(site.talk.bot.context.settings, max_turns=0)
    await anyio.sleep(600)


async def store_full(site: Site) -> None:
    async def fail(_bot: UserId, _writes: Any) -> None:
        text = "the disk is full"
        raise StoreError(text)

    site.talk.store.commit = fail  # type: ignore[method-assign]


async def no_token(site: Site) -> None:
    site.talk.counters.token_expires_on = 1.0


async def not_started(site: Site) -> None:
    site.talk.bot.is_started = False


async def stopping(site: Site) -> None:
    site.status_monitor.is_draining = True


def refused(*faults: str) -> Make:
    async def make(site: Site) -> None:
        for fault in faults:
            site.talk.emulator.faults.add(f"{fault},user={site.talk.bot.user}")
        await site.talk.ann.send_message(site.talk.thread, "are you there?")
        await anyio.sleep(600)

    return make


async def lane_fails(site: Site) -> None:
    await site.talk.ann.send_message(site.talk.thread, "/fail")
    await anyio.sleep(LASTING_SECONDS + 60)


async def restarted(site: Site) -> None:
    """The bot ends, and its next start fails."""

    async def fail(_bot: UserId) -> NoReturn:
        text = "the disk is full"
        raise StoreError(text)

    await site.talk.stop()
    site.talk.store.pending = fail  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        await site.talk.bot.run(anyio.Event())


async def slow_handler(site: Site) -> None:
    await site.talk.ann.send_message(site.talk.thread, "/slow")
    await anyio.sleep(600)


async def abandoned(site: Site) -> None:
    await site.talk.ann.send_message(site.talk.thread, "/stubborn")
    await anyio.sleep(600)


async def postponed(site: Site) -> None:
    site.status_monitor.last_reload.record(is_refused=False, postponed=("store",))


async def reload_refused(site: Site) -> None:
    site.status_monitor.last_reload.record(is_refused=True)


def admission(owned: frozenset[int] = frozenset()) -> Admission:
    async def problems(_shards: frozenset[int]) -> list[str]:
        return []

    store = ModelStore(Database(anyio.current_time), "one", Gate(anyio.current_time))
    return Admission(store, 0.05, problems=problems, counts=dict, owned=lambda: owned)


async def canary_failed(site: Site) -> None:
    site.status_monitor.admission = one = admission()
    one.verdict = CanaryVerdict("echo", Counted(20, 19), Counted(400, 0))


async def canary_alone(site: Site) -> None:
    site.status_monitor.admission = one = admission(frozenset({7}))
    one.is_alone = True


async def shards_refused(site: Site) -> None:
    site.status_monitor.admission = one = admission()
    one.refused = ("bot echo: 1 dialog is held by order, which is gone",)


ROWS: dict[str, tuple[Make, int, int, set[str]]] = {
    "a bot has ended and will not be restarted": (ended, 503, 503, set()),
    "a thread or the list of threads that is due was not polled for 5 minutes": (lane_not_begun, 503, 200, set()),
    "the store cannot be written": (store_full, 200, 503, set()),
    "a bot has no valid token": (no_token, 200, 503, set()),
    "a bot has not started": (not_started, 200, 503, set()),
    "the process is stopping": (stopping, 200, 503, set()),
    "the service refuses a kind of request for 2 minutes": (
        refused("list_threads:403", "list_messages:400"),
        200,
        200,
        {"list_threads:403", "list_messages:400"},
    ),
    "the service is down for 2 minutes": (
        refused("*:503"),
        200,
        200,
        {"list_threads:503", "list_messages:503"},
    ),
    "a lane fails the same way for 2 minutes": (lane_fails, 200, 200, {"lane_failing"}),
    "a bot ended unexpectedly and is started again": (restarted, 200, 503, {"bot_restarting"}),
    "a handler runs for more than a minute": (slow_handler, 200, 200, {"handler_slow"}),
    "a handler did not end after it was canceled": (abandoned, 200, 200, {"handler_abandoned"}),
    "settings of a reload wait for a restart": (postponed, 200, 200, {"settings_postponed"}),
    "a reload was refused": (reload_refused, 200, 200, {"reload_refused"}),
    "a canary's handlers fail more often than those of the others": (canary_failed, 200, 503, {"canary_failed"}),
    "a canary has no process beside it": (canary_alone, 200, 200, {"canary_alone"}),
    "the code cannot continue open dialogs that other processes can": (shards_refused, 200, 503, {"shards_refused"}),
}


@pytest.mark.virtual_time
@pytest.mark.parametrize("row", ["nothing", *ROWS])
async def test_each_problem_is_reported_where_the_table_says(tmp_path: Path, row: str) -> None:
    make, health, ready, reasons = ROWS.get(row, (quiet, 200, 200, set()))
    async with assembled(tmp_path, PLUGIN) as talk:
        await talk.say("hello")
        site = Site(talk, StatusMonitor([talk.bot], {"echo": talk.counters}, talk.store, talk.connection))
        settings = talk.bot.context.settings
        await make(site)
        found = {page: await site.get(page) for page in ("/healthz", "/readyz", "/status", "/metrics")}
        watchdog = site.status_monitor.missed()
        status = json.loads(found["/status"][1])
        talk.plugin.go.set()
        talk.emulator.faults.clear()
        talk.bot.context.settings = settings

    assert (found["/healthz"][0], bool(watchdog)) == (health, health == 503)
    assert found["/readyz"][0] == ready
    (bot,) = status["bots"]
    told = {one["reason"] for one in [*status["degraded"], *bot["degraded"]]}
    assert told == reasons == in_metrics(found["/metrics"][1])
    assert status["is_degraded"] == bool(reasons)
    handlers = {"handler_slow": "slow", "handler_abandoned": "stubborn"}
    for one in bot["degraded"]:
        assert f".{handlers.get(one['reason'], '')} (" in one["detail"] or one["reason"] not in handlers
    assert exit_code(status) == (69 if 503 in (health, ready) else 75 if reasons else 0)
    assert "secret" not in str(found)


def in_metrics(text: str) -> set[str]:
    families = text_string_to_metric_families(text)
    return {s.labels["reason"] for family in families for s in family.samples if s.name == "chatbot_degraded"}


def test_a_loop_that_is_blocked_for_more_than_a_minute_is_red_and_before_that_only_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pages are asked on another loop than the bots', which does not run meanwhile."""
    monkeypatch.setattr(pages_module, "HEALTH_SECONDS", 0.01)
    now = 0.0
    blocked = asyncio.new_event_loop()

    async def begin() -> tuple[StatusMonitor, Any]:
        status_monitor = StatusMonitor([], {}, MemoryStore(), None)  # type: ignore[arg-type]
        status_monitor.watchdog = LoopWatchdog(ControlDirectory(tmp_path), tmp_path, clock=lambda: now)
        return status_monitor, pages(status_monitor)

    _, app = blocked.run_until_complete(begin())
    now = BLOCKED_SECONDS - 1
    before = asyncio.run(ask(app, "/healthz"))
    now = BLOCKED_SECONDS + 1
    after = asyncio.run(ask(app, "/healthz"))
    blocked.run_until_complete(asyncio.sleep(0))
    blocked.close()

    assert before == (200, '{"is_healthy":true,"missed":{}}')
    assert after[0] == 503
    assert "the event loop has been blocked for 61 s" in after[1]


@pytest.mark.virtual_time
async def test_a_service_that_answers_503_and_then_403_for_an_hour_restarts_nothing(tmp_path: Path) -> None:
    async with assembled(tmp_path, PLUGIN) as talk:
        await talk.say("hello")
        status_monitor = StatusMonitor([talk.bot], {"echo": talk.counters}, talk.store, talk.connection)
        seen: dict[str, set[str]] = {}
        for fault in ("list_threads:503", "list_threads:403"):
            talk.emulator.faults.add(f"{fault},user={talk.bot.user}")
            for _ in range(60):
                await anyio.sleep(60)
                assert status_monitor.missed() == {}
                assert (await get(status_monitor, "/healthz"))[0] == 200
            status = await status_monitor.read_status()
            seen[fault] = {one.reason for bot in status.bots for one in bot.report.degraded}
            talk.emulator.faults.clear()
        await anyio.sleep(120)
        afterwards = await status_monitor.read_status()

    assert seen == {"list_threads:503": {"list_threads:503"}, "list_threads:403": {"list_threads:403"}}
    assert not afterwards.is_degraded


@pytest.mark.virtual_time
async def test_each_reason_to_be_degraded_is_logged_when_it_begins_and_when_it_ends(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logged:
        async with assembled(tmp_path, PLUGIN) as talk:
            status_monitor = StatusMonitor([talk.bot], {"echo": talk.counters}, talk.store, talk.connection)
            for hours, threads in enumerate((3, 1, 0)):
                for number in range(threads):
                    talk.bot.context.degraded.begin("lane_failing", "it fails", anyio.current_time(), place=str(number))
                status_monitor.last_reload.record(is_refused=hours == 0)
                for _ in range(3):
                    status_monitor.log_degraded()
                    await anyio.sleep(10)
                for number in range(3):
                    talk.bot.context.degraded.end("lane_failing", place=str(number))

    found = [one for one in logged if one["event"].startswith("degraded.")]
    lines = [(one["event"], one["log_level"], one.get("bot"), one["reason"]) for one in found]
    assert lines == [
        ("degraded.began", "warning", None, "reload_refused"),
        ("degraded.began", "warning", "echo", "lane_failing"),
        ("degraded.ended", "info", None, "reload_refused"),
        ("degraded.ended", "info", "echo", "lane_failing"),
    ]
    assert found[0]["detail"].startswith("the bots run unchanged")


def test_the_table_has_a_row_for_every_test_and_no_other() -> None:
    section = DOCS.read_text().partition("## What is reported where")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    table = {row[0]: row[1:4] for row in rows[2:]}

    blocked = "the event loop is blocked for more than a minute"
    assert table.keys() == {blocked, *ROWS}
    for what, (_, health, ready, reasons) in ROWS.items():
        in_health, in_ready, in_degraded = table[what]
        assert in_health.startswith("red") == (health == 503), what
        assert in_ready.startswith("red") == (ready == 503), what
        assert set(re.findall(r"`([^`]+)`", in_degraded)) >= reasons - {"list_messages:503"}, what
