"""Load the plugins named in bots.yaml, and report every problem with its place in the file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from chatbot.config import Config
from chatbot.config.document import Document
from chatbot.config.source_location import DataPath, Problem
from chatbot.dispatch import HandlerRegistry
from chatbot.errors import ConfigError, PluginError, PluginSettingsError
from chatbot.plugin import Plugin, load_plugin

Plugins = Mapping[str, tuple[Plugin, ...]]
"""Plugins of each bot, by the bot's name in bots.yaml."""


def load_plugins(config: Config, names: Collection[str] | None = None) -> Plugins:
    """Import every plugin and resolve every handler.

    Args:
        names: Bots to load plugins for; None means all.

    Raises:
        ConfigError: Some plugins cannot be used. Lists every problem with its place in bots.yaml and in the code.
    """
    plugins, problems = examine_plugins(config.document, config.directory, names)
    if problems:
        raise ConfigError(*map(str, problems))
    return plugins


def examine_plugins(
    document: Document, directory: Path, names: Collection[str] | None = None, known: Sequence[Problem] = ()
) -> tuple[Plugins, list[Problem]]:
    """Load what can be loaded and collect the problems, even if bots.yaml has other errors.

    Args:
        document: The content of bots.yaml.
        directory: The directory of bots.yaml.
        names: Bots to load plugins for; None means all.
        known: Problems found earlier; plugins they concern are skipped.

    Returns:
        The usable plugins, and the problems of the others.
    """
    plugins: dict[str, tuple[Plugin, ...]] = {}
    problems: list[Problem] = []
    for name, entries in _bots(document):
        if names is not None and name not in names:
            continue
        loaded: list[Plugin] = []
        for path, module, settings in _plugins(name, entries):
            if any(problem.path[: len(path)] == path for problem in known):
                continue
            try:
                made = load_plugin(module, base_dir=directory, settings=settings)
                _refuse_second(made, loaded)
                loaded.append(made)
            except PluginSettingsError as error:
                for below, what in error.problems:
                    problems.append(document.problem((*path, "settings", *below), f"{what} ({error.place})"))
            except PluginError as error:
                problems.append(document.problem(path, str(error)))
        try:
            HandlerRegistry(handler for plugin in loaded for handler in plugin.handlers())
        except PluginError as error:
            problems.append(document.problem(("bots", name, "plugins"), str(error)))
        plugins[name] = tuple(loaded)
    return plugins, problems


def _refuse_second(plugin: Plugin, others: Iterable[Plugin]) -> None:
    """Raise `PluginError` for a duplicate name: logs and messages identify plugins by name."""
    for other in others:
        if other.name == plugin.name:
            what = "is listed twice" if other is plugin else f"has the name of another one, {other.place}"
            remedy = "take one out" if other is plugin else "rename one of them"
            msg = f"{plugin.place}: plugin {plugin.name!r} {what}; {remedy}"
            raise PluginError(msg)


def _bots(document: Document) -> Iterator[tuple[str, Sequence[object]]]:
    """Yield each bot name with the raw value of its `plugins`."""
    bots = document.data.get("bots") if isinstance(document.data, dict) else None
    for name, bot in bots.items() if isinstance(bots, dict) else ():
        plugins = bot.get("plugins") if isinstance(bot, dict) else None
        yield name, plugins if isinstance(plugins, list) else ()


def _plugins(name: str, entries: Sequence[object]) -> Iterator[tuple[DataPath, str, Mapping[str, Any] | None]]:
    """Yield the loadable entries: place in the document, import path, settings."""
    for index, entry in enumerate(entries):
        path: DataPath = ("bots", name, "plugins", index)
        match entry:
            case str(module):
                yield path, module, None
            case {"module": str(module), **others}:
                settings = others.get("settings")
                yield path, module, settings if isinstance(settings, dict) and settings else None
