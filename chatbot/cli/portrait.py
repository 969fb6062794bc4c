"""What a bots.yaml and its plugins amount to, for programs and for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chatbot.cli.findings import counted
from chatbot.config import BotConfig, Config, ServiceConfig
from chatbot.config.place import masked, printable
from chatbot.dispatch.handler import Handler
from chatbot.durations import format_duration
from chatbot.errors import ConfigError
from chatbot.plugin import Plugin
from chatbot.runtime.connection import Connection
from chatbot.runtime.plugins import Plugins

Portrait = Mapping[str, Any]
"""JSON's own types; no secret is in it."""


def portrait(config: Config, plugins: Plugins) -> Portrait:
    """The portrait of a configuration that can be used.

    Args:
        plugins: from `load_plugins`.
    """
    return {
        "files": list(config.files),
        "service": _service(config),
        "store": masked(config.store.get_secret_value()),
        "bots": [{"name": name, **_bot(bot, plugins[name])} for name, bot in config.bots.items()],
    }


def told(shown: Portrait, verdict: str) -> Iterator[str]:
    """It for people, line by line.

    Args:
        verdict: on all of it.
    """
    first, *others = shown["files"]
    yield f"{first}: {verdict}, {counted(len(shown['bots']), 'bot')}"
    yield ""
    if others:
        yield f"files    {printable(', '.join(shown['files']))}"
    yield f"service  {shown['service']}"
    yield f"store    {shown['store']}"
    for bot in shown["bots"]:
        yield ""
        yield f"{bot['name']}  {_settings(bot)}"
        for plugin in bot["plugins"]:
            yield f"  {plugin['name']}  {plugin['file']}"
            width = max((len(one["what"]) for one in plugin["handlers"]), default=0)
            if not plugin["handlers"]:
                yield "    no handlers: is a decorator missing?"
            yield from (f"    {one['what']:<{width}}  {one['place']}" for one in plugin["handlers"])


def _settings(bot: Mapping[str, Any]) -> str:
    name = f'"{printable(bot["display_name"])}"  ' if bot["display_name"] else ""
    threads = "all threads" if bot["threads"] == "all" else counted(len(bot["threads"]), "thread")
    poll = f"{bot['poll']['interval']} to {bot['poll']['idle']}"
    return f"{name}{threads}, history {bot['history']}, ack {bot['ack']}, poll {poll}"


def _service(config: Config) -> str:
    if config.uses_emulator:
        return "the emulator, in the bots' own process"
    try:
        connection = Connection.of(config)
    except ConfigError:  # told among the findings
        return config.service.endpoint if isinstance(config.service, ServiceConfig) else ""
    return f"{connection.endpoint}, {connection.way}"


def _bot(bot: BotConfig, plugins: tuple[Plugin, ...]) -> dict[str, Any]:
    return {
        "display_name": bot.display_name,
        "threads": bot.threads if isinstance(bot.threads, str) else list(bot.threads),
        "history": bot.history if isinstance(bot.history, str) else format_duration(bot.history),
        "ack": bot.ack,
        "poll": {"interval": format_duration(bot.poll.interval), "idle": format_duration(bot.poll.idle)},
        "plugins": [_plugin(plugin) for plugin in plugins],
    }


def _plugin(plugin: Plugin) -> dict[str, Any]:
    file = plugin.place.rpartition(":")[0]
    return {"name": plugin.name, "file": file, "handlers": [_handler(handler) for handler in plugin.handlers()]}


def _handler(handler: Handler) -> dict[str, str]:
    """What makes it run, and where it is."""
    schedule = handler.registration.schedule
    event = schedule.text if schedule else handler.registration.event.__name__
    what = handler.info.usage if handler.info else f"{event} → {handler.name.rpartition('.')[2]}"
    return {"handler": handler.name, "what": printable(what), "place": handler.place}
