"""Plugins are loaded anew from their files, and a bot gets those that can be used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import anyio.to_thread
import pytest
import structlog

from chatbot.bot import Bot
from chatbot.config import Config, load_config
from chatbot.emulator import Emulator
from chatbot.errors import ConfigError
from chatbot.runtime.assemble import Plugins, assemble, load_plugins
from chatbot.runtime.connection import Connection
from chatbot.runtime.reloading import Reloader, load_anew
from chatbot.service.acs import AcsResource
from chatbot.stores import MemoryStore
from chatbot.testing.transport import AsgiTransport

PLUGIN = """
from datetime import timedelta
from chatbot import Context, Event, Plugin, ScheduleFired
from swapped_words import word

plugin = Plugin(word)

@plugin.command(word)
async def say(ctx: Context) -> str:
    return word

@plugin.every(timedelta(hours=1))
async def tick(ctx: Context[ScheduleFired]) -> None:
    pass
"""
BOTS = "version: 1\nservice: emulator\nbots:\n  echo: {plugins: [swapped_bot]}\n"


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    """A bot whose plugin takes a word from another module."""
    (tmp_path / "swapped_bot.py").write_text(PLUGIN)
    (tmp_path / "swapped_words.py").write_text('word = "one"')
    (tmp_path / "bots.yaml").write_text(BOTS)
    yield load_config(tmp_path / "bots.yaml", {})
    for name in ("swapped_bot", "swapped_words"):
        sys.modules.pop(name, None)


def names(plugins: Plugins) -> list[str]:
    return [plugin.name for plugin in plugins["echo"]]


def test_a_change_within_the_same_second_and_of_the_same_size_is_seen(config: Config) -> None:
    assert names(load_plugins(config)) == ["one"]
    for word in ("two", "six", "ten"):
        (config.directory / "swapped_words.py").write_text(f'word = "{word}"')
        assert names(load_anew(config)) == [word]


@pytest.mark.parametrize("broken", ["word = (", "import nowhere", "raise SystemExit", "other = 1", 'word = "no name"'])
def test_what_cannot_be_loaded_changes_nothing_that_was_imported(broken: str, config: Config) -> None:
    load_plugins(config)
    before = dict(sys.modules)
    (config.directory / "swapped_words.py").write_text(broken)

    with pytest.raises(ConfigError):
        load_anew(config)

    assert {name: module for name, module in sys.modules.items() if name.startswith("swapped")} == {
        name: module for name, module in before.items() if name.startswith("swapped")
    }
    assert sys.modules["pytest"] is pytest


async def reloaded(config: Config, *changes: tuple[str, str]) -> tuple[Bot, list[str]]:
    """A bot that does not run, after these files were changed one after the other; and what the log told."""
    emulator, store = Emulator(), MemoryStore()
    connection = Connection(
        endpoint="https://emulator.invalid",
        access_key=emulator.access_key,
        resource=emulator.world.resource.id,
        connection_string=emulator.connection_string,
        is_emulator=True,
    )
    resource = AcsResource(connection.endpoint, access_key=connection.access_key, transport=AsgiTransport(emulator))
    plugins = await anyio.to_thread.run_sync(load_plugins, config)
    async with resource, store:
        (bot,) = await assemble(config, plugins, connection, resource, store)
        reloader = Reloader(config, plugins, [bot])
        with structlog.testing.capture_logs() as told:
            for file, text in changes:
                await anyio.Path(config.directory / file).write_text(text)
                await reloader.reload([file])
        return bot, [line["event"] for line in told]


async def test_a_bot_gets_new_plugins_that_can_be_used_and_keeps_the_old_where_they_cannot(config: Config) -> None:
    texts = ['word = "two"', "word = (", 'word = "six"', "word = )"]

    bot, told = await reloaded(config, *(("swapped_words.py", text) for text in texts))

    assert [command.name for command in bot.crew.dispatcher.commands] == ["six"]
    assert told == ["plugins.swapped", "plugins.kept", "plugins.swapped", "plugins.kept"]


async def test_schedules_are_followed_as_they_are_now(config: Config) -> None:
    without = PLUGIN.partition("@plugin.every")[0]

    before, _ = await reloaded(config, ("swapped_bot.py", without))
    after, _ = await reloaded(config, ("swapped_bot.py", PLUGIN))

    assert before.conversations.next_due_ms() is None
    assert after.conversations.next_due_ms() is not None
