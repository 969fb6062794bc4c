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
from chatbot.conversation import Conversations
from chatbot.events import Event
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.polling.cadence import Cadence
from chatbot.polling.cursor import DEFAULT_SLACK_MS
from chatbot.service.base import ChatService
from chatbot.service.budget import Budget, SharedQuotas
from chatbot.stores.base import Store
from chatbot.stores.records import OutboxRow
from chatbot.stores.writes import Write

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

    async def commit(self, writes: Sequence[Write], *, place: str = "") -> None:
        """Commit writes to the store, all or nothing.

        Conversations apply the writes only once they are durable. Applied before a commit that fails, they would be in
        memory only, and would be lost with the process.

        Args:
            writes: The writes.
            place: Thread whose store failure has ended if this succeeds.

        Raises:
            StoreError: Nothing was written.
        """
        with self.tracer.commit():
            await self.store.commit(self.user, writes)
            self.conversations.apply(writes)
        self.ongoing.record_success("store", place=place)

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
