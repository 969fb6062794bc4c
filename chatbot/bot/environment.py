"""Environment of one bot, shared by all its parts: identity, settings, service, store, clocks, log and quotas.

`BotContext` is below every other part of the bot, so that no part needs the bot itself. It commits to the store,
because every commit has the same consequences: conversations apply the writes, and failures of the store have ended.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from chatbot.actions import ActionKey
from chatbot.bot.degraded import DegradedReasons
from chatbot.bot.failure_log import OngoingFailures, RepeatedFailures
from chatbot.bot.monitoring import Monitor, Tracer
from chatbot.bot.ownership import Everything, Ownership
from chatbot.cluster.notes import ActionsAdded, BotNote, TimersDropped, encode
from chatbot.conversation import Conversations
from chatbot.events import Event
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.polling.cadence import Cadence
from chatbot.polling.cursor import DEFAULT_SLACK_MS
from chatbot.service.base import ChatService
from chatbot.service.budget import Budget, SharedQuotas
from chatbot.stores.base import Store
from chatbot.stores.records import OutboxRow
from chatbot.stores.shards import shard_of, shard_of_bot
from chatbot.stores.writes import DropTimer, Enqueue, Write

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

NO_HISTORY: Final = timedelta(0)
"""Read a newly joined thread from the bot's arrival on."""

ALL_HISTORY: Final = timedelta.max
"""Read a newly joined thread from its beginning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BotSettings:
    """Settings of one bot.

    Args:
        threads: The only threads to serve; None serves every thread that the bot is in.
        history: How far before the bot's arrival a newly joined thread is read.
        cadence: Polling intervals.
        rejoin: How long replies wait for a bot that was removed from their thread; then they fail.
        retention: How long settled actions are kept, for edits of old messages and for proofs, and how long timers and
            dialogs wait for a bot that was removed from their thread.
        slack_ms: How much later than its id says a message may become visible and still be handled.
        timeout: Seconds for one attempt of a handler that sets no limit itself; None for no limit.
        max_turns: Maximum number of concurrent lanes; lanes that run handlers or wait for a slot do not count.
        max_handlers: Maximum number of concurrent handlers.
        maintenance: Seconds between two runs of maintenance, which prunes the store.
    """

    threads: frozenset[ThreadId] | None = None
    history: timedelta = NO_HISTORY
    cadence: Cadence = field(default_factory=Cadence)
    rejoin: timedelta = timedelta(minutes=10)
    retention: timedelta = timedelta(days=30)
    slack_ms: int = DEFAULT_SLACK_MS
    timeout: float | None = 600.0
    max_turns: int = 64
    max_handlers: int = 32
    maintenance: float = 60.0


NO_THREAD: Final = ThreadId("")
"""The thread key of events outside threads, in the store and among lanes."""

OnFailure = Callable[[Event | None, Exception], None]


@dataclass(slots=True, kw_only=True, eq=False)
class BotContext:
    """The environment of one bot, shared by all its parts.

    Args:
        name: Name in bots.yaml and in the logs.
        user: User id of the bot.
        service: The service, accessed as the bot.
        store: The store, opened by the caller.
        conversations: Dialogs, timers and states; they apply each commit.
        settings: Settings of the bot.
        display_name: Sender name shown with its messages.
        first_started_ms: Service time of this identity's first start, epoch ms.
        clock: Wall time in epoch seconds.
        log: Logger bound to the bot.
        monitor: Heartbeats of the pollers, and the observer for metrics.
        tracer: Traces the work, for logs and traces.
        ongoing: Ongoing failures.
        failures: Known failures of handlers.
        degraded: Reasons why the bot is impaired in a way that a restart does not fix.
        shared: Quotas shared by the bots of this process.
        budget: Quotas of the bot outside threads.
        ownership: Which threads this process serves.
        loaded: Shards in whose threads new work may begin here: what the store holds of them was read. Used only if the
            ownership is shared.
        crashed: Shards that were taken over from a process that did not release them in order.
        on_failure: Called with each failure of a handler (and its event) or of a lane.
        is_stopping: No new work is begun; running work is finished.
        was_killed: The previous process did not end in order.
        paused_ms: When an operator paused the bot, epoch ms; a paused bot does not run. None if it is not paused.
    """

    name: str
    user: UserId
    service: ChatService
    store: Store
    conversations: Conversations
    settings: BotSettings
    display_name: str
    first_started_ms: int
    clock: Callable[[], float]
    log: FilteringBoundLogger
    monitor: Monitor
    tracer: Tracer
    ongoing: OngoingFailures
    failures: RepeatedFailures
    degraded: DegradedReasons
    shared: SharedQuotas
    budget: Budget = field(default_factory=Budget)
    ownership: Ownership = field(default_factory=Everything)
    loaded: set[int] = field(default_factory=set)
    crashed: set[int] = field(default_factory=set)
    on_failure: OnFailure | None = None
    is_stopping: bool = False
    was_killed: bool = False
    paused_ms: int | None = None

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)

    def serves(self, thread: ThreadId) -> bool:
        """Return whether the bot's settings include this thread."""
        return self.settings.threads is None or thread in self.settings.threads

    def owns(self, thread: ThreadId) -> bool:
        """Return whether this process serves a thread. The thread may be unknown yet."""
        return not self.ownership.is_shared or shard_of(thread) in self.loaded

    @property
    def owns_bot(self) -> bool:
        """Whether this process runs what belongs to the bot and to no thread: its thread list, its schedules."""
        return not self.ownership.is_shared or shard_of_bot(self.user) in self.loaded

    def is_suspicious(self, thread: ThreadId) -> bool:
        """Return whether a handler in this thread may have killed the process that served it before."""
        if self.was_killed or not self.crashed:
            return self.was_killed
        return not self.crashed.isdisjoint(self.ownership.shards(self.user, (thread,)))

    async def commit(
        self, writes: Sequence[Write], *, threads: Sequence[ThreadId] | None = None, place: str = ""
    ) -> None:
        """Commit writes to the store, all or nothing.

        Conversations apply the writes only once they are durable. Applied before a commit that fails, they would be in
        memory only, and would be lost with the process.

        Args:
            writes: The writes.
            threads: Threads whose lanes make these writes, `NO_THREAD` included: a shared store refuses them if another
                process owns one. None for an operator, whose writes need no owner.
            place: Thread whose store failure has ended if this succeeds.

        Raises:
            NotOwner: Another process owns one of the threads; nothing was written.
            StoreError: Nothing was written.
        """
        ownership = self.ownership
        with self.tracer.commit():
            if ownership.is_shared:
                shards = ownership.shards(self.user, threads) if threads else ()
                notes = [text for note in self._notes_of(writes) for text in encode(note)]
                await self.store.commit(self.user, writes, shards=shards, notes=notes)
            else:
                await self.store.commit(self.user, writes)
            self.conversations.apply(writes)
        self.ongoing.record_success("store", place=place)

    def _notes_of(self, writes: Sequence[Write]) -> list[BotNote]:
        """Return what other processes must hear of these writes: what they do to threads that are not served here."""
        owns, knows = self.owns, self.conversations.knows_timer
        rows = [write.row for write in writes if isinstance(write, Enqueue) and not owns(write.row.thread)]
        timers = [write.id for write in writes if isinstance(write, DropTimer) and not knows(write.id)]
        notes: list[BotNote] = []
        if rows:
            notes.append(ActionsAdded(self.user, tuple((row.thread, row.key) for row in rows)))
        if timers:
            notes.append(TimersDropped(self.user, tuple(timers)))
        return notes

    async def find_made(self, messages: Collection[MessageId]) -> frozenset[MessageId]:
        """Return those of these messages that the bot's actions created, edited or deleted."""
        return await self.store.made(self.user, messages)

    async def find_row(self, key: ActionKey) -> OutboxRow | None:
        """Return the row of an action, settled or not."""
        return await self.store.row(self.user, key)

    def report_failure(self, event: Event | None, error: Exception) -> None:
        """Pass a failure to `on_failure`."""
        if self.on_failure is not None:
            self.on_failure(event, error)
