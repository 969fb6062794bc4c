"""`chatbot replay`: replay a recorded conversation against the current code, and show differing replies."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from chatbot.config import load_config
from chatbot.config.source_location import printable
from chatbot.errors import ConfigError, PluginSettingsError, UnknownName
from chatbot.runtime.logs import logging_to
from chatbot.testing.chat_files.difference import ScriptRun, other_replies, perform
from chatbot.testing.chat_files.script import Script, final_replies, parse_script

EXIT_DIFFERENT = 1


def replay(
    file: Annotated[Path, Parameter(help="The conversation, recorded or written by hand.")],
    /,
    *,
    plugin: Annotated[
        tuple[str, ...],
        Parameter(help="A plugin to use instead of those that the file names; may be repeated."),
    ] = (),
    bot: Annotated[
        str | None, Parameter(help="The bot of the file that gets these plugins; required if it has several.")
    ] = None,
    config: Annotated[Path | None, Parameter(help="A bots.yaml to read the settings of these plugins from.")] = None,
) -> int:
    """Run a conversation in virtual time; exit with 1 if any reply differs."""
    script = parse_script(_read_script(file), str(file))
    if plugin:
        script = _replace_plugins(script, plugin, bot, _settings(config, plugin) if config else {})
    with (
        logging_to(sys.stderr, format="console", level="error"),
        _with_settings_hint(has_settings=config is not None or not plugin),
    ):
        done = perform(script, near=file.absolute().parent, root=Path.cwd(), raise_failures=False)
    lines = list(_report(script, done))
    if not lines:
        count = sum(len(final_replies(script.steps, bot)) for bot in script.bots)
        print(f"{file}: {count} repl{'y' if count == 1 else 'ies'}, no differences")
        return 0
    print("\n".join(printable(line) for line in lines))
    return EXIT_DIFFERENT


@contextmanager
def _with_settings_hint(*, has_settings: bool) -> Iterator[None]:
    """Add a hint at --config to the error of a plugin whose settings are missing."""
    try:
        yield
    except ConfigError as error:
        if has_settings or not isinstance(error.__cause__, PluginSettingsError):
            raise
        raise ConfigError(*error.problems, "--config bots.yaml reads the plugin's settings from there") from error


def _read_script(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"{file}: cannot be read: {os.strerror(error.errno or 0)}; name a file that `chatbot record` wrote"
        raise ConfigError(msg) from None
    except UnicodeDecodeError:
        msg = f"{file}: not UTF-8 text; name a file that `chatbot record` wrote"
        raise ConfigError(msg) from None


def _settings(config: Path, plugins: tuple[str, ...]) -> dict[str, Mapping[str, Any]]:
    """Return the settings of these plugins in a bots.yaml, from the first bot that has them."""
    given = [one for bot in load_config(config, os.environ).bots.values() for one in bot.plugins]
    if missing := [name for name in plugins if name not in {one.module for one in given}]:
        msg = f"{config}: no bot has {', '.join(missing)}; name a bots.yaml that configures them, or omit --config"
        raise UnknownName(msg)
    return {one.module: one.settings for one in reversed(given) if one.module in plugins}


def _replace_plugins(
    script: Script, plugins: tuple[str, ...], bot: str | None, settings: Mapping[str, Mapping[str, Any]]
) -> Script:
    """Return the same conversation with other plugins for one bot."""
    chosen = bot or (script.bots[0] if len(script.bots) == 1 else None)
    if chosen not in script.bots:
        what = f"there is no bot {bot!r} in it" if bot else "it has several bots"
        msg = f"{script.file}: {what}; select one with --bot: {', '.join(script.bots)}"
        raise UnknownName(msg)
    roles = (
        replace(role, plugins=plugins, number=0, settings={**role.settings, **settings})
        if role.name == chosen
        else role
        for role in script.roles
    )
    return replace(script, roles=tuple(roles))


def _report(script: Script, done: ScriptRun) -> Iterator[str]:
    for bot, lines in other_replies(script, done.steps):
        yield f"{script.file}: {bot} answers differently (- before, + now)"
        yield from lines
    for failure in done.failures:
        yield f"{script.file}: a handler of {failure.bot} failed: {failure.error!r}"
