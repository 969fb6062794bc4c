"""Bots that run take up what has changed, and nothing else."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import structlog
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette

from chatbot.bot import Bot
from chatbot.config import LogConfig, load_config
from chatbot.emulator import Emulator
from chatbot.errors import ChatbotError, ConfigError, ServiceError, StateError
from chatbot.model import ThreadId
from chatbot.runtime.assemble import Runtime
from chatbot.runtime.connection import Connection
from chatbot.runtime.observe.status import LOG_ADVICE, LastReload
from chatbot.runtime.plugins import load_plugins
from chatbot.runtime.reloading import CHECK_ADVICE, FORCE_ADVICE, Outcome, PluginLoader, Reloader
from chatbot.runtime.sources import Sources
from chatbot.runtime.status_server import StatusServer
from chatbot.runtime.supervisor import Supervisor
from chatbot.runtime.systemd import SystemdNotifier
from chatbot.service.acs import AcsResource
from chatbot.stores import MemoryStore
from chatbot.stores.records import TimerRecord
from chatbot.stores.writes import SetTimer
from chatbot.testing.transport import AsgiTransport

PLUGIN = """
from datetime import timedelta
from chatbot import Context, Plugin, ScheduleFired
from swapped_words import word

plugin = Plugin(word)

@plugin.command(word)
async def say(ctx: Context) -> str:
    return word

@plugin.every(timedelta(hours=1))
async def tick(ctx: Context[ScheduleFired]) -> None:
    pass
"""
OTHER = "from chatbot import Plugin\nplugin = Plugin('other')\n"
HARD = """
from collections.abc import AsyncIterator
from chatbot import Context, Plugin

plugin = Plugin("hard")

class Shop: ...

@plugin.provide
async def shop() -> AsyncIterator[Shop]:
    raise OSError("the shop is shut")
    yield Shop()

@plugin.message()
async def answer(ctx: Context, shop: Shop) -> str:
    return "x"
"""
HANGING = """
import time
from pathlib import Path
from chatbot import Context, Plugin

Path(__file__).with_name("begun").touch()
while not Path(__file__).with_name("go").exists():
    time.sleep(0.01)

plugin = Plugin("other")

@plugin.command("hung")
async def hung(ctx: Context) -> None: ...
"""
ECHO = "  echo: {plugins: [swapped_bot]}\n"
OTHERS = "  other: {plugins: [swapped_other]}\n"
BOTS = f"version: 1\nservice: emulator\nbots:\n{ECHO}{OTHERS}"
FILES = {
    "swapped_bot.py": PLUGIN,
    "swapped_words.py": 'word = "one"',
    "swapped_other.py": OTHER,
    "swapped_hard.py": HARD,
    "bots.yaml": BOTS,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with two bots, one of which takes a word from another module."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("swapped_")]:
        del sys.modules[name]


@dataclass
class Scene:
    """Bots that run, and what is to be seen of them."""

    folder: Path
    site: Runtime
    fleet: Supervisor
    reloader: Reloader
    loader: PluginLoader
    emulator: Emulator
    last: LastReload
    told: list[Mapping[str, Any]]
    reading: list[Callable[[], Any]]
    """How bots.yaml is read: one function."""
    relogged: list[LogConfig] = field(default_factory=list)
    published: list[list[str]] = field(default_factory=list)

    async def write(self, file: str, text: str) -> None:
        await anyio.Path(self.folder / file).write_text(text)

    async def change(self, *changes: tuple[str, str], file: str = "bots.yaml") -> Outcome:
        """Replace something in a file, and reload; returns what was done, without what was not."""
        text = await anyio.Path(self.folder / file).read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        await self.write(file, text)
        return {what: names for what, names in (await self.reloader.reload()).items() if names}

    @property
    def bots(self) -> dict[str, Bot]:
        return {bot.name: bot for bot in self.site.bots}

    def events(self, *names: str) -> list[tuple[str, str | None]]:
        return [(line["event"], line.get("bot")) for line in self.told if line["event"] in names]


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    emulator, store = Emulator(), MemoryStore()
    connection = Connection(
        endpoint="https://emulator.invalid",
        access_key=emulator.access_key,
        resource=emulator.world.resource.id,
        connection_string=emulator.connection_string,
        is_emulator=True,
    )
    resource = AcsResource(connection.endpoint, access_key=connection.access_key, transport=AsgiTransport(emulator))
    read: Callable[[], Any] = partial(load_config, folder / "bots.yaml", {})
    config = await anyio.to_thread.run_sync(read)
    sources = Sources(folder)
    loaded = await anyio.to_thread.run_sync(sources.load, config)
    with structlog.testing.capture_logs() as told:
        async with resource, store:
            site = Runtime(config=config, connection=connection, resource=resource, store=store)
            site.bots += await site.create_bots(config, loaded.plugins)
            del loaded  # it would keep the first plugins alive
            fleet, server, stopping = Supervisor(site.bots, drain_seconds=10), StatusServer(Starlette), anyio.Event()
            relogged: list[LogConfig] = []
            published: list[list[str]] = []
            last = LastReload()
            reading = [read]

            async def publish() -> None:
                published.append([bot.name for bot in site.bots])

            loader = PluginLoader(sources, folder)
            reloader = Reloader(
                site,
                fleet,
                server,
                sources,
                read=lambda: reading[0](),
                configure_log=relogged.append,
                publish=publish,
                last_reload=last,
                notifier=SystemdNotifier(),
                loader=loader,
            )
            async with server.open(config), anyio.create_task_group() as group:
                group.start_soon(fleet.run, stopping)
                yield Scene(folder, site, fleet, reloader, loader, emulator, last, told, reading, relogged, published)
                stopping.set()


def commands(bot: Bot) -> list[str]:
    return [command.name for command in bot.handlers.dispatcher.commands]


async def test_where_nothing_has_changed_nothing_is_done(folder: Path) -> None:
    async with scene(folder) as running:
        before = running.bots

        assert await running.change() == {}

        assert running.bots == before
        assert running.events("reload.finished", "bot.stopped", "plugins.swapped") == [("reload.finished", None)]
        assert running.published == []


async def test_a_bot_with_other_settings_begins_again_and_the_others_go_on(folder: Path) -> None:
    async with scene(folder) as running:
        before = running.bots

        outcome = await running.change((ECHO, "  echo: {plugins: [swapped_bot], history: all}\n"))

        assert outcome == {"restarted": ["echo"]}
        assert running.events("bot.stopped") == [("bot.stopped", "echo")]
        assert running.bots["other"] is before["other"]
        assert running.bots["echo"] is not before["echo"]
        assert running.bots["echo"].user == before["echo"].user
        assert list(running.bots) == ["echo", "other"]


async def test_bots_come_and_go_and_know_each_other(folder: Path) -> None:
    async with scene(folder) as running:
        other = running.bots["other"]

        outcome = await running.change((ECHO, "  parrot: {plugins: [swapped_bot]}\n"))

        assert outcome == {"added": ["parrot"], "removed": ["echo"]}
        assert set(running.bots) == {"other", "parrot"}
        assert set(other.handlers.dispatcher.bot.siblings) == {running.bots["parrot"].user}
        assert set(running.bots["parrot"].handlers.dispatcher.bot.siblings) == {other.user}
        assert sorted(running.published[-1]) == ["other", "parrot"]


async def test_other_plugins_are_swapped_in_without_a_restart(folder: Path) -> None:
    async with scene(folder) as running:
        before = running.bots

        assert await running.change(("[swapped_other]", "[swapped_other, swapped_bot]")) == {"swapped": ["other"]}

        assert commands(running.bots["other"]) == ["one"]
        assert running.bots == before
        assert running.events("bot.stopped") == []


async def test_changed_code_is_swapped_in_where_it_can_be_used_and_the_old_kept_where_it_cannot(folder: Path) -> None:
    async with scene(folder) as running:
        for text in ('word = "two"', "word = (", 'word = "six"', "word = )"):
            await running.write("swapped_words.py", text)
            if text.endswith('"'):
                await running.reloader.reload()
            else:
                with pytest.raises(ConfigError):
                    await running.reloader.reload()

        assert commands(running.bots["echo"]) == ["six"]
        events = running.events("plugins.swapped", "reload.refused")
        assert events == [("plugins.swapped", "echo"), ("reload.refused", None)] * 2


WITH_TIMER = """
from chatbot import Context, Plugin, TimerFired
plugin = Plugin("other")

@plugin.timer
async def ring(ctx: Context[TimerFired]) -> None:
    pass
"""


async def set_timer(running: Scene) -> None:
    timer = TimerRecord("k1", "swapped_other.ring", 4_000_000_000_000, ThreadId("19:a@thread.v2"))
    await running.site.store.commit(running.bots["other"].user, [SetTimer(timer)])


async def test_code_that_cannot_go_on_with_what_the_store_holds_is_refused_unless_forced(folder: Path) -> None:
    async with scene(folder) as running:
        await running.write("swapped_other.py", WITH_TIMER)
        await running.reloader.reload()
        await set_timer(running)
        await running.write("swapped_other.py", WITH_TIMER.replace("ring", "sound"))

        for _ in range(2):  # it is not forgotten that it was refused
            with pytest.raises(
                ConfigError, match=r"bot other: 1 timer of 1 thread calls swapped_other\.ring, which is"
            ):
                await running.reloader.reload()
            assert list(running.bots["other"].handlers.dispatcher.timers) == ["swapped_other.ring"]
            assert running.last.reloaded is not None
            assert running.last.reloaded.is_refused

        assert (await running.reloader.reload(is_forced=True))["swapped"] == ["other"]
        assert list(running.bots["other"].handlers.dispatcher.timers) == ["swapped_other.sound"]
        assert running.events("store.mismatched") == [("store.mismatched", "other")]
        assert await running.change() == {}


async def test_code_that_cannot_go_on_is_taken_with_a_warning_where_bots_yaml_says_so(folder: Path) -> None:
    async with scene(folder) as running:
        await running.write("swapped_other.py", WITH_TIMER)
        await running.reloader.reload()
        await set_timer(running)
        await running.write("swapped_other.py", OTHER)

        assert await running.change(("bots:", "reload: {incompatible: warn}\nbots:")) == {
            "applied": ["reload"],
            "swapped": ["other"],
        }
        assert running.events("store.mismatched") == [("store.mismatched", "other")]


async def test_an_import_that_hangs_is_named_and_holds_no_later_reload(folder: Path) -> None:
    async with scene(folder) as running:
        running.loader.timeout_seconds = 0.01
        await running.write("swapped_other.py", HANGING)

        with anyio.fail_after(60):
            with pytest.raises(ConfigError, match="has not ended after"):
                await running.reloader.reload()
            while not await anyio.Path(folder / "begun").exists():
                await checkpoint()
            with pytest.raises(
                ConfigError, match=r"swapped_other\.py:\d+ \(<module>\): an import of an earlier reload"
            ):
                await running.reloader.reload()
        assert running.last.reloaded is not None
        assert running.last.reloaded.advice == LOG_ADVICE

        running.loader.timeout_seconds = 60
        await running.write("go", "")
        with anyio.fail_after(60):
            while (await reload_again(running)).get("swapped") != ["echo", "other"]:  # that thread has still to end
                await checkpoint()
        assert commands(running.bots["other"]) == ["hung"]
        assert await running.change() == {}


async def reload_again(running: Scene) -> Outcome:
    try:
        return await running.reloader.reload()
    except ConfigError:
        return {}


async def test_a_refused_reload_advises_what_helps(folder: Path) -> None:
    async with scene(folder) as running:
        await set_timer(running)
        advices: list[str] = []

        async def refuse(file: str, text: str) -> None:
            before = await anyio.Path(folder / file).read_text()
            await running.write(file, text)
            with pytest.raises(ChatbotError):
                await running.reloader.reload()
            await running.write(file, before)
            assert running.last.reloaded is not None
            advices.append(running.last.reloaded.advice)

        await refuse("bots.yaml", "version: 2")
        await refuse("swapped_other.py", "import nothing_there")
        running.emulator.faults.add("create_user:403")
        await refuse("bots.yaml", f"{BOTS}  more: {{plugins: [swapped_bot]}}\n")
        await running.write("swapped_other.py", WITH_TIMER)
        await running.reloader.reload()
        await refuse("swapped_other.py", WITH_TIMER.replace("ring", "sound"))

        assert advices == [CHECK_ADVICE, CHECK_ADVICE, LOG_ADVICE, FORCE_ADVICE]


async def test_what_the_code_could_not_go_on_with_before_refuses_no_reload(folder: Path) -> None:
    async with scene(folder) as running:
        await set_timer(running)
        plugins = await anyio.to_thread.run_sync(load_plugins, running.site.config)
        await running.reloader.log_incompatible(plugins)

        assert await running.change(("'other'", "'another'"), file="swapped_other.py") == {"swapped": ["other"]}
        assert running.events("store.mismatched") == [("store.mismatched", "other")]


async def test_plugins_whose_providers_fail_leave_the_old_at_work_and_are_tried_again(folder: Path) -> None:
    async with scene(folder) as running:
        assert await running.change(("[swapped_bot]", "[swapped_hard]")) == {"kept": ["echo"]}
        assert commands(running.bots["echo"]) == ["one"]
        assert await running.change() == {"kept": ["echo"]}

        assert await running.change(("raise OSError", "assert OSError"), file="swapped_hard.py") == {
            "swapped": ["echo"]
        }

        assert commands(running.bots["echo"]) == []


async def test_schedules_are_followed_as_they_are_now(folder: Path) -> None:
    async with scene(folder) as running:
        await running.write("swapped_bot.py", PLUGIN.partition("@plugin.every")[0])
        await running.reloader.reload()
        without = running.bots["echo"].context.conversations.next_due_ms()
        await running.write("swapped_bot.py", PLUGIN)
        await running.reloader.reload()

        assert without is None
        assert running.bots["echo"].context.conversations.next_due_ms() is not None


async def test_every_mistake_in_the_file_is_reported_and_the_old_configuration_stays_in_force(folder: Path) -> None:
    async with scene(folder) as running:
        before = running.bots
        config = running.site.config

        with pytest.raises(ConfigError) as caught:
            await running.change(("version: 1", "version: 2\nlog: {level: loud}"), (ECHO, "  echo: {plugin: []}\n"))

        assert len(caught.value.problems) == 3
        assert running.events("reload.refused") == [("reload.refused", None)] * 3
        assert running.bots == before
        assert running.site.config is config


async def test_a_service_that_refuses_a_new_bot_changes_nothing(folder: Path) -> None:
    async with scene(folder) as running:
        running.emulator.faults.add("create_user:403")

        with pytest.raises(ServiceError, match=r"bots\.yaml:2:10: service: .*403"):
            await running.change((ECHO, f"{ECHO}  parrot: {{plugins: [swapped_bot], history: all}}\n"))

        assert list(running.bots) == ["echo", "other"]
        assert running.events("bot.stopped") == []


async def test_code_of_a_reload_that_was_refused_for_something_else_is_swapped_in_by_the_next(folder: Path) -> None:
    async with scene(folder) as running:
        await running.write("swapped_words.py", 'word = "two"')
        running.emulator.faults.add("create_user:403")
        with pytest.raises(ServiceError):
            await running.change((ECHO, f"{ECHO}  parrot: {{plugins: [swapped_other]}}\n"))
        assert commands(running.bots["echo"]) == ["one"]

        running.emulator.faults.clear()
        assert (await running.reloader.reload())["swapped"] == ["echo"]
        assert commands(running.bots["echo"]) == ["two"]
        assert not any((await running.reloader.reload()).values())


async def test_a_port_that_is_taken_changes_nothing(folder: Path) -> None:
    async with scene(folder) as running, await anyio.create_tcp_listener(local_host="127.0.0.1") as taken:
        port = taken.listeners[0].extra(anyio.abc.SocketAttribute.local_port)

        with pytest.raises(StateError, match=r"bots\.yaml:3:18: server\.listen: "):
            await running.change(
                ("bots:", f"server: {{listen: {port}}}\nbots:"), (ECHO, ECHO.replace("]", "], history: all"))
            )

        assert running.events("bot.stopped") == []


async def test_changes_that_concern_all_bots_are_applied_or_postponed_and_reported(folder: Path) -> None:
    async with scene(folder) as running:
        outcome = await running.change(
            ("bots:", "drain_timeout: 2s\nretention: 2d\nlog: {level: debug}\nstore: 'memory:'\nbots:")
        )

        assert {what: sorted(names) for what, names in outcome.items()} == {
            "applied": ["drain_timeout", "log", "retention"],
            "postponed": ["store"],
        }
        assert running.fleet.drain_seconds == 2
        assert {bot.context.settings.retention.days for bot in running.site.bots} == {2}
        assert running.relogged[-1].level == "debug"
        assert [line["settings"] for line in running.told if line["event"] == "restart.needed"] == [["store"]]
        assert await running.change() == {"postponed": ["store"]}


async def test_how_the_latest_reload_went_is_remembered_with_what_still_waits_for_a_restart(folder: Path) -> None:
    async with scene(folder) as running:
        seen = [running.last.reloaded]
        await running.change(("bots:", "store: 'memory:'\nbots:"))
        seen.append(running.last.reloaded)
        with pytest.raises(ConfigError):
            await running.change(("version: 1", "version: 2"))
        seen.append(running.last.reloaded)
        await running.change(("version: 2", "version: 1"), ("store: 'memory:'\n", ""))
        seen.append(running.last.reloaded)

    assert [one and (one.is_refused, one.postponed) for one in seen] == [
        None,
        (False, ("store",)),
        (True, ("store",)),
        (False, ()),
    ]


async def test_texts_are_logged_from_a_reload_on_or_no_more(folder: Path) -> None:
    async with scene(folder) as running:
        ann = running.emulator.create_user()
        threads = {bot: running.emulator.create_thread(ann, others=[bot.user]) for bot in running.site.bots}

        async def say(text: str) -> None:
            for bot, thread in threads.items():
                message = running.emulator.send(thread, ann, text)
                await bot.wait_until_settled(ThreadId(thread), int(message))

        await say("before")
        await running.change(("bots:", "log: {texts: true}\nbots:"))
        await say("with texts")
        await running.change(("texts: true", "texts: false"))
        await say("after")

        assert running.events("message.received") == [("message.received", None)] * 2
        assert {line["text"] for line in running.told if line["event"] == "message.received"} == {"with texts"}


async def test_however_many_ask_during_a_reload_there_is_one_more(folder: Path) -> None:
    async with scene(folder) as running, anyio.create_task_group() as group:
        group.start_soon(running.reloader.run)
        running.reloader.request()
        while not running.events("reload.finished"):
            running.reloader.request()
            await anyio.lowlevel.checkpoint()
        while len(running.events("reload.finished")) < 2:
            await anyio.lowlevel.checkpoint()
        await running.reloader.reload()  # has its turn when no other reload runs

        assert len(running.events("reload.finished")) == 3
        group.cancel_scope.cancel()


async def test_an_unexpected_error_ends_neither_the_reloader_nor_a_bot(folder: Path) -> None:
    async with scene(folder) as running, anyio.create_task_group() as group:
        good, running.reading[0] = running.reading[0], partial(int, "x")
        group.start_soon(running.reloader.run)
        running.reloader.request()
        while not running.events("reload.failed"):
            await anyio.lowlevel.checkpoint()
        running.reading[0] = good
        running.reloader.request()
        while not running.events("reload.finished"):
            await anyio.lowlevel.checkpoint()

        assert running.events("bot.stopped") == []
        group.cancel_scope.cancel()


TYPED = """
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Annotated, Generic, Literal, Optional, TypeVar, Union

from pydantic import BaseModel, Field
from chatbot import BotState, Context, Dialog, Plugin, Retry, ScheduleFired, State, TimerFired, UserState

T = TypeVar("T")
number = 0


class Settings(BaseModel):
    \"\"\"Settings.\"\"\"

    greeting: Annotated[str, Field(min_length=1)] = "hi"
    sizes: list[Optional["Size"]] = []


class Size(Enum):
    SMALL = "small"


@dataclass
class Item:
    size: Size = Size.SMALL
    other: Optional["Item"] = None


@dataclass
class Box(Generic[T]):
    content: Union[T, None] = None


@dataclass
class Cart:
    items: list[Item] = field(default_factory=list)
    other: Union[Item, None] = None


class Shop: ...


boxes: Box[Item] = Box(Item())


def plugin(settings: Settings) -> Plugin:
    made = Plugin("typed")

    @made.provide
    async def shop() -> AsyncIterator[Shop]:
        yield Shop()

    @made.message(retry=Retry(attempts=1))
    async def answer(ctx: Context, shop: Shop, cart: State[Cart], totals: UserState[Cart], all: BotState[Cart]) -> str:
        cart.value.items.append(Item())
        if "fail" in ctx.text:
            raise ValueError(ctx.text)
        return settings.greeting

    @made.command("order")
    async def order(ctx: Context, size: Size, how: Literal["fast", "slow"] = "slow") -> None: ...

    @made.command("talk")
    async def talk(ctx: Dialog) -> None:
        await ctx.ask("sure?", Size)

    @made.timer
    async def remind(ctx: Context[TimerFired], item: Item) -> None: ...

    @made.every(timedelta(hours=1))
    async def tick(ctx: Context[ScheduleFired]) -> None: ...

    return made
"""


async def test_modules_that_were_reloaded_are_released(folder: Path) -> None:
    (folder / "swapped_bot.py").write_text(TYPED)
    old: list[weakref.ref[object]] = []
    async with scene(folder) as stage:
        ann = stage.emulator.create_user()
        thread = stage.emulator.create_thread(ann, others=[stage.bots["echo"].user])
        for number in range(5):
            module = sys.modules["swapped_bot"]
            old += [weakref.ref(one) for one in (module, module.Settings, module.Size, module.Cart, module.Shop)]
            del module
            stage.emulator.send(thread, ann, f"fail {number}")
            while not stage.events("handler.failed"):  # noqa: ASYNC110 -- the log tells nobody
                await anyio.sleep(0.05)
            stage.told.clear()  # it holds the errors
            await stage.change((f"number = {number}", f"number = {number + 1}"), file="swapped_bot.py")
        for _ in range(3):
            gc.collect()
            await checkpoint()

        assert [ref() for ref in old if ref() is not None] == []
