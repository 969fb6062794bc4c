"""What all parts of one bot work with: its identity, settings, service, store, clocks, log and quotas.

`BotContext` stands below every other part of the bot, so that no part needs the bot itself. It commits to the store,
because every commit has the same consequences: conversations learn what was written, and the store works again.
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
"""A newly joined thread is read from the bot's arrival on."""

ALL_HISTORY: Final = timedelta.max
"""A newly joined thread is read from its beginning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BotSettings:
    """Settings of one bot.

    Args:
        threads: the only threads to serve; None serves every thread the bot is in, found as they appear.
        history: how far before its arrival a newly joined thread is read.
        cadence: how often to poll.
        rejoin: how long replies wait for a bot that was removed from their thread; then they fail.
        retention: how long settled actions are kept, for edits of old messages and for proofs; and how long timers and
            dialogs wait for a bot that was removed from their thread.
        slack_ms: how much later than its id says a message may become visible and still be handled.
        timeout: seconds that one attempt of a handler may take if the handler sets no limit itself; None for no limit.
        max_turns: lanes that run at one time; those whose handlers run, or wait to run, do not count.
        max_handlers: handlers that run at one time.
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
"""Stands in the store, and among lanes, for events outside threads."""

OnFailure = Callable[[Event | None, Exception], None]


@dataclass(slots=True, kw_only=True, eq=False)
class BotContext:
    """The environment of one bot, which all its parts share.

    Args:
        name: the bot's name in bots.yaml and in the logs.
        user: its identity.
        service: its view of the service.
        store: its memory, opened by the caller.
        conversations: dialogs, timers and states; they learn from each commit.
        settings: how it behaves.
        display_name: the name its messages show.
        first_started_ms: the service's time, epoch ms, of this identity's first start.
        clock: wall time in epoch seconds.
        log: bound to the bot.
        monitor: heartbeats of the pollers, and the observer for metrics.
        tracer: follows the work, for the log and for traces.
        ongoing: what fails at the moment.
        failures: which failures of handlers are known already.
        degraded: why the bot does not work as it should although a restart would not help.
        shared: quotas that the bots of this process share.
        budget: the bot's quotas outside threads.
        on_failure: called with each failure of a handler (with its event) or of a lane.
        is_stopping: nothing new is begun; what is in hand is finished.
        was_killed: the process before this one did not stop by itself.
        paused_ms: when an operator paused the bot, epoch ms; nobody runs it then. None if it is not paused.
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
        """Return whether bots.yaml wants the bot in this thread."""
        return self.settings.threads is None or thread in self.settings.threads

    async def commit(self, writes: Sequence[Write], *, place: str = "") -> None:
        """Write to the store, all or nothing.

        Conversations learn what was written only once it is durable: what they knew before a commit that fails would
        be lost with the process.

        Args:
            writes: what to write.
            place: the thread whose failures of the store are over when this succeeds.

        Raises:
            StoreError: nothing was written.
        """
        with self.tracer.commit():
            await self.store.commit(self.user, writes)
            self.conversations.apply(writes)
        self.ongoing.record_success("store", place=place)

    async def find_made(self, messages: Collection[MessageId]) -> frozenset[MessageId]:
        """Return which of these messages came of the bot's actions."""
        return await self.store.made(self.user, messages)

    async def find_row(self, key: ActionKey) -> OutboxRow | None:
        """Return the row of an action, settled or not."""
        return await self.store.row(self.user, key)

    def report_failure(self, event: Event | None, error: Exception) -> None:
        """Pass a failure on to whoever asked for failures; tests let them surface."""
        if self.on_failure is not None:
            self.on_failure(event, error)
