"""Check that the store and the configuration files are usable, and readable by their owner only."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from chatbot.config import Config
from chatbot.config.source_location import masked, shows_secret
from chatbot.errors import ConfigError, StoreError
from chatbot.runtime.bot_users import lost_identities, noted_users
from chatbot.runtime.connection import Connection
from chatbot.runtime.doctor.finding import Finding, failed, ok, warning
from chatbot.stores.probe import NEEDED_BYTES, StoreProbe
from chatbot.stores.records import BotRecord


def check_files(files: Sequence[str]) -> Iterator[Finding]:
    """Check that only the owner can read files that contain secrets.

    Args:
        files: Names of files that exist and are readable.
    """
    for file in map(Path, files):
        if os.name == "posix" and file.stat().st_mode & 0o077 and shows_secret(file.read_text("utf-8", "replace")):
            what = f"others than its owner may read {file}, where a secret stands as it is"
            yield warning("configuration", what, f"chmod 600 {file}, or write !secret env:NAME, or ${{NAME}} instead")


def check_store(config: Config, found: StoreProbe, *, is_running: bool) -> Iterator[Finding]:
    """Report the state of the store.

    Args:
        config: The configuration that names the store.
        found: The probe of the store.
        is_running: Bots use the store now, so being in use is no problem.
    """
    if found.file is None:
        what = "kept in memory: the bots forget everything, who they are included, when they stop"
        yield warning("store", what, "name a file: store: sqlite:///chatbot.db")
        return
    if found.problem is not None:
        yield failed("store", f"{masked(config.store.get_secret_value())}: {found.problem}")
    elif found.in_use is not None and not is_running:
        yield failed("store", found.in_use)
    else:
        yield ok("store", f"{found.file}: {_described(found)}")
    if found.owner is not None:
        what = f"{found.file} belongs to the user with the id {found.owner}, who this is not"
        yield warning("store", what, f"be the user that runs the bots: sudo -u '#{found.owner}' chatbot doctor")
    if found.is_open_to_others and found.problem is None:
        what = f"others than its owner may read {found.file}, where people's words are"
        yield warning("store", what, f"chmod 600 {found.file}")
    yield from _disk_space(found)


def check_identities(config: Config, stored: Sequence[BotRecord]) -> Iterator[Finding]:
    """Report bots that would start as a new user although they had one.

    Args:
        config: The configuration that is to run, on a resource of Azure.
        stored: The identities in the store.
    """
    try:
        resource = Connection.of(config).resource
        noted = noted_users(config, resource)
    except (ConfigError, StoreError):  # told by other checks
        return
    for lost in lost_identities(config, resource, stored, noted):
        state = warning if config.allow_new_users else failed
        yield state("identity", lost.problem, lost.remedy)


def _described(found: StoreProbe) -> str:
    if not found.exists:
        return "not there yet; it is made at the first start"
    version = "" if found.version is None else f", version {found.version}"
    if found.is_outdated:
        version += ", to be brought up to date at the next start"
    return f"{'in use' if found.in_use else 'readable and writable'}{version}"


def _disk_space(found: StoreProbe) -> Iterator[Finding]:
    if found.free_bytes is None:
        return
    free = f"{found.free_bytes / 1e9:.1f} GB are free where the store is"
    if found.free_bytes < NEEDED_BYTES:
        what = f"only {found.free_bytes / 1e6:.0f} MB are free where the store is"
        yield warning("disk", what, f"free some: at least {NEEDED_BYTES / 1e6:.0f} MB")
    else:
        yield ok("disk", free)
