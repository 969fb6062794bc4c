"""The status and its pages over a real bot on the emulator, in this process and in virtual time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families

from chatbot.bot import Bot
from chatbot.config import load_config
from chatbot.emulator import Emulator
from chatbot.errors import StoreError, Throttled
from chatbot.model import UserId
from chatbot.runtime.assemble import assemble
from chatbot.runtime.observe.counters import BotCounters
from chatbot.runtime.observe.status import StatusMonitor
from chatbot.runtime.plugins import load_plugins
from chatbot.runtime.status_pages import pages
from chatbot.service.budget import SERVICE_QUOTAS, Operation
from chatbot.stores import MemoryStore
from chatbot.stores.writes import Write
from tests.support.assembled import connected

pytestmark = pytest.mark.virtual_time

PLUGIN = "from chatbot import Plugin\nplugin = Plugin('watched')\n"


class FullStore(MemoryStore):
    """A memory that can be told that its disk is full."""

    is_full = False

    async def commit(
        self, bot: UserId, writes: Sequence[Write], *, shards: Collection[int] = (), notes: Sequence[str] = ()
    ) -> None:
        if self.is_full:
            text = "the disk is full"
            raise StoreError(text)
        await super().commit(bot, writes, shards=shards, notes=notes)


@dataclass(frozen=True)
class Answer:
    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Site:
    bot: Bot
    store: FullStore
    counters: BotCounters
    status_monitor: StatusMonitor

    async def get(self, path: str) -> Answer:
        """A page, asked for without a socket."""
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", "scheme": "http"}
        await pages(self.status_monitor)(scope, receive, send)
        return Answer(sent[0]["status"], b"".join(one.get("body", b"") for one in sent).decode())


Open = Callable[[], AbstractAsyncContextManager[Site]]


@pytest.fixture
def site(tmp_path: Path) -> Open:
    (tmp_path / "watched.py").write_text(PLUGIN)
    (tmp_path / "bots.yaml").write_text("version: 1\nservice: emulator\nbots: {echo: {plugins: [watched]}}\n")
    config = load_config(tmp_path / "bots.yaml", {})
    plugins = load_plugins(config)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Site]:
        emulator, store, counters = Emulator(), FullStore(), dict[str, BotCounters]()
        connection, resource = connected(emulator)
        async with resource, store:
            (bot,) = await assemble(config, plugins, connection, resource, store, counters)
            bot.is_started = True
            yield Site(bot, store, counters["echo"], StatusMonitor([bot], counters, store, connection))

    return opened


async def test_a_bot_that_polls_is_healthy_and_one_that_ended_silently_is_not(site: Open) -> None:
    async with site() as here:
        async with anyio.create_task_group() as group:
            group.start_soon(here.bot.run, anyio.Event())
            await anyio.sleep(3600)
            while_alive = await here.get("/healthz")
            group.cancel_scope.cancel()
        await anyio.sleep(3600)
        afterwards = await here.get("/healthz")

    assert (while_alive.status, while_alive.json) == (200, {"is_healthy": True, "missed": {}})
    assert afterwards.status == 503
    assert "thread list" in afterwards.json["missed"]["echo"]


async def test_a_stopped_bot_is_not_stalled(site: Open) -> None:
    async with site() as here:
        stopping = anyio.Event()
        async with anyio.create_task_group() as group:
            here.bot.is_started = False
            group.start_soon(here.bot.run, stopping)
            at_first = await here.get("/readyz")
            await anyio.sleep(60)
            running = await here.get("/readyz")
            stopping.set()
        await anyio.sleep(3600)

        assert (await here.get("/healthz")).status == 200
    assert at_first.json["unready"][0] == "echo has not started"
    assert running.status == 200


async def test_ready_says_no_while_the_store_cannot_be_written(site: Open) -> None:
    async with site() as here:
        before = await here.get("/readyz")
        here.store.is_full = True
        meanwhile = await here.get("/readyz")
        here.store.is_full = False
        after = await here.get("/readyz")

    assert (before.status, before.json) == (200, {"is_ready": True, "unready": [], "is_emulator": True})
    assert meanwhile.status == 503
    assert meanwhile.json["unready"] == ["the store cannot be written: the disk is full"]
    assert after.status == 200


async def test_ready_says_no_while_a_bot_has_no_valid_token(site: Open) -> None:
    async with site() as here:
        here.counters.token_expires_on = 1.0

        answer = await here.get("/readyz")

    assert answer.status == 503
    assert answer.json["unready"] == ["echo has no valid token"]


async def test_the_status_shows_what_is_left_of_the_services_quotas_but_no_limits_of_the_bot(site: Open) -> None:
    async with site() as here:
        for operation, count in ((Operation.POLL_THREADS, 33), (Operation.WALK_THREADS, 12)):
            for _ in range(count):
                here.bot.context.budget.spend(operation, anyio.current_time())

        (left,) = (bot["quota_left"] for bot in (await here.get("/status")).json["bots"])

    assert left["list_threads"] == 5
    assert left.keys() == SERVICE_QUOTAS.keys()
    assert "walk_threads" not in left


async def test_metrics_are_text_that_prometheus_reads_and_say_that_this_is_the_emulator(site: Open) -> None:
    async with site() as here:
        here.counters.count_call("send_message", "throttled", 0.2)
        answer = await here.get("/metrics")

    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    values = {(s.name, *sorted(s.labels.values())): s.value for family in families.values() for s in family.samples}
    assert values["chatbot_emulator",] == 1
    assert values["chatbot_ready",] == 1
    assert values["chatbot_quota_left", "echo", "list_threads"] == 50
    assert values["chatbot_service_calls_total", "echo", "send_message", "throttled"] == 1
    assert values["chatbot_service_call_seconds_bucket", "0.3", "echo", "send_message"] == 1
    assert values["chatbot_service_call_seconds_bucket", "0.1", "echo", "send_message"] == 0
    assert values["chatbot_token_seconds_left", "echo"] > 80_000
    assert {
        "chatbot_poll_lag_seconds",
        "chatbot_detection_seconds",
        "chatbot_oldest_unhandled_seconds",
        "chatbot_handler_seconds",
        "chatbot_outbox_rows",
        "chatbot_outbox_oldest_seconds",
        "chatbot_dead_letters",
        "chatbot_tasks",
    } <= set(families)


async def test_what_fails_at_the_moment_is_in_the_status(site: Open) -> None:
    async with site() as here:
        here.bot.context.ongoing.record_failure("read", Throttled("later"), place="19:a")

        (bot,) = (await here.get("/status")).json["bots"]

    assert bot["troubles"] == {"read": "Throttled"}


async def test_there_is_nothing_else_to_ask_for(site: Open) -> None:
    async with site() as here:
        assert (await here.get("/")).status == 404
