from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio.to_thread
import pytest

from chatbot.bot import ALL_HISTORY, NO_HISTORY, Bot
from chatbot.config import Config, load_config
from chatbot.dispatch import Access, Rate
from chatbot.emulator import Emulator
from chatbot.errors import ConfigError
from chatbot.model import UserId
from chatbot.runtime.assemble import access, assemble, bot_settings
from chatbot.runtime.connection import Connection
from chatbot.runtime.demo_thread import open_lobby
from chatbot.runtime.plugins import load_plugins
from chatbot.runtime.run_directory import ControlDirectory
from chatbot.service.acs import AcsResource
from chatbot.stores import MemoryStore
from chatbot.testing.transport import AsgiTransport

PLUGIN = """
from chatbot import Context, Plugin

plugin = Plugin("good")

@plugin.message()
async def answer(ctx: Context) -> str:
    return ctx.text
"""
TWO_BOTS = """\
version: 1
service: emulator
bots:
  echo: {plugins: [assembled.good], display_name: Echo}
  helpdesk: {plugins: [assembled.good], threads: ["19:a@thread.v2"], history: 2h,
    poll: {interval: 500ms, idle: 5s, rate: 20}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory of bots.yaml, with a plugin."""
    (tmp_path / "assembled").mkdir()
    (tmp_path / "assembled" / "good.py").write_text(PLUGIN)
    (tmp_path / "assembled" / "broken.py").write_text("import nowhere_to_be_found\n")
    return tmp_path


def config_of(folder: Path, text: str = TWO_BOTS) -> Config:
    (folder / "bots.yaml").write_text(text)
    return load_config(folder / "bots.yaml", {})


async def loaded(folder: Path, text: str = TWO_BOTS) -> Config:
    """As `config_of`, for tests on an event loop, which may not be blocked."""
    return await anyio.to_thread.run_sync(config_of, folder, text)


@asynccontextmanager
async def assembled(config: Config, emulator: Emulator, store: MemoryStore) -> AsyncIterator[list[Bot]]:
    connection = Connection(
        endpoint="https://emulator.invalid",
        access_key=emulator.access_key,
        resource=emulator.world.resource.id,
        connection_string=emulator.connection_string,
        is_emulator=True,
    )
    resource = AcsResource(connection.endpoint, access_key=connection.access_key, transport=AsgiTransport(emulator))
    async with resource, store:
        plugins = await anyio.to_thread.run_sync(load_plugins, config)
        yield await assemble(config, plugins, connection, resource, store)


def test_every_plugin_that_cannot_be_used_is_reported_where_it_is_named(folder: Path) -> None:
    config = config_of(folder, TWO_BOTS.replace("[assembled.good]", "[assembled.broken, assembled.nope]"))

    with pytest.raises(ConfigError) as caught:
        load_plugins(config)

    places = [problem.splitlines()[0].removeprefix(str(folder)) for problem in caught.value.problems]
    assert [place.split(": ")[:2] for place in places] == [
        ["/bots.yaml:4:20", "bots.echo.plugins[0]"],
        ["/bots.yaml:4:38", "bots.echo.plugins[1]"],
        ["/bots.yaml:5:24", "bots.helpdesk.plugins[0]"],
        ["/bots.yaml:5:42", "bots.helpdesk.plugins[1]"],
    ]
    assert f"{folder / 'assembled' / 'broken.py'}:1: there is no module 'nowhere_to_be_found'" in places[0]


def test_settings_of_bots_yaml_become_the_bots_own(folder: Path) -> None:
    bots = config_of(folder).bots

    echo, helpdesk = (bot_settings(bots[name], retention=timedelta(days=7)) for name in ("echo", "helpdesk"))

    assert (echo.threads, echo.history, echo.cadence.interval, echo.cadence.idle) == (None, NO_HISTORY, 0.3, 30.0)
    assert echo.retention == timedelta(days=7)
    assert (helpdesk.threads, helpdesk.history) == (frozenset({"19:a@thread.v2"}), timedelta(hours=2))
    assert (helpdesk.cadence.interval, helpdesk.cadence.idle, helpdesk.cadence.rate) == (0.5, 5.0, 20)


def test_all_of_history_is_its_own_setting(folder: Path) -> None:
    config = config_of(folder, TWO_BOTS.replace("history: 2h", "history: all"))

    assert bot_settings(config.bots["helpdesk"], retention=timedelta(days=30)).history == ALL_HISTORY


async def test_bots_users_are_made_once_and_remembered_with_the_services_time(folder: Path) -> None:
    emulator, store = Emulator(clock=lambda: 1_700_000_000.5), MemoryStore()
    config = await loaded(folder)

    async with assembled(config, emulator, store) as first:
        pass
    async with assembled(config, emulator, store) as second:
        pass

    assert [bot.name for bot in first] == ["echo", "helpdesk"]
    assert [bot.context.display_name for bot in first] == ["Echo", "helpdesk"]
    assert [bot.user for bot in first] == [bot.user for bot in second]
    assert first[0].user != first[1].user
    assert {bot.context.first_started_ms for bot in [*first, *second]} == {1_700_000_000_000}


async def test_another_resource_means_other_users(folder: Path) -> None:
    store, config = MemoryStore(), await loaded(folder)

    async with assembled(config, Emulator(), store) as here:
        pass
    async with assembled(config, Emulator(), store) as there:
        pass

    assert not {bot.user for bot in here} & {bot.user for bot in there}


async def test_a_user_that_is_given_is_taken_and_remembered_and_none_is_made(folder: Path) -> None:
    emulator, store = Emulator(), MemoryStore()
    ours = emulator.world.identities.create(emulator.now()).id
    # As on Azure; only the emulator of `service: emulator` makes its users itself.
    service = f"{{endpoint: 'https://emulator.invalid', entra: cli}}\nbots:\n  echo: {{user: '{ours}',"
    text = TWO_BOTS[: TWO_BOTS.index("  helpdesk")].replace("emulator\nbots:\n  echo: {", f"{service} ")

    async with assembled(await loaded(folder, text), emulator, store) as bots:
        record = await store.find_bot("echo", emulator.world.resource.id)

    assert [bot.user for bot in bots] == [ours]
    assert record is not None
    assert record.user == ours
    assert list(emulator.world.state.users) == [ours]


async def test_another_user_for_a_bot_is_a_new_beginning_that_is_remembered(folder: Path) -> None:
    now = 1_700_000_000.0
    emulator, store = Emulator(clock=lambda: now), MemoryStore()
    text = TWO_BOTS[: TWO_BOTS.index("  helpdesk")]
    async with assembled(await loaded(folder, text), emulator, store) as before:
        pass
    other = emulator.world.identities.create(emulator.now()).id
    service = f"{{endpoint: 'https://emulator.invalid', entra: cli}}\nbots:\n  echo: {{user: '{other}',"

    now += 3600
    given = await loaded(folder, text.replace("emulator\nbots:\n  echo: {", f"{service} "))
    async with assembled(given, emulator, store) as after:
        record = await store.find_bot("echo", emulator.world.resource.id)

    assert before[0].user != after[0].user == other
    assert after[0].context.first_started_ms == 1_700_003_600_000
    assert record is not None
    assert record.user == other


async def test_the_lobby_is_created_once_and_new_bots_are_added(folder: Path) -> None:
    emulator, store = Emulator(), MemoryStore()
    control = ControlDirectory(folder)
    one_bot = await loaded(folder, TWO_BOTS[: TWO_BOTS.index("  helpdesk")])

    async with assembled(one_bot, emulator, store) as bots:
        thread = await open_lobby(bots, control, "here")
    async with assembled(await loaded(folder), emulator, store) as bots:
        again = await open_lobby(bots, control, "here")
        people = {person.user async for person in bots[0].context.service.list_participants(again)}

    assert again == thread
    assert people == {bot.user for bot in bots}


async def test_a_bot_that_left_the_lobby_is_not_brought_back(folder: Path) -> None:
    control = ControlDirectory(folder)

    async with assembled(await loaded(folder), Emulator(), MemoryStore()) as bots:
        thread = await open_lobby(bots, control, "here")
        await bots[1].context.service.remove_participant(thread, bots[1].user)
        await open_lobby(bots, control, "here")
        people = {person.user async for person in bots[0].context.service.list_participants(thread)}

    assert people == {bots[0].user}


async def test_a_deleted_lobby_is_followed_by_a_new_one(folder: Path) -> None:
    control = ControlDirectory(folder)

    async with assembled(await loaded(folder), Emulator(), MemoryStore()) as bots:
        thread = await open_lobby(bots, control, "here")
        await bots[0].context.service.delete_thread(thread)

        assert await open_lobby(bots, control, "here") != thread


def test_who_may_use_a_bot_is_what_its_settings_say(folder: Path) -> None:
    settings = 'allow: ["8:acs:a"], rate_limit: {messages: 5, per: 10s}'
    config = config_of(folder, TWO_BOTS.replace("display_name: Echo", settings))

    assert access(config.bots["echo"]) == Access(
        allow=frozenset({UserId("8:acs:a")}), rate=Rate(5, timedelta(seconds=10))
    )
    assert access(config.bots["helpdesk"]) == Access()


async def test_a_bot_knows_its_admins(folder: Path) -> None:
    config = await loaded(folder, TWO_BOTS.replace("display_name: Echo", 'admins: ["8:acs:a"]'))

    async with assembled(config, Emulator(), MemoryStore()) as bots:
        admins = [bot.handlers.dispatcher.bot.admins for bot in bots]

    assert admins == [{"8:acs:a"}, frozenset()]


def test_how_many_handlers_run_at_one_time_is_a_setting_of_each_bot(folder: Path) -> None:
    config = config_of(folder, TWO_BOTS.replace("display_name: Echo", "max_handlers: 200"))

    limits = {name: bot_settings(bot, retention=config.retention).max_handlers for name, bot in config.bots.items()}

    assert limits == {"echo": 200, "helpdesk": 32}
