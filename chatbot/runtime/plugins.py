"""The plugins that bots.yaml names, loaded; and everything that is wrong with them, where it is named."""

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
"""The plugins of each bot, by its name in bots.yaml."""


def load_plugins(config: Config, names: Collection[str] | None = None) -> Plugins:
    """Import every plugin and resolve every handler.

    Args:
        names: of which bots; None is all.

    Raises:
        ConfigError: some cannot be used; lists all of them, where bots.yaml names them and where they are wrong.
    """
    plugins, problems = examine_plugins(config.document, config.directory, names)
    if problems:
        raise ConfigError(*map(str, problems))
    return plugins


def examine_plugins(
    document: Document, directory: Path, names: Collection[str] | None = None, known: Sequence[Problem] = ()
) -> tuple[Plugins, list[Problem]]:
    """As `load_plugins`, also of a file in which other things are wrong.

    Args:
        document: what the file says.
        directory: where it is.
        names: of which bots; None is all.
        known: what was found already; a plugin that this concerns is left out.

    Returns:
        The plugins that can be used, and everything that is wrong with the others.
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
    """Logs and messages could not tell two plugins of one name apart."""
    for other in others:
        if other.name == plugin.name:
            what = "is listed twice" if other is plugin else f"has the name of another one, {other.place}"
            remedy = "take one out" if other is plugin else "rename one of them"
            msg = f"{plugin.place}: plugin {plugin.name!r} {what}; {remedy}"
            raise PluginError(msg)


def _bots(document: Document) -> Iterator[tuple[str, Sequence[object]]]:
    """The bots, each with what stands in the place of its plugins."""
    bots = document.data.get("bots") if isinstance(document.data, dict) else None
    for name, bot in bots.items() if isinstance(bots, dict) else ():
        plugins = bot.get("plugins") if isinstance(bot, dict) else None
        yield name, plugins if isinstance(plugins, list) else ()


def _plugins(name: str, entries: Sequence[object]) -> Iterator[tuple[DataPath, str, Mapping[str, Any] | None]]:
    """What of it can be loaded: where it stands, its import path, its settings."""
    for index, entry in enumerate(entries):
        path: DataPath = ("bots", name, "plugins", index)
        match entry:
            case str(module):
                yield path, module, None
            case {"module": str(module), **others}:
                settings = others.get("settings")
                yield path, module, settings if isinstance(settings, dict) and settings else None
