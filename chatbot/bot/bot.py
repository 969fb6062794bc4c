"""One bot: find its threads, run their lanes, and stop in order.

Nothing outlives `run`. On a stop, no new poll begins, running turns finish their current event, outboxes drain, and
`run` returns. A handler's failure is logged. Only an unexpected error ends `run` with an exception, and the supervisor
starts the bot again.

A start restores the stored state, see `Handover`.
`Maintenance` runs periodically: it deletes settled records, stores that time, and logs summaries of failures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel

from chatbot.bot.commits import WriteBehind
from chatbot.bot.degraded import BOT_RESTARTING, HANDLER_ABANDONED, SETTLED_SECONDS, Degraded, DegradedReasons
from chatbot.bot.discovery import ThreadWatcher
from chatbot.bot.environment import NO_THREAD, BotContext, BotSettings, OnFailure
from chatbot.bot.failure_log import OngoingFailures, RepeatedFailures
from chatbot.bot.handlers import HandlerRunner
from chatbot.bot.handover import Handover
from chatbot.bot.membership import Presence
from chatbot.bot.monitoring import STALLED_SECONDS, Monitor, NoObserver, NoTracer, Observer, Tracer
from chatbot.bot.ownership import Everything, Ownership
from chatbot.bot.retries import AttemptJournal
from chatbot.bot.scheduler import Scheduler
from chatbot.cluster.notes import BotNote, LettersChanged
from chatbot.conversation import Conversations
from chatbot.dispatch import Dispatcher, HandlerSource
from chatbot.dispatch.author_code import Uncancelled
from chatbot.errors import NotOwner, StoreError, kind_of
from chatbot.events import BotStarted, ThreadEvent
from chatbot.model import ThreadId, UserId
from chatbot.service.base import ChatService
from chatbot.service.budget import SharedQuotas
from chatbot.stores.base import Store
from chatbot.stores.records import DeadLetter
from chatbot.stores.writes import DropDeadLetter, MoveHorizon, Prune, RequestRetry, Write

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

MAX_SLEEP: Final = 3600.0
"""Maximum seconds until the timers are checked again, because the clock may have been changed."""

SERVICE_TIME_SECONDS: Final = 5.0
"""Maximum seconds for which timers wait, after a start, until the service has reported its time."""

THREADS_AT_ONCE: Final = 1_000
"""Threads that maintenance looks through before other work has its turn."""


class Bot:
    """One bot on one service.

    Args:
        name: Name in bots.yaml and in the logs.
        service: The service, accessed as the bot.
        store: The store, opened by the caller.
        dispatcher: The handlers.
        settings: Settings of the bot.
        display_name: Sender name shown with its messages.
        first_started_ms: Service time of this identity's first start, epoch ms.
        shared: Quotas shared by the bots of this process; by default not shared.
        clock: Wall time in epoch seconds.
        on_failure: Called with each failure of a handler (and its event) or of a lane; tests raise them.
        observer: Receives observations, for metrics.
        tracer: Traces the work, for logs and traces.
        log: Logger; the bot's name is bound to it here.
        ownership: Which threads this process serves; by default all.

    Attributes:
        context: Environment shared by all parts of the bot.
        handlers: Runs handlers.
        scheduler: Holds the lanes and runs them.
        watcher: Polls the thread list.
        is_started: The loops of the bot are running.
    """

    def __init__(
        self,
        *,
        name: str,
        service: ChatService,
        store: Store,
        dispatcher: Dispatcher,
        settings: BotSettings | None = None,
        display_name: str = "",
        first_started_ms: int = 0,
        shared: SharedQuotas | None = None,
        clock: Callable[[], float] = time.time,
        on_failure: OnFailure | None = None,
        observer: Observer | None = None,
        tracer: Tracer | None = None,
        log: FilteringBoundLogger | None = None,
        ownership: Ownership | None = None,
    ) -> None:
        ownership = ownership or Everything()
        log = (log or _default_log()).bind(bot=name)
        self.context = context = BotContext(
            name=name,
            user=service.user,
            service=service,
            store=store,
            conversations=Conversations(
                service.user,
                store,
                clock=clock,
                shards=lambda thread: ownership.shards(service.user, (thread or NO_THREAD,)),
            ),
            settings=settings or BotSettings(),
            display_name=display_name or name,
            first_started_ms=first_started_ms,
            clock=clock,
            log=log,
            monitor=Monitor(observer or NoObserver()),
            tracer=tracer or NoTracer(),
            ongoing=OngoingFailures(log, anyio.current_time),
            failures=RepeatedFailures(log),
            degraded=DegradedReasons(),
            shared=shared or SharedQuotas(),
            on_failure=on_failure,
            ownership=ownership,
        )
        context.shared.users.add(context.user)
        for source in (context.ongoing.degraded, self._restarts, self._abandoned_handlers):
            context.degraded.add_source(source)
        self.handlers = HandlerRunner(context, dispatcher)
        self._attempts = AttemptJournal(context)
        self._write_behind = WriteBehind(context)
        self.scheduler = Scheduler(context, self.handlers, self._attempts, self._write_behind)
        self.watcher = ThreadWatcher(context, self.scheduler)
        self._handover = Handover(
            context, self.scheduler, self._write_behind, self.watcher, self.handlers, self.queue_letter
        )
        self._maintenance = Maintenance(context, self.scheduler, self.watcher, self._handover)
        self.is_started = False
        self._running_since = 0.0
        self._crashed_at: float | None = None
        self._crashed_with = ""

    @property
    def name(self) -> str:
        """Name in bots.yaml and in the logs."""
        return self.context.name

    @property
    def user(self) -> UserId:
        """User id of the bot."""
        return self.context.user

    # ── running ───────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self, stopping: anyio.Event) -> None:
        """Poll, handle, commit and send until `stopping` is set; then finish running work and return.

        Raises:
            StoreError: The store could not be read at the start.
        """
        try:
            await self._run(stopping)
        except Exception as error:
            self._crashed_at, self._crashed_with = anyio.current_time(), kind_of(error)
            raise
        finally:
            self.is_started = False
            self._handover.end()

    async def _run(self, stopping: anyio.Event) -> None:
        context, scheduler = self.context, self.scheduler
        context.is_stopping = False
        await self._handover.restore()
        context.log.info("bot.started", user_id=context.user, threads=len(scheduler.lanes))
        async with self.handlers.generations:
            await self._announce_start()
            async with anyio.create_task_group() as group:
                group.start_soon(self._run_forever, self.watcher.run, "thread watcher")
                group.start_soon(self._run_forever, scheduler.run, "scheduler")
                group.start_soon(self._run_forever, self._write_behind.run, "write-behind")
                group.start_soon(self._run_forever, self._maintenance.run, "maintenance")
                group.start_soon(self._run_forever, self._run_timers, "timer loop")
                group.start_soon(self._run_forever, self._attempts.run, "journal of long handlers")
                group.start_soon(self._run_forever, self._announce_takeovers, "announcer")
                self.is_started, self._running_since = True, anyio.current_time()
                await stopping.wait()
                if context.owns_bot:
                    await self._handover.announce_stop()
                context.is_stopping = True
                scheduler.interrupt()
                await self._drain()
                group.cancel_scope.cancel()
        await self._write_behind.write()
        await self._handover.count_kills()
        await self._maintenance.save_horizon()
        context.failures.log_summary(anyio.current_time())
        context.log.info("bot.stopped", unsent=sum(len(lane.commits.outbox) for lane in scheduler.all_lanes))

    async def _announce_start(self) -> None:
        if self._handover.take_start():
            await self.scheduler.announce(BotStarted(bot=self.context.user, occurred_on=self.context.now))

    async def _announce_takeovers(self) -> None:
        """Run the handlers of the start whenever this process takes over what belongs to no thread, until canceled."""
        while True:
            await self._handover.wait_for_start()
            await self._announce_start()

    async def _run_forever(self, loop: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Run a loop that must not end; if it ends for any reason, raise an error that ends the bot.

        Otherwise a loop that was canceled by foreign code would end silently, and the bot would continue without its
        scheduler.
        """
        async with Uncancelled():
            await loop()
        if self.context.is_stopping and loop == self.watcher.run:
            return  # a stopping bot no longer polls the thread list, while running handlers may still take long
        msg = f"the {name} ended by itself"
        raise RuntimeError(msg)

    async def _run_timers(self) -> None:
        """Schedule a turn of each lane with a due timer, dialog or schedule."""
        conversations = self.context.conversations
        with anyio.move_on_after(SERVICE_TIME_SECONDS):
            # A machine whose clock is wrong learns the time from the service's first answer.
            await self.watcher.answered.wait()
        while True:
            changed = conversations.changed
            for thread in conversations.collect_due():
                self.scheduler.schedule(thread or NO_THREAD)
            due = conversations.next_due_ms()
            pause = MAX_SLEEP if due is None else (due - conversations.now_ms) / 1000
            with anyio.move_on_after(max(0.0, min(MAX_SLEEP, pause))):
                await changed.wait()

    async def _drain(self) -> None:
        """Wait for running turns, then run only lanes with pending actions or receipts."""
        scheduler = self.scheduler
        scheduler.clear()
        while True:
            pending = {thread for thread, lane in scheduler.lanes.items() if lane.has_pending_work}
            if not scheduler.working and not pending:
                return
            scheduler.schedule_idle(pending)
            await scheduler.ended.wait()

    async def use_plugins(self, plugins: Iterable[HandlerSource]) -> None:
        """Replace the plugins for the next events; running events finish with the old ones.

        Raises:
            PluginError: The plugins conflict with each other; nothing was changed.
            Exception: A provider failed; nothing was changed.
        """
        old = self.handlers.dispatcher
        new = old.with_plugins(plugins)
        await self.handlers.generations.replace(new)
        is_paused = self.context.paused_ms is not None  # it reads its schedules when it is resumed
        is_owned = self.context.owns_bot  # or when it is taken over
        if new.schedules != old.schedules and is_owned and not is_paused:
            await self.context.conversations.reschedule(new.schedules)

    # ── several processes ─────────────────────────────────────────────────────────────────────────────────────────

    async def take(self, shards: frozenset[int], after_crash: frozenset[int]) -> None:
        """Serve the threads of these shards from now on; see `Handover.take`."""
        await self._handover.take(shards, after_crash)

    async def release(self, shards: frozenset[int], released: Callable[[frozenset[int]], None]) -> None:
        """Finish the work in these shards; see `Handover.release`."""
        await self._handover.release(shards, released)

    @property
    def has_taken_all(self) -> bool:
        """Whether the bot serves all threads that this process owns; see `Handover.has_taken_all`."""
        return self._handover.has_taken_all

    def lose(self, shards: frozenset[int]) -> None:
        """Drop the work in these shards at once; see `Handover.lose`."""
        self._handover.lose(shards)

    async def receive(self, note: BotNote) -> None:
        """Do what another process asks for; see `Handover.receive`."""
        await self._handover.receive(note)

    # ── dead letters ──────────────────────────────────────────────────────────────────────────────────────────

    async def retry_letter(self, letter: DeadLetter) -> bool:
        """Retry a dead letter now; return False if the bot is not in its thread.

        The request is stored first, so that after a crash the next process retries the letter.

        Raises:
            StoreError: The request could not be stored; the letter is not retried.
        """
        if not self.can_retry(letter):
            return False
        await self.context.commit([RequestRetry(letter.id)])
        return self.queue_letter(letter)

    def owns_letter(self, letter: DeadLetter) -> bool:
        """Return whether a retry of a dead letter would be made in this process."""
        return self._handover.owns_letter(letter)

    def can_retry(self, letter: DeadLetter) -> bool:
        """Return whether the bot is in the thread of a dead letter, or the letter has no thread."""
        if not isinstance(letter.event, ThreadEvent):
            return True
        lane = self.scheduler.lanes.get(letter.event.thread)
        return lane is not None and not lane.membership.is_out

    def queue_letter(self, letter: DeadLetter) -> bool:
        """Pass a letter with a stored request to its lane; return False if the bot is not in the thread."""
        if not self.can_retry(letter):
            return False
        thread = letter.event.thread if isinstance(letter.event, ThreadEvent) else NO_THREAD
        lane = self.scheduler.lanes[thread] if thread else self.scheduler.threadless_lane
        lane.retry_letter(letter)
        self.scheduler.schedule(thread)
        return True

    async def drop_letter(self, letter: DeadLetter) -> None:
        """Drop a dead letter, even if a retry of it is pending.

        Raises:
            StoreError: It could not be dropped.
        """
        for lane in self.scheduler.all_lanes:  # first, so that a running attempt does not store the letter again
            lane.drop_letters(lambda waiting: waiting.id == letter.id)
        await self.context.commit([DropDeadLetter(letter.id)])
        self.context.ownership.tell(LettersChanged(self.user, (letter.id,)))

    # ── erasure ───────────────────────────────────────────────────────────────────────────────────────────────

    def erase(self, user: UserId) -> None:
        """Erase a person from memory: pending actions, pending retries and timers. The store is erased separately."""
        self.context.conversations.erase(user)
        for lane in self.scheduler.all_lanes:
            lane.erase(user)

    async def finish_takeover(self) -> None:
        """Wait until threads that are being taken over are in memory, so that `erase` finds all of them."""
        await self._handover.finish_takeover()

    async def wait_for_turns(self, *, timeout: float) -> bool:
        """Wait until the turns that are running now have ended; return False if `timeout` seconds do not suffice."""
        turns = dict(self.scheduler.working)
        with anyio.move_on_after(timeout):
            while any(self.scheduler.working.get(thread) == turn for thread, turn in turns.items()):
                await self.scheduler.ended.wait()
            return True
        return False

    # ── status, for health checks and tests ───────────────────────────────────────────────────────────────────

    def long_running_writes(self, now: float) -> list[Write]:
        """Return the writes that record long-running handlers, for a process that is about to end. Thread-safe."""
        long = [
            lane.retries.long_running_write() for lane in self.scheduler.all_lanes if lane.retries.is_long_running(now)
        ]
        return [write for write in long if write is not None]

    def running_handlers(self, now: float) -> list[str]:
        """Return a description of each running handler: name, place, thread and duration. Thread-safe."""
        found = [lane.retries.running(now) for lane in self.scheduler.all_lanes]
        return [running for running in found if running is not None]

    def is_restarting(self, now: float) -> bool:
        """Return whether the bot ended unexpectedly and is about to be started again by its supervisor."""
        return not self.is_started and self._crashed_at is not None and now - self._crashed_at < STALLED_SECONDS

    def _restarts(self, now: float) -> Iterator[Degraded]:
        """Yield a degraded reason after an unexpected end, until the bot has been running again for a while."""
        if self._crashed_at is None or (self.is_started and now - self._running_since >= SETTLED_SECONDS):
            return
        detail = f"the bot ended with {self._crashed_with}: see bot.crashed in the log"
        yield Degraded(BOT_RESTARTING, detail, now - self._crashed_at)

    def _abandoned_handlers(self, now: float) -> Iterator[Degraded]:
        for (user, thread), handler in self.context.shared.abandoned.items():
            if user == self.user:
                where = f"in thread {thread}" if thread else "in no thread"
                detail = (
                    f"the handler {handler.name} ({handler.place}) {where} did not end after it was canceled;"
                    " no other event is handled there until it ends or the process is restarted"
                )
                yield Degraded(HANDLER_ABANDONED, detail, now - handler.since)

    def is_settled(self, thread: ThreadId, version: int) -> bool:
        """Return whether everything in a thread up to a version is handled, and no action or receipt is pending."""
        scheduler = self.scheduler
        lane = scheduler.lanes.get(thread)
        if lane is None or thread in scheduler.working or not scheduler.is_idle:
            return False
        if lane.membership.presence is not Presence.IN:
            return lane.membership.is_out
        is_due = self.context.conversations.is_due(thread)
        return not is_due and lane.commits.cursor.top >= version and lane.is_settled

    async def wait_until_idle(self) -> None:
        """Wait until no event outside threads is pending."""
        while not self.scheduler.is_idle:
            with anyio.move_on_after(self.context.settings.cadence.interval):
                await self.scheduler.ended.wait()

    async def wait_until_settled(self, thread: ThreadId, version: int) -> None:
        """Wait until `is_settled` for this thread and version; polls the thread immediately."""
        while not self.is_settled(thread, version):
            self.scheduler.schedule(thread)
            # Request the next turn only after a pause: a turn that must wait for a quota ends at once.
            with anyio.move_on_after(self.context.settings.cadence.interval):
                while not self.is_settled(thread, version):
                    await self.scheduler.ended.wait()


class Maintenance:
    """Periodic maintenance of one bot.

    Args:
        context: The bot's environment.
        scheduler: Holds the threads whose expired requests are dropped.
        watcher: Knows up to when everything is settled.
        handover: Finds what lost notes would have told.
    """

    def __init__(self, context: BotContext, scheduler: Scheduler, watcher: ThreadWatcher, handover: Handover) -> None:
        self._context = context
        self._scheduler = scheduler
        self._watcher = watcher
        self._handover = handover

    async def run(self) -> None:
        """Run maintenance periodically until canceled."""
        while True:
            self._context.failures.log_summary(anyio.current_time())
            before_ms = int((self._context.clock() - self._context.settings.retention.total_seconds()) * 1000)
            if self._context.owns_bot:
                await self._commit([Prune(before_ms), *self._horizon()])
            if self._context.ownership.is_shared:
                await self._handover.find_missed()
            await self._expire_budgets()
            await anyio.sleep(self._context.settings.maintenance)

    async def _expire_budgets(self) -> None:
        """Drop expired requests of silent threads, some threads at a time.

        Their next polls may be many minutes away, and what the last one has counted takes more memory than a lane.
        """
        now = anyio.current_time()
        for number, lane in enumerate(list(self._scheduler.lanes.values()), 1):
            lane.state.budget.expire(now)
            if not number % THREADS_AT_ONCE:
                await anyio.lowlevel.checkpoint()

    async def save_horizon(self) -> None:
        """Store which threads the next start need not poll at once; losing it only costs polls."""
        horizon = self._horizon()
        if horizon and self._context.owns_bot:
            await self._commit(horizon)

    def _horizon(self) -> list[Write]:
        if self._context.settings.threads is not None:
            return []  # the horizon applies to all threads, and the next run may serve other threads
        settled_ms = self._watcher.settled_ms()
        return [] if settled_ms is None else [MoveHorizon(settled_ms)]

    async def _commit(self, writes: Sequence[Write]) -> None:
        try:
            await self._context.commit(writes, threads=(NO_THREAD,))
        except NotOwner:
            pass  # the process that owns the bot does it
        except StoreError as error:
            self._context.ongoing.record_failure("store", error)


def _default_log() -> FilteringBoundLogger:
    # Imported here, so that importing the package does not import a logging library.
    import structlog

    log: FilteringBoundLogger = structlog.get_logger("chatbot")
    return log
