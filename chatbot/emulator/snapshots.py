"""Snapshots: the state of the service under a name, so that a test or a demo begins where it wants.

A snapshot has the format of a data file, without the access key: whoever loads it keeps the own one. It holds what
people wrote, so only its owner can read the file. Loading replaces everything at once, or nothing if the file is wrong.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import anyio.to_thread
import platformdirs

from chatbot.emulator.persistence import DataFileError, encode_all, read_records, write_lines
from chatbot.emulator.state import WorldState
from chatbot.emulator.world import World

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
SUFFIX = ".snapshot"


class SnapshotError(ValueError):
    """A snapshot cannot be saved or loaded; the text says why."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a snapshot holds, for people who look for something in it.

    Args:
        users: the ids by display name.
        threads: the ids by topic; of two threads of one topic, the one that was created last.
        last_change: epoch milliseconds.
    """

    users: dict[str, str]
    threads: dict[str, str]
    last_change: int

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"users": self.users, "threads": self.threads}


def default_directory() -> Path:
    """Where snapshots are kept unless another directory is given."""
    return Path(platformdirs.user_data_dir("chatbot", appauthor=False)) / "emulator" / "snapshots"


def find(snapshot: str | PathLike[str], directory: Path | None = None) -> Path:
    """Return the file of a snapshot.

    Args:
        snapshot: a name, or a path: whatever has a directory or ends in `.snapshot`.
        directory: where names are looked up.
    """
    path = Path(snapshot)
    if isinstance(snapshot, str) and path.name == snapshot and path.suffix != SUFFIX:
        return path_of(snapshot, directory)
    return path


def path_of(name: str, directory: Path | None = None) -> Path:
    """Return the file of a name.

    Raises:
        SnapshotError: it is no name.
    """
    if not _NAME.fullmatch(name):
        msg = f"{name[:100]!r} is no name of a snapshot: use letters, digits, dots, dashes and underscores"
        raise SnapshotError(msg)
    return (directory or default_directory()) / f"{name}{SUFFIX}"


def names(directory: Path | None = None) -> Iterator[tuple[str, Path]]:
    """Yield the names of all snapshots and their files, sorted."""
    for path in sorted((directory or default_directory()).glob(f"*{SUFFIX}")):
        if _NAME.fullmatch(path.name.removesuffix(SUFFIX)):
            yield path.name.removesuffix(SUFFIX), path


def listed(directory: Path | None = None) -> list[dict[str, Any]]:
    """Return the names of all snapshots, when they were saved (epoch seconds), and their sizes in bytes."""
    found = [(name, path.stat()) for name, path in names(directory)]
    return [{"name": name, "saved": int(stat.st_mtime), "bytes": stat.st_size} for name, stat in found]


async def save(world: World, path: Path) -> Contents:
    """Write the state to a file, which replaces an earlier one.

    Raises:
        SnapshotError: it cannot be written.
    """
    # Encoded before anything else can change it; only the writing happens beside.
    resource = dataclasses.replace(world.resource, access_key="")
    lines = list(encode_all(world.state, resource))
    try:
        await anyio.to_thread.run_sync(_write, path, lines)
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror or error}"
        raise SnapshotError(msg) from error
    return contents(world)


async def load(world: World, path: Path) -> Contents:
    """Replace the state by a file's; the access key stays.

    Raises:
        SnapshotError: the file cannot be used; nothing has changed.
    """
    try:
        fresh = await anyio.to_thread.run_sync(read_state, path)
    except FileNotFoundError:
        known = ", ".join(one["name"] for one in await anyio.to_thread.run_sync(listed, path.parent))
        msg = f"there is no snapshot {path}; there are: {known or 'none'}"
        raise SnapshotError(msg) from None
    except (OSError, DataFileError) as error:
        raise SnapshotError(str(error)) from error
    world.replace_state(fresh)
    return contents(world)


def contents(world: World) -> Contents:
    """Return names, topics and time of what a world holds."""
    state = world.state
    rooms = sorted(state.rooms.values(), key=lambda room: room.head.created)
    users = {
        member.display_name: member.user for room in rooms for member in room.members.values() if member.display_name
    }
    threads = {room.head.topic: room.head.id for room in rooms if room.head.deleted is None}
    times = [room.version for room in rooms] + [user.created for user in state.users.values()]
    return Contents(users, threads, max(times, default=0))


def _write(path: Path, lines: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lines(path, lines)


def read_state(path: Path) -> WorldState:
    """Read the state in a snapshot.

    Raises:
        DataFileError: the file is no snapshot, or is damaged.
        OSError: it cannot be read.
    """
    state = WorldState(None)
    read_records(state, path, remedy="save the snapshot again")
    return state
