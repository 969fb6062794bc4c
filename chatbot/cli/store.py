"""`chatbot store`: back up, describe and check the store, also while the bots run; copy it to another database."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import anyio
from cyclopts import Parameter

from chatbot.cli.boundary import EXIT_UNAVAILABLE
from chatbot.cli.options import BOTS_YAML, Format
from chatbot.config import load_config
from chatbot.config.source_location import printable
from chatbot.errors import StoreError
from chatbot.stores import backup as backups
from chatbot.stores.copying import copy_store
from chatbot.stores.url import file_of, server_of

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
    place, found = _statistics(file, config)
    if format == "json":
        print(json.dumps({"file": place, **asdict(found)}, indent=2))
        return 0
    print(f"{place}: version {found.version}, {found.bytes:,} bytes")
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


def copy(
    source: Annotated[str, Parameter(help="The store to copy from, as a URL like `store` in bots.yaml.")],
    target: Annotated[str, Parameter(help="The store to copy to: empty, or the same already.")],
    /,
    *,
    format: Format = "text",
) -> int:
    """Copy a store to another database while no bots run, and compare both."""
    done = anyio.run(partial(copy_store, source, target, base_dir=Path.cwd()))
    count = sum(done.rows.values())
    if format == "json":
        print(json.dumps({**asdict(done), "total": count}, indent=2))
        return 0
    what = "was there already" if done.was_there else "copied"
    print(", ".join(f"{name.replace('_', ' ')} {rows:,}" for name, rows in done.rows.items() if rows) or "no rows")
    print(f"{count:,} rows {what}; both stores have the checksum {done.checksum}")
    return 0


def _statistics(file: Path | None, config: Path) -> tuple[str, backups.StoreInfo]:
    if file is None:
        settings = load_config(config, os.environ)
        server = server_of(settings.store.get_secret_value(), base_dir=settings.directory)
        if server is not None:
            from chatbot.stores.postgres_reading import info as read_info  # only here: bots on SQLite do not load it

            return str(server), read_info(server)
    path = _file(file, config)
    return str(path), backups.info(path)


def _file(file: Path | None, config: Path) -> Path:
    if file is not None:
        return file
    settings = load_config(config, os.environ)
    url = settings.store.get_secret_value()
    if (server := server_of(url, base_dir=settings.directory)) is not None:
        msg = (
            f"the store {server} is not a file: back it up with pg_dump --schema={server.schema}, restore it with "
            "pg_restore, and check it with pg_amcheck"
        )
        raise StoreError(msg)
    named = file_of(url, base_dir=settings.directory)
    if named is None:
        msg = "this store is in memory: there is no file to back up, show or check"
        raise StoreError(msg)
    return named
