"""Variants: one rule of the product, or of the database, is broken on purpose, and the simulation must find it.

Each is a patch that ends with its block. A variant that is harmless by design says so: then nothing may be found.
"""

from __future__ import annotations

import functools
import math
from asyncio import CancelledError
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from chatbot.actions import DeleteMessage
from chatbot.bot.commits import ThreadCommits, WriteBehind
from chatbot.bot.discovery import ThreadWatcher
from chatbot.bot.environment import NO_THREAD, BotContext
from chatbot.bot.handover import Handover
from chatbot.bot.poll import ThreadPoller
from chatbot.bot.scheduler import Scheduler
from chatbot.cluster.member import ClusterMember
from chatbot.cluster.notes import ActionsAdded, ListAgain, ThreadsListed, TimersDropped
from chatbot.conversation import Conversations
from chatbot.dispatch import action_buffer
from chatbot.errors import StoreConflict
from chatbot.outbox import outbox
from chatbot.outbox.outbox import Outbox
from chatbot.outbox.proof import Healing, heal, healing_key
from chatbot.stores.writes import DropTimer, Enqueue
from tests.cluster import database
from tests.cluster.database import TTL, Database, Rules, Session
from tests.cluster.store import ModelStore

Patch = AbstractContextManager[object]


@dataclass(frozen=True)
class Variant:
    """A broken rule.

    Args:
        name: what is broken.
        patch: breaks it.
        is_harmless: nothing may be found, because something else makes up for it.
    """

    name: str
    patch: Callable[[], Patch]
    is_harmless: bool = False


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute of a class or module."""
    former = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, former)


def wrapped(owner: Any, name: str, wrapper: Callable[..., Any]) -> Patch:
    """Replace a method by a function that gets the former one as its first argument."""
    former = vars(owner)[name]
    return patched(owner, name, lambda *args, **options: wrapper(former, *args, **options))


def nothing(*_args: Any, **_options: Any) -> None:
    """Do nothing."""


async def nothing_async(*_args: Any, **_options: Any) -> None:
    """Do nothing."""


# ── the database ──────────────────────────────────────────────────────────────────────────────────────────────────────


def rule(**values: bool) -> Callable[[], Patch]:
    """Return what switches rules of the database off."""
    return lambda: patched(Rules, "__init__", functools.partialmethod(_set, values))


def _set(rules: Rules, values: Mapping[str, bool]) -> None:
    for name in ("checks_fence", "raises_epoch", "ends_silent_sessions"):
        setattr(rules, name, values.get(name, True))


def retake_foreign_epoch() -> Patch:
    """Take what nobody holds, whatever its epoch is by now."""

    def reclaim(former: Any, server: Database, session: Session, epochs: dict[int, int]) -> set[int]:
        former(server, session, epochs)
        kept = set(epochs) - {shard for other in server.sessions if other is not session for shard in other.locks}
        epochs.update({shard: server.epoch(shard) for shard in kept})
        session.locks |= kept
        server.witness.moved("retakes", session.name, kept)
        return kept

    return wrapped(Database, "reclaim", reclaim)


def retake_nothing() -> Patch:
    """Keep believing to own what others have taken."""

    def reconnect(former: Any, store: Any, session: Session) -> None:
        epochs = dict(vars(store)["_epochs"])
        former(store, session)
        vars(store)["_epochs"] = epochs

    return wrapped(ModelStore, "_reconnect", reconnect)


def late_deadline() -> Patch:
    """Go on for longer than the server waits after the last answer to a beat."""

    def is_held(store: ModelStore) -> bool:
        own = vars(store)
        own["latest"] = max(own.get("latest", -math.inf), own["_deadline"])
        return _now(store) < own["latest"] + TTL

    return patched(ModelStore, "is_held", property(is_held))


def held_before_losses_are_told() -> Patch:
    """Go on although the bots were not told yet what was lost."""
    return patched(ModelStore, "is_held", property(lambda store: _now(store) < vars(store)["_deadline"]))


def _now(store: ModelStore) -> float:
    return float(vars(store)["_gate"].now())


def fired_timers_stay() -> Patch:
    """Leave a timer that has fired in the store, so that the next owner loads it again."""

    async def commit(former: Any, store: Any, bot: Any, writes: Sequence[Any], **options: Any) -> None:
        kept = [write for write in writes if not isinstance(write, DropTimer)]
        await former(store, bot, kept, **options)

    return wrapped(ModelStore, "commit", commit)


def dialogs_not_loaded() -> Patch:
    """Take threads over without their dialogs."""

    async def dialogs(*_args: Any) -> list[Any]:
        return []

    return patched_base(ModelStore, "dialogs", dialogs)


@contextmanager
def patched_base(owner: type, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute that a class inherits."""
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name)


def blind_states() -> Patch:
    """Do not look whether a state was changed since it was read."""

    def execute(former: Any, connection: Any, statements: Sequence[Any]) -> None:
        blind = [one._replace(unless=None) if isinstance(one.unless, StoreConflict) else one for one in statements]
        former(connection, blind)

    return wrapped(database, "execute", execute)


# ── the member ────────────────────────────────────────────────────────────────────────────────────────────────────────


def without_note(kind: type) -> Callable[[], Patch]:
    """Return what drops all notes of a kind, whoever sends them."""

    def notify(former: Any, server: Database, notes: Sequence[str]) -> None:
        former(server, [note for note in notes if f'"kind":"{kind.kind}"' not in note])  # type: ignore[attr-defined]

    return lambda: wrapped(Database, "notify", notify)


@contextmanager
def crashes_forgotten() -> Iterator[None]:
    """Take shards over as if their last owner had released them in order."""

    async def take(former: Any, handover: Handover, shards: frozenset[int], _after: frozenset[int]) -> None:
        await former(handover, shards, frozenset())

    def gain(former: Any, member: ClusterMember, shards: frozenset[int], _after: frozenset[int]) -> None:
        former(member, shards, frozenset())

    with wrapped(Handover, "take", take), wrapped(ClusterMember, "_gain", gain):
        yield


# ── the handover ──────────────────────────────────────────────────────────────────────────────────────────────────────


def without_draining() -> Patch:
    """Give shards up although handlers run there."""
    return patched(Scheduler, "busy", property(lambda _scheduler: set()))


def without_last_write() -> Patch:
    """Give shards up before what was deferred is stored."""

    class Forgetful:
        write, waiting = staticmethod(nothing_async), ()

        def __init__(self, behind: WriteBehind) -> None:
            self._behind = behind

        def __getattr__(self, name: str) -> Any:
            return getattr(self._behind, name)

    def init(former: Any, handover: Any, *args: Any, **options: Any) -> None:
        former(handover, *args, **options)
        vars(handover)["_write_behind"] = Forgetful(vars(handover)["_write_behind"])

    return wrapped(Handover, "__init__", init)


def without_rows() -> Patch:
    """Take threads over without their pending actions."""

    def create(former: Any, handover: Handover, records: Any, _actions: Any, polled_ms: int | None) -> None:
        former(handover, records, (), polled_ms)

    return wrapped(Handover, "_create_lanes", create)


def route_anywhere() -> Patch:
    """Hand actions to lanes of threads that another process owns."""

    def route(former: Any, scheduler: Any, rows: Any) -> None:
        with patched(BotContext, "owns", lambda _context, _thread: True):
            former(scheduler, rows)

    return wrapped(Scheduler, "route", route)


# ── commits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def commits_without_shards(*, of_lanes: bool) -> Callable[[], Patch]:
    """Return what leaves the shards out of the commits of lanes, or of those of the write-behind."""

    async def commit(former: Any, context: Any, writes: Any, *, threads: Any = None, place: str = "") -> None:
        is_lane = bool(place)
        if threads and NO_THREAD not in threads and is_lane is of_lanes:
            threads = None
        await former(context, writes, threads=threads, place=place)

    return lambda: wrapped(BotContext, "commit", commit)


def marked_before_commit() -> Patch:
    """Take an event for handled before that is stored."""

    async def commit(former: Any, commits: ThreadCommits, writes: Any, seen: dict[int, int]) -> None:
        commits.cursor.mark(seen)
        await former(commits, writes, seen)

    return wrapped(ThreadCommits, "commit", commit)


def base_before_events() -> Patch:
    """Raise the base of the cursor to what a poll has just shown, before its events are handled."""

    def note(former: Any, poller: Any, poll: Any, batch: Any, **options: Any) -> None:
        former(poller, poll, batch, **options)
        if batch:
            commits, top = poller._commits, max(message.version for message in batch)  # noqa: SLF001 - a variant
            commits.cursor.finish_full_poll(top)
            commits.raise_base(top)

    return wrapped(ThreadPoller, "_note_batch", note)


def sent_before_commit() -> Patch:
    """Hand actions to the outbox before they are stored."""

    async def commit(former: Any, commits: ThreadCommits, writes: Any, seen: dict[int, int]) -> None:
        for write in writes:
            if isinstance(write, Enqueue) and write.row.thread == commits.state.key:
                commits.outbox.add(write.row)
        await former(commits, writes, seen)

    return wrapped(ThreadCommits, "commit", commit)


def never_written_behind() -> Patch:
    """Run the write-behind no more after somebody else has written: an error that the simulation has found."""

    async def write(former: Any, behind: Any) -> None:
        event = vars(behind)["_requested"]
        await former(behind)
        if vars(behind)["_requested"] is event:
            vars(behind)["_requested"] = type(event)()

    return wrapped(WriteBehind, "write", write)


def dropped_at_stop() -> Patch:
    """Forget what is being stored when the bot is stopped: an error that the simulation has found."""

    async def write(former: Any, behind: Any, taken: Mapping[ThreadCommits, Any]) -> None:
        try:
            await former(behind, taken)
        except CancelledError:
            for commits in taken:
                commits.take_deferred()
            raise

    return wrapped(WriteBehind, "_write", write)


# ── replies ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def key_without_part() -> Patch:
    """Give all actions of a handler one key."""
    return wrapped(action_buffer, "action_key", lambda former, *args: former(*args[:4], 0))


def without_proof() -> Patch:
    """Send what an earlier process has left pending, without looking whether it was sent."""

    def init(former: Any, box: Outbox, *args: Any, **options: Any) -> None:
        former(box, *args, **options)
        box._unproven = frozenset()  # noqa: SLF001 - a variant

    return wrapped(Outbox, "__init__", init)


def younger_kept() -> Patch:
    """Delete the elder of two equal messages."""

    def healed(key: Any, seen: Any, other: Any, *, is_edited_soon: bool) -> Healing:
        found = heal(key, seen, other, is_edited_soon=is_edited_soon)
        elder, younger = found.kept, found.deleted
        return Healing(younger, elder, ((healing_key(key, younger), DeleteMessage(elder)),))

    return patched(outbox, "heal", healed)


def doubles_stay() -> Patch:
    """Do not heal."""

    async def confirm(*_args: Any) -> list[Any]:
        return []

    return patched(Outbox, "confirm", confirm)


def silent() -> Patch:
    """Lose all notes until everything else is healed."""

    def init(former: Any, server: Database, *args: Any, **options: Any) -> None:
        former(server, *args, **options)
        server.loses_notes = True

    return wrapped(Database, "__init__", init)


def no_op(owner: Any, name: str, *, is_async: bool = False) -> Callable[[], Patch]:
    """Return what makes a method do nothing."""
    return lambda: patched(owner, name, nothing_async if is_async else nothing)


VARIANTS: Final = (
    Variant("fence removed", rule(checks_fence=False)),
    Variant("epoch not raised", rule(raises_epoch=False)),
    Variant("silent sessions not ended", rule(ends_silent_sessions=False)),
    Variant("deadline off", no_op(ClusterMember, "permit", is_async=True)),
    Variant("deadline too late", late_deadline),
    Variant("work before losses are told", held_before_losses_are_told),
    Variant("retake with another's epoch", retake_foreign_epoch),
    Variant("lost shards kept after a reconnect", retake_nothing),
    Variant("losses not passed on", no_op(Handover, "lose")),
    Variant("lanes kept after a release", no_op(Scheduler, "remove")),
    Variant("release without draining", without_draining),
    Variant("release before the deferred writes", without_last_write),
    Variant("claim without pending actions", without_rows),
    Variant("claim without dialogs", dialogs_not_loaded),
    Variant("claim without noting crashes", crashes_forgotten),
    Variant("timers loaded twice", fired_timers_stay),
    Variant("timers of others kept", no_op(Conversations, "forget")),
    Variant("gained threads not listed again", no_op(ThreadWatcher, "list_again")),
    Variant("actions handed to any lane", route_anywhere),
    Variant("forwarded threads dropped", without_note(ThreadsListed)),
    Variant("every replica lists threads", lambda: patched(BotContext, "owns_bot", property(lambda _context: True))),
    Variant("commits of lanes without shards", commits_without_shards(of_lanes=True)),
    Variant("write-behind without shards", commits_without_shards(of_lanes=False)),
    Variant("write-behind stops after a release", never_written_behind),
    Variant("write-behind drops what a stop interrupts", dropped_at_stop),
    Variant("cursor marked before the commit", marked_before_commit),
    Variant("cursor base early", base_before_events),
    Variant("states written without their versions", blind_states),
    Variant("actions sent before they are stored", sent_before_commit),
    Variant("key without its part", key_without_part),
    Variant("pending actions sent without proof", without_proof),
    Variant("the elder of two doubles deleted", younger_kept),
    Variant("doubles not healed", doubles_stay),
    Variant("notes of canceled timers dropped", without_note(TimersDropped), is_harmless=True),
    Variant("notes of actions dropped", without_note(ActionsAdded)),
    Variant("notes to list again dropped", without_note(ListAgain), is_harmless=True),
    Variant("all notes dropped until the end", silent, is_harmless=True),
)
