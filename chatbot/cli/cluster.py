"""`chatbot cluster`: the processes that share a store on PostgreSQL, as the server sees them.

The server is asked, not a process: this works on any machine that has bots.yaml, whether bots run there or not.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from chatbot.cli.boundary import EXIT_DEGRADED
from chatbot.cli.options import BOTS_YAML, Format
from chatbot.cli.output import CLEAR, counted, span, table, truncated
from chatbot.cluster.admission import Report
from chatbot.config import load_config
from chatbot.config.source_location import printable
from chatbot.errors import StoreError, UnknownName
from chatbot.model import ThreadId
from chatbot.stores.shards import SHARDS, shard_of
from chatbot.stores.url import server_of

if TYPE_CHECKING:
    from chatbot.stores.postgres_reading import ClusterFacts, SeenReplica
    from chatbot.stores.postgres_url import PostgresUrl

WATCH_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 1.0
"""Seconds between two looks while shards have no owner."""

OWNERLESS_SECONDS: Final = 10.0
"""Seconds that a shard may be without an owner: the end of a process is noticed, and its shards are taken, earlier."""

SILENT_SECONDS: Final = 3.0
"""Seconds of silence that are too long: a process is heard every second."""


def status(
    config: Annotated[Path, Parameter(help="The configuration that names the store.")] = BOTS_YAML,
    *,
    watch: Annotated[bool, Parameter(negative="", help="Refresh until Ctrl-C.")] = False,
    thread: Annotated[str | None, Parameter(help="Also show which process serves this thread.")] = None,
    format: Format = "text",
) -> int:
    """Show the processes that share a store, and what each of them owns."""
    settings = load_config(config, os.environ)
    server = server_of(settings.store.get_secret_value(), base_dir=settings.directory)
    if server is None:
        message = "this store is not on PostgreSQL, so one process has it alone: `chatbot status` shows that one"
        raise StoreError(message)
    if thread == "":
        message = "--thread needs the id of a thread, as `chatbot threads list` shows it"
        raise UnknownName(message)
    look = Look(server, ThreadId(thread) if thread is not None else None)
    look.refresh()
    while look.is_undecided and not watch:  # shards that are just moving have an owner in a moment
        time.sleep(LOOK_SECONDS)
        look.refresh()
    _print(look, watch=watch, format=format)
    while watch:
        time.sleep(WATCH_SECONDS)
        try:
            look.refresh()
        except StoreError as error:  # a failover is one of the reasons to watch
            print(f"chatbot: {printable(str(error))}", file=sys.stderr, flush=True)
            continue
        _print(look, watch=watch, format=format)
    return look.exit_code


def _print(look: Look, *, watch: bool, format: str) -> None:
    if format == "json":
        print(json.dumps(look.as_json(), indent=None if watch else 2), flush=True)
        return
    is_screen = watch and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns
    lines = [truncated(line, width) if is_screen else printable(line) for line in look.lines()]
    print(f"{CLEAR if is_screen else ''}" + "\n".join(lines), flush=True)


@dataclass
class Look:
    """What the server shows, and since when shards have had no owner.

    Args:
        server: the store.
        thread: of which the owner is asked for.
    """

    server: PostgresUrl
    thread: ThreadId | None = None
    facts: ClusterFacts = field(init=False)
    _free_since: dict[int, float] = field(default_factory=dict)
    _moves: int | None = None

    def refresh(self) -> None:
        """Ask the server.

        Raises:
            StoreError: it cannot be reached, or has no such store.
        """
        from chatbot.stores.postgres_reading import cluster  # only here: commands on SQLite do not load it

        self.see(cluster(self.server), time.monotonic())

    def see(self, facts: ClusterFacts, now: float) -> None:
        """Take what the server shows at a time, in seconds of a monotonic clock."""
        self.facts = facts
        owned = {shard for member in facts.members for shard in member.shards}
        free = () if facts.is_alone else set(range(SHARDS)) - owned
        self._free_since = {shard: self._free_since.get(shard, now) for shard in free}
        self._seen_at = now
        if self._moves is None:
            self._moves = self.moves

    @property
    def moves(self) -> int:
        """How often shards have changed hands."""
        return sum(self.facts.epochs.values())

    @property
    def ownerless(self) -> list[int]:
        """The shards without an owner."""
        return sorted(self._free_since)

    @property
    def long_ownerless(self) -> list[int]:
        """Those of them that have had none for too long. If no process is there, none will come."""
        if not any(member.is_connected for member in self.facts.members):
            return self.ownerless
        return [shard for shard in self.ownerless if self._seen_at - self._free_since[shard] > OWNERLESS_SECONDS]

    @property
    def is_undecided(self) -> bool:
        """Whether only time tells if shards get an owner."""
        return len(self.ownerless) > len(self.long_ownerless)

    @property
    def exit_code(self) -> int:
        """The exit code: 75 if a shard has had no owner for too long, or a process is silent."""
        return EXIT_DEGRADED if self.long_ownerless or any(map(_is_silent, self.facts.members)) else 0

    @property
    def _owner_of_thread(self) -> tuple[int, SeenReplica | None] | None:
        if self.thread is None:
            return None
        shard = shard_of(self.thread)
        return shard, next((member for member in self.facts.members if shard in member.shards), None)

    # ── for people ────────────────────────────────────────────────────────────────────────────────────────────────

    def lines(self) -> Iterator[str]:
        """Yield what people read."""
        facts = self.facts
        moved = self.moves - (self._moves or 0)
        since = f" ({moved} since this look began)" if moved else ""
        connected = [member for member in facts.members if member.is_connected]
        yield f"{self.server}: {len(connected)} process{'es' * (len(connected) != 1)}, {SHARDS} shards"
        yield f"Moves of shards so far: {self.moves:,}{since}"
        if facts.is_alone:
            yield "One process uses this store alone: it is older than shared stores, or copies the store."
        elif not connected:
            yield "No process runs on this store."
        if self.ownerless and not facts.is_alone:
            seconds = max(self._seen_at - since for since in self._free_since.values())
            yield f"WITHOUT OWNER: {counted(len(self.ownerless), 'shard')}, for {span(seconds)} or longer"
        if facts.members:
            yield ""
            head = ("HOST", "PID", "VERSION", "UP", "SHARDS", "SILENT", "NAME", "REMARK")
            yield from table(head, [self._row(member) for member in facts.members])
        yield from self._more()

    def _more(self) -> Iterator[str]:
        found = self._owner_of_thread
        if found is not None:
            shard, owner = found
            who = f"{owner.host}, pid {owner.pid} ({owner.name})" if owner is not None else "nobody at the moment"
            yield ""
            yield f"{self.thread} is in shard {shard}, which has moved {self.facts.epochs.get(shard, 0)} times: {who}"
        versions = Counter(member.version for member in self.facts.members if member.is_connected)
        if len(versions) > 1:
            yield ""
            yield "Versions: " + ", ".join(f"{version} ({count})" for version, count in sorted(versions.items()))
        for standby in self.facts.standbys:
            behind = "" if standby.lag_seconds is None else f", {span(standby.lag_seconds)} behind"
            state = ", ".join(filter(None, (standby.sync_state, standby.state))) or "this user may not see its state"
            yield f"Standby {standby.name}: {state}{behind}"

    def _row(self, member: SeenReplica) -> Sequence[str]:
        silence = "?" if member.silent_seconds is None else span(member.silent_seconds)
        return (
            member.host,
            str(member.pid),
            member.version,
            span(max(0.0, (self.facts.now_ms - member.started_ms) / 1000)),
            str(len(member.shards)),
            silence if member.is_connected else "-",
            member.name,
            "; ".join(_remarks(member)),
        )

    # ── for programs ──────────────────────────────────────────────────────────────────────────────────────────────

    def as_json(self) -> Mapping[str, Any]:
        """Return what programs read."""
        facts, found = self.facts, self._owner_of_thread
        answer: dict[str, Any] = {
            "store": str(self.server),
            "is_degraded": self.exit_code != 0,
            "replicas": [_member_as_json(member) for member in facts.members],
            "shards": SHARDS,
            "without_owner": self.ownerless,
            "without_owner_for_long": self.long_ownerless,
            "moves": self.moves,
            "is_used_alone": facts.is_alone,
            "standbys": [
                {"name": one.name, "sync_state": one.sync_state, "state": one.state, "lag_seconds": one.lag_seconds}
                for one in facts.standbys
            ],
        }
        if found is not None:
            shard, owner = found
            name = None if owner is None else owner.name
            answer["thread"] = {"id": self.thread, "shard": shard, "epoch": facts.epochs.get(shard, 0), "owner": name}
        return answer


def _member_as_json(member: SeenReplica) -> Mapping[str, Any]:
    return {
        "name": member.name,
        "host": member.host,
        "pid": member.pid,
        "version": member.version,
        "started_ms": member.started_ms,
        "share": member.share,
        "is_stopping": member.is_stopping,
        "is_connected": member.is_connected,
        "is_silent": _is_silent(member),
        "silent_seconds": member.silent_seconds,
        "shards": sorted(member.shards),
    }


def _is_silent(member: SeenReplica) -> bool:
    return not member.is_connected or (member.silent_seconds or 0.0) > SILENT_SECONDS


def _remarks(member: SeenReplica) -> Iterator[str]:
    if not member.is_connected:
        yield "DISCONNECTED OR GONE: nobody has its shards yet"
    elif _is_silent(member):
        yield "SILENT: paused, very busy, or cut off"
    if member.is_stopping:
        yield "stopping"
    elif Report.decode(member.report).lacks and member.share is not None:
        yield "leaves others the open dialogs that its code cannot continue"
    elif member.share is not None:
        yield f"takes at most {member.share:.0%}"
