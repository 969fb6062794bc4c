"""The data file: a journal of records, one JSON line each, that keeps the state across restarts.

A record is on its way to the disk before its request is answered: killing the process loses nothing that was
acknowledged. A last line cut in half was never acknowledged and is dropped. Each start writes the journal
anew, without what was superseded, to a file beside it, and puts that in its place in one step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

from filelock import FileLock, Timeout

from chatbot.emulator import records
from chatbot.emulator.records import (
    Assignment,
    Image,
    Listed,
    Member,
    Message,
    MessageAttachment,
    ReceiptEntry,
    Record,
    Repeat,
    Resource,
    ThreadEntry,
    User,
)
from chatbot.emulator.state import WorldState
from chatbot.emulator.world import World

# The names are in every data file ever written: a class may be renamed, its name here may not.
_CLASSES: dict[str, type[Any]] = {
    "Resource": Resource,
    "User": User,
    "Thread": ThreadEntry,
    "Member": Member,
    "Message": Message,
    "Receipt": ReceiptEntry,
    "Repeat": Repeat,
    "Image": Image,
    "Assignment": Assignment,
}
_NAMES = {kind: name for name, kind in _CLASSES.items()}
_PARTS: dict[str, type[Any]] = {"participants": Listed, "attachments": MessageAttachment}
_FORMAT = 1


class DataFileError(Exception):
    """The data file cannot be used: it is not a journal of the emulator, or another emulator has it open."""


@contextlib.contextmanager
def persist(world: World, path: Path) -> Iterator[World]:
    """Load the world from the file, and write all further changes to it until the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock", mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        msg = f"{path} is in use by another emulator; stop that one, or choose another --data file"
        raise DataFileError(msg) from error
    with lock:
        if path.exists():
            read_records(world.state, path, remedy="move the file away to start empty")
        with _Journal(world.state, path) as journal:
            world.state.listeners.append(journal)
            world.state.replacement_listeners.append(journal.rewrite)
            try:
                yield world
            finally:
                world.state.listeners.remove(journal)
                world.state.replacement_listeners.remove(journal.rewrite)


class _Journal:
    """Writes records as they are stored; unbuffered, so that they survive the process."""

    def __init__(self, state: WorldState, path: Path) -> None:
        self._state = state
        self._path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.rewrite()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close()

    def __call__(self, record: Record) -> None:
        assert self._file is not None
        self._file.write(encode(record))

    def rewrite(self) -> None:
        """Write the whole state anew, to a file that takes the place of the earlier one."""
        write_lines(self._path, encode_all(self._state, self._state.resource))
        self._close()
        self._file = self._path.open("ab", buffering=0)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()


def encode(record: Record) -> bytes:
    """Encode a record as a line: its class, and the fields that differ from their defaults."""
    values: dict[str, Any] = {}
    for item in dataclasses.fields(record):
        value = getattr(record, item.name)
        if value != item.default and (value or not isinstance(value, Mapping)):
            values[item.name] = dict(value) if isinstance(value, Mapping) else value
    if isinstance(record, Message):
        for name in _PARTS:
            if name in values:
                values[name] = [dataclasses.astuple(item) for item in values[name]]
    return json.dumps([_NAMES[type(record)], values], separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def decode(line: bytes) -> Record:
    """Decode the record of a line; ValueError if it is invalid."""
    try:
        name, values = json.loads(line)
        if name == "Message":
            for part, kind in _PARTS.items():
                if part in values:
                    values[part] = tuple(kind(*fields) for fields in values[part])
        elif "client_ids" in values:
            values["client_ids"] = tuple(values["client_ids"])
        record: Record = _CLASSES[name](**values)
    except (KeyError, TypeError) as error:
        msg = f"not a record: {line[:80]!r}"
        raise ValueError(msg) from error
    return record


def read_records(state: WorldState, path: Path, *, remedy: str) -> None:
    """File the records of a data file.

    Args:
        state: an empty one.
        path: the file.
        remedy: what to do if it is damaged, for the error.

    Raises:
        DataFileError: the file is none of ours, or is damaged.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    lines = content.split(b"\n")
    if lines[-1]:
        lines[-1] = b""  # cut in half by a crash: it was never acknowledged
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            if number == 1:
                _check(line)
            else:
                state.store(decode(line))
        except KeyError as error:
            msg = f"{path}:{number}: it belongs to a thread that is not there ({error}); {remedy}"
            raise DataFileError(msg) from error
        except ValueError as error:
            msg = f"{path}:{number}: {error}; {remedy}"
            raise DataFileError(msg) from error


def _check(line: bytes) -> None:
    head = json.loads(line)
    if not isinstance(head, dict) or head.get("chatbot-emulator") != _FORMAT:
        msg = "this is not a data file of the emulator"
        raise ValueError(msg)


def write_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Write a data file whole, readable by its owner alone; it takes the place of an earlier one in one step."""
    fresh = path.with_name(f"{path.name}.new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        rest = memoryview(b"".join([json.dumps({"chatbot-emulator": _FORMAT}).encode(), b"\n", *lines]))
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    fresh.replace(path)


def encode_all(state: WorldState, resource: Resource) -> Iterator[bytes]:
    """Yield a state as lines of a data file.

    Args:
        state: the tables.
        resource: in place of the state's own.
    """
    return (encode(record) for record in _all_records(state, resource))


def _all_records(state: WorldState, resource: Resource) -> Iterator[records.Record]:
    yield resource
    yield from state.users.values()
    for room in state.rooms.values():
        yield room.head
        yield from room.members.values()
        yield from room.timeline
        yield from room.receipts.values()
        yield from (image for image in room.images.values() if not image.is_deleted)
    yield from state.repeats.values()
    yield from (assignment for assignment in state.assignments.values() if not assignment.is_removed)
