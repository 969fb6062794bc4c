"""What must hold at every moment, seen from the database and from the service, which no replica can deceive."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from azure.core.pipeline.transport import AsyncHttpResponse, HttpRequest

from chatbot.model import REPLY_KEY, ThreadId, UserId
from chatbot.stores import writes as w
from chatbot.stores.postgres_session import HELD_SECONDS
from chatbot.stores.shards import shard_of, shard_of_bot
from tests.cluster.cluster import Replica
from tests.cluster.database import TTL, Database, Witness
from tests.cluster.gate import is_send

SLOW_SECONDS: Final = TTL - HELD_SECONDS
"""A request that takes longer may arrive after the proof read of the next owner, which then repeats it."""

KEPT_CHECKS: Final = 5
"""How often in a row a replica must be seen to keep something of a thread that it does not own: it may hear late."""

OF_LANES: Final = (
    w.SaveThread,
    w.MoveBase,
    w.MarkSeen,
    w.LeaveThread,
    w.EnterThread,
    w.MarkJoined,
    w.MarkReceiptDue,
    w.SettleReceipt,
    w.BeginAttempt,
    w.EndAttempt,
    w.SettleRow,
    w.ReplaceRowMessage,
)
"""Writes that only the owner of their thread makes."""

FATAL_LOGS: Final = frozenset({"takeover.failed", "turn.failed", "bot.crashed"})
"""Log events of an unexpected error."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that must not be.

    Args:
        kind: which rule was broken.
        detail: where and when.
    """

    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


class Trace:
    """What has happened, line by line.

    Args:
        now: seconds since the beginning.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._hash = sha256()
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        """Add a line."""
        line = f"{self._now():8.3f} {text}"
        self._hash.update(line.encode())
        self.lines.append(line)

    @property
    def digest(self) -> str:
        """The hash of all lines."""
        return self._hash.hexdigest()[:16]


@dataclass
class Sent:
    """A message of the bot that the service has taken.

    Args:
        message: its id.
        by: the replica that has sent it.
        is_late: the replica was paused between its check and the service, or the way took long.
    """

    message: int
    by: str
    is_late: bool


@dataclass
class Oracle(Witness):
    """Sees everything, and notes what must not be. Without a database that it can watch, it sees the service only.

    Args:
        trace: gets a line for everything.
        now: seconds since the beginning.
    """

    trace: Trace
    now: Callable[[], float]
    problems: dict[Problem, None] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    sent: dict[tuple[str, str], list[Sent]] = field(default_factory=dict)
    has_late_lists: bool = False
    has_lost_notes: bool = False
    has_lost_session: bool = False
    is_over: bool = False
    cut: set[str] = field(default_factory=set)
    _database: Database | None = None
    _bot: UserId | None = None
    _owners: dict[int, str] = field(default_factory=dict)
    _bases: dict[str, int] = field(default_factory=dict)
    _seen: dict[tuple[str, int], int] = field(default_factory=dict)
    _closings: Counter[str] = field(default_factory=Counter)
    _requests: dict[int, tuple[HttpRequest, float, int, bool]] = field(default_factory=dict)
    _foreign_lists: Counter[str] = field(default_factory=Counter)
    _running: set[str] = field(default_factory=set)
    _kept: Counter[tuple[str, str]] = field(default_factory=Counter)

    def watch(self, database: Database) -> None:
        """Look at this database."""
        self._database = database

    def report(self, kind: str, detail: str) -> None:
        """Note a problem."""
        self.trace.note(f"PROBLEM {kind}: {detail}")
        self.problems[Problem(kind, f"at {self.now():.2f} s, {detail}")] = None

    # ── replicas ──────────────────────────────────────────────────────────────────────────────────────────────────

    def joined(self, replica: Replica) -> None:
        """See a replica from now on."""
        self._running.add(replica.name)
        replica.gate.on_request = lambda request: self.requested(replica, request)
        replica.gate.on_answer = lambda request, answer: self.answered(replica, request, answer)

    def gone(self, replica: Replica) -> None:
        """Know that a replica has ended, or is about to."""
        self._running.discard(replica.name)

    def closed(self, replica: Replica) -> None:
        """See a pause begin."""
        self._closings[replica.name] += 1

    def interrupted(self, replica: Replica, thread: str) -> None:
        """See that a handler is canceled: only one whose thread is lost, or whose process is killed, may be."""
        if not replica.gate.is_dead and not self.is_over and self._holder(thread) == replica.name:
            self.report("interrupted handler", f"{replica.name} cancels one in {_short(thread)}, which it still owns")

    def logged(self, event: str, level: str) -> None:
        """See a log event."""
        self.counts[event] += 1
        if event in FATAL_LOGS:
            self.report("unexpected error", f"{event} in the log")
        if event == "actions.missed" and not self.may_miss:
            self.report("missed action", "an action was found by chance only, although no note was lost")

    # ── the database ──────────────────────────────────────────────────────────────────────────────────────────────

    def moved(self, what: str, name: str, shards: Collection[int]) -> None:
        """See shards move."""
        if not shards:
            return
        self.trace.note(f"{name} {what} {len(shards)} shards {sum(shards)}")
        self.counts[what] += len(shards)
        if what in {"claims", "retakes"}:
            self._owners.update(dict.fromkeys(shards, name))
        elif what == "releases":
            self._check_released(name, shards)
            for shard in shards:
                self._owners.pop(shard, None)
        elif name in self._running:
            self.has_lost_session = True  # what others tell it until it is connected again is lost

    @property
    def may_miss(self) -> bool:
        """Whether a replica may not have heard what another one has told."""
        return self.has_lost_notes or self.has_lost_session

    def _check_released(self, name: str, shards: Collection[int]) -> None:
        """Check that the next owner finds nothing pending that was sent: what was deferred is stored first."""
        assert self._database is not None
        if name in self.cut:  # it could not
            return
        for thread, key in self._database.pending():
            if shard_of(ThreadId(thread)) in shards and name in {one.by for one in self.sent.get((thread, key), ())}:
                self.report("released early", f"{name} has sent {key} in {_short(thread)}, and not stored that")

    def committed(self, name: str, writes: Sequence[w.Write], connection: sqlite3.Connection) -> None:
        """See a transaction."""
        if not writes:
            return
        self.trace.note(f"{name} commits {' '.join(type(write).__name__ for write in writes)}")
        self.counts["commits"] += 1
        for write in writes:
            if not isinstance(write, OF_LANES):
                continue
            thread = self._thread_of(write, connection)
            if not thread:
                continue
            owner = self._owners.get(shard_of(ThreadId(thread)))
            if owner != name:
                self.report(
                    "commit of a former owner",
                    f"{name} writes {type(write).__name__} in {_short(thread)}, which {owner or 'nobody'} owns",
                )
            self._check_cursor(thread, write)

    def _thread_of(self, write: Any, connection: sqlite3.Connection) -> str:
        if not isinstance(write, w.SettleRow | w.ReplaceRowMessage):
            return str(write.record.thread if isinstance(write, w.SaveThread) else write.thread)
        row = connection.execute("SELECT thread FROM outbox WHERE key = ?", (write.key,)).fetchone()
        return row[0] if row else ""

    def _check_cursor(self, thread: str, write: Any) -> None:
        match write:
            case w.MoveBase(_, base, _):
                self._raise(self._bases, thread, base, thread)
            case w.SaveThread(record):
                self._raise(self._bases, thread, record.base, thread)
            case w.MarkSeen(_, seen):
                for message, version in seen.items():
                    self._raise(self._seen, (thread, message), version, thread)
            case _:
                pass

    def _raise(self, known: dict[Any, int], key: Any, value: int, thread: str) -> None:
        if value < known.get(key, 0):
            self.report("cursor back", f"in {_short(thread)}, from {known[key]} to {value}")
        known[key] = value

    def check_sessions(self) -> None:
        """Check that the server has ended silent sessions."""
        database = self._database
        if database is None:
            return
        latest = max((session.last_at for session in database.sessions), default=0.0)
        for session in database.sessions:
            if session.locks and latest - session.last_at > 9.0:
                self.report("silent owner", f"{session.name} holds {len(session.locks)} shards, silent for 9 s")

    def check_kept(self, replica: Replica, threads: Collection[ThreadId]) -> None:
        """Check that a replica keeps nothing of threads that it has given up or lost: it would use it some day."""
        if self._database is None:
            return
        bot, owned = replica.bot, replica.store.owned
        for thread in threads:
            is_kept = thread in bot.scheduler.lanes or bot.context.conversations.has_pending(thread)
            if shard_of(thread) in owned or not is_kept or replica.gate.is_closed or replica.gate.is_dead:
                self._kept.pop((replica.name, thread), None)
                continue
            self._kept[replica.name, thread] += 1
            if self._kept[replica.name, thread] == KEPT_CHECKS:
                self.report("kept", f"{replica.name} still has a lane or timers of {_short(thread)}, not its own")

    # ── the service ───────────────────────────────────────────────────────────────────────────────────────────────

    def requested(self, replica: Replica, request: HttpRequest) -> None:
        """See a request when it leaves a replica."""
        gate, thread = replica.gate, _thread(request)
        is_held_back = gate.is_closed or gate.is_dead
        self._requests[id(request)] = (request, self.now(), self._closings[replica.name], is_held_back)
        if is_held_back or thread is None:
            return
        if self._database is None:
            return
        holder = self._holder(thread)
        is_foreign = holder not in {None, replica.name}
        if not thread:
            # One that waited while its replica was cut off goes out when it is back; then it knows.
            self._foreign_lists[replica.name] = self._foreign_lists[replica.name] + 1 if is_foreign else 0
            is_foreign = self._foreign_lists[replica.name] > 2
        if is_foreign:
            place = _short(thread) if thread else "the thread list"
            self.report("two owners", f"{replica.name} sends {request.method} for {place}, which {holder} owns")
        if (key := _key(request)) is not None and not self._database.is_journalled(key):
            self.report("sent before stored", f"{replica.name} sends {key} in {_short(thread)}")

    def answered(self, replica: Replica, request: HttpRequest, answer: AsyncHttpResponse) -> None:
        """See what has become of a request, also if the replica never hears of it."""
        _, begun, closings, was_held_back = self._requests.pop(id(request), (request, self.now(), 0, False))
        path = unquote(urlsplit(request.url).path)
        self.trace.note(f"{replica.name} {request.method} {path} {answer.status_code}")
        self.counts["requests"] += 1
        is_late = was_held_back or closings != self._closings[replica.name] or self.now() - begun > SLOW_SECONDS
        self._note_send(replica, request, answer, is_late=is_late)

    def _note_send(self, replica: Replica, request: HttpRequest, answer: AsyncHttpResponse, *, is_late: bool) -> None:
        key, thread = _key(request), _thread(request)
        if key is None or not thread or answer.status_code != 201:
            return
        known = self.sent.setdefault((thread, key), [])
        known.append(Sent(int(json.loads(answer.body())["id"]), replica.name, is_late))
        if len(known) > 1:
            self.counts["doubled sends"] += 1
            if not self.has_late_lists and not any(one.is_late for one in known):
                self.report("repeated send", f"{key} in {_short(thread)} was sent again, though it could be seen")

    def _holder(self, thread: str) -> str | None:
        if self._database is None or (not thread and self._bot is None):
            return None
        shard = shard_of(ThreadId(thread)) if thread else shard_of_bot(self._bot or UserId(""))
        return self._database.owners().get(shard)

    def know_bot(self, bot: UserId) -> None:
        """Know which user the bot is."""
        self._bot = bot


def _thread(request: HttpRequest) -> str | None:
    """Return the thread of a request to the chat service; empty for the thread list, None for anything else."""
    path = unquote(urlsplit(request.url).path)
    parts = path.strip("/").split("/")
    if parts[:2] != ["chat", "threads"]:
        return None
    return parts[2] if len(parts) > 2 else ""


def _key(request: HttpRequest) -> str | None:
    """Return the key of a reply that a request sends."""
    if not is_send(request):
        return None
    data = request.data
    key = json.loads(data).get("metadata", {}).get(REPLY_KEY) if isinstance(data, str | bytes) else None
    return None if key is None else str(key)


def _short(thread: str) -> str:
    return thread[-12:]
