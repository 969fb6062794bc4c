"""`chatbot store`: back up, describe and check the file of the store, also while the bots run."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from chatbot.cli.boundary import EXIT_UNAVAILABLE
from chatbot.cli.options import BOTS_YAML, Format
from chatbot.config import load_config
from chatbot.config.source_location import printable
from chatbot.errors import StoreError
from chatbot.stores import backup as backups
from chatbot.stores.url import file_of

Config = Annotated[Path, Parameter(help="The configuration that names the store.")]
StoreFile = Annotated[
    Path | None, Parameter(help="A store file, such as a backup; by default the store in the configuration.")
]


def backup(
    target: Annotated[Path, Parameter(help="The file to write; it must not exist.")],
    /,
    *,
    config: Config = BOTS_YAML,
    format: Format = "text",
) -> int:
    """Write a consistent copy of the store, also while the bots run."""
    size = backups.back_up(_file(None, config), target)
    print(json.dumps({"file": str(target), "bytes": size}) if format == "json" else f"{target}: {size:,} bytes")
    return 0


def info(file: StoreFile = None, /, *, config: Config = BOTS_YAML, format: Format = "text") -> int:
    """Show the bots in a store, their users, and how many records each has."""
    path = _file(file, config)
    found = backups.info(path)
    if format == "json":
        print(json.dumps({"file": str(path), **asdict(found)}, indent=2))
        return 0
    print(f"{path}: version {found.version}, {found.bytes:,} bytes")
    for bot in found.bots:
        print(f"\n{printable(bot.name)}  {printable(bot.user)}  ({printable(bot.resource)})")
        print("  " + ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in bot.counts.items()))
    if not found.bots:
        print("No bot has ever used this store.")
    return 0


def check(file: StoreFile = None, /, *, config: Config = BOTS_YAML, format: Format = "text") -> int:
    """Check that a store's file is sound; exit with 69 if it is damaged."""
    path = _file(file, config)
    found = backups.problems(path)
    if format == "json":
        print(json.dumps({"file": str(path), "is_sound": not found, "problems": found}, indent=2))
    else:
        print("\n".join(f"{path}: {printable(line)}" for line in found) or f"{path}: sound")
    return EXIT_UNAVAILABLE if found else 0


def _file(file: Path | None, config: Path) -> Path:
    if file is not None:
        return file
    settings = load_config(config, os.environ)
    named = file_of(settings.store.get_secret_value(), base_dir=settings.directory)
    if named is None:
        msg = "this store is in memory: there is no file to back up, show or check"
        raise StoreError(msg)
    return named
