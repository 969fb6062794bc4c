"""`chatbot check`: whether a bots.yaml and its plugins are right. Starts nothing and talks to nobody."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from chatbot.config import BotConfig, Config, load_config
from chatbot.config.duration import format_duration
from chatbot.config.place import masked, printable
from chatbot.conversation.replayable import findings
from chatbot.dispatch.handler import Handler
from chatbot.dispatch.place import at
from chatbot.errors import ConfigError
from chatbot.plugin import Plugin
from chatbot.runtime.connection import Connection
from chatbot.runtime.logs import logging_to
from chatbot.runtime.plugins import Plugins, load_plugins


def check(config: Annotated[Path, Parameter(help="The configuration.")] = Path("bots.yaml"), /) -> int:
    """Check a bots.yaml and its plugins, and start nothing."""
    with logging_to(sys.stderr, format="console", level="warning"):
        settings = load_config(config, os.environ)
        plugins = load_plugins(settings)
        problems = sorted({problem for loaded in plugins.values() for one in loaded for problem in _unsteady(one)})
    if problems:
        raise ConfigError(*problems)
    print("\n".join(_report(settings, plugins)))
    return 0


def _report(config: Config, plugins: Plugins) -> Iterator[str]:
    count = f"{len(config.bots)} bot{'s' * (len(config.bots) > 1)}"
    yield f"{config.path}: all right, {count}"
    yield ""
    yield f"service  {_service(config)}"
    yield f"store    {masked(config.store.get_secret_value())}"
    for name, bot in config.bots.items():
        yield ""
        yield f"{name}  {_settings(bot)}"
        for plugin in plugins[name]:
            yield from _plugin(plugin)


def _service(config: Config) -> str:
    if config.uses_emulator:
        return "the emulator, in the bots' own process"
    connection = Connection.of(config)
    return f"{connection.endpoint}, {connection.way}"


def _settings(bot: BotConfig) -> str:
    shown = f'"{printable(bot.display_name)}"  ' if bot.display_name else ""
    threads = "all threads" if bot.threads == "all" else f"{len(bot.threads)} threads"
    history = bot.history if isinstance(bot.history, str) else format_duration(bot.history)
    poll = f"{format_duration(bot.poll.interval)} to {format_duration(bot.poll.idle)}"
    return f"{shown}{threads}, history {history}, ack {bot.ack}, poll {poll}"


def _unsteady(plugin: Plugin) -> Iterator[str]:
    """What would break the replay of a plugin's dialogs, and so end them when a person answers."""
    for handler in plugin.handlers():
        if not handler.is_dialog:
            continue
        for one in findings(handler.registration.function, handler.needs):
            yield (
                f"{at(one.file, one.line)}: {one.call} may come out differently when the dialog"
                f" {handler.name.rpartition('.')[2]} is run again for an answer; {one.remedy}"
            )


def _plugin(plugin: Plugin) -> Iterator[str]:
    yield f"  {plugin.name}  {plugin.place.rpartition(':')[0]}"
    rows = [_handler(handler) for handler in plugin.handlers()]
    width = max((len(what) for what, _ in rows), default=0)
    for what, place in rows:
        yield f"    {what:<{width}}  {place}"


def _handler(handler: Handler) -> tuple[str, str]:
    """What makes it run, and where it is."""
    schedule = handler.registration.schedule
    event = schedule.text if schedule else handler.registration.event.__name__
    what = handler.info.usage if handler.info else f"{event} → {handler.name.rpartition('.')[2]}"
    return printable(what), handler.place
