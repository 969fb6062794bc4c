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
            what = f"other users can read {file}, which contains a secret in plain text"
            yield warning("configuration", what, f"chmod 600 {file}, or use !secret env:NAME or ${{NAME}}")


def check_store(config: Config, found: StoreProbe, *, is_running: bool) -> Iterator[Finding]:
    """Report the state of the store.

    Args:
        config: The configuration that names the store.
        found: The probe of the store.
        is_running: Bots use the store now, so being in use is no problem.
    """
    if found.place is None:
        what = "in memory: when the bots stop, everything is lost, including their users"
        yield warning("store", what, "configure a file: store: sqlite:///chatbot.db")
        return
    if found.problem is not None:
        yield failed("store", f"{masked(config.store.get_secret_value())}: {found.problem}")
    elif found.in_use is not None and not is_running:
        yield failed("store", found.in_use)
    else:
        yield ok("store", f"{found.place}: {_described(found)}")
    if found.notice is not None:
        yield warning("store", found.notice)
    if not found.is_verified:
        what = f"{found.place}: the connection does not prove which server it leads to"
        yield warning("store", what, "use sslmode=verify-full in the URL of the store, with sslrootcert=FILE if needed")
    if found.owner is not None:
        what = f"{found.file} belongs to another user (id {found.owner})"
        yield warning("store", what, f"run this as the user of the bots: sudo -u '#{found.owner}' chatbot doctor")
    if found.is_open_to_others and found.problem is None:
        what = f"other users can read {found.file}, which contains messages"
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
    except (ConfigError, StoreError):  # reported by other checks
        return
    for lost in lost_identities(config, resource, stored, noted):
        state = warning if config.allow_new_users else failed
        yield state("identity", lost.problem, lost.remedy)


def _described(found: StoreProbe) -> str:
    if not found.exists:
        return "does not exist yet; it is created at the first start"
    version = "" if found.version is None else f", version {found.version}"
    if found.is_outdated:
        version += ", to be migrated at the next start"
    if found.replicas:
        version += f", shared by {found.replicas} processes" if found.replicas > 1 else ", used by 1 process"
    return f"{'in use' if found.in_use else 'readable and writable'}{version}"


def _disk_space(found: StoreProbe) -> Iterator[Finding]:
    if found.free_bytes is None:
        return
    free = f"{found.free_bytes / 1e9:.1f} GB are free on the disk of the store"
    if found.free_bytes < NEEDED_BYTES:
        what = f"only {found.free_bytes / 1e6:.0f} MB are free on the disk of the store"
        yield warning("disk", what, f"free some: at least {NEEDED_BYTES / 1e6:.0f} MB")
    else:
        yield ok("disk", free)
