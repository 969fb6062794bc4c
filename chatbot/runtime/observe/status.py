"""Status of the process at one moment, including the last reload, for /status and /metrics."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import structlog
from msgspec import Struct

from chatbot.bot import Bot
from chatbot.bot.degraded import (
    CANARY_ALONE,
    CANARY_FAILED,
    RELOAD_REFUSED,
    SETTINGS_POSTPONED,
    SHARDS_REFUSED,
    Degraded,
    DegradedReasons,
)
from chatbot.bot.monitoring import STALLED_SECONDS
from chatbot.bot.status import BotStatus, report, stalled
from chatbot.cluster.canary import Counted
from chatbot.distribution import version
from chatbot.errors import StoreError
from chatbot.model import ThreadId
from chatbot.runtime.connection import Connection
from chatbot.runtime.observe.counters import BotCounters, Counts
from chatbot.runtime.watchdog import LoopWatchdog
from chatbot.stores.base import OwnedStore, Store
from chatbot.stores.records import Attempt
from chatbot.stores.writes import BeginAttempt, EndAttempt
from chatbot.worker_threads import run_in_thread

if TYPE_CHECKING:
    from chatbot.cluster.admission import Admission
    from chatbot.runtime.observe.sharing import SharingMonitor, SharingStatus


class Reloaded(Struct, frozen=True):
    """Result of a reload.

    Args:
        at: End of the reload, in epoch seconds.
        is_rejected: The reload found problems and changed nothing.
        postponed: Settings that need a restart to take effect.
        advice: What to do about a refused reload.
    """

    at: float
    is_refused: bool
    postponed: tuple[str, ...] = ()
    advice: str = ""


LOG_ADVICE: Final = "see reload.refused in the log"


class LastReload:
    """Holds the result of the last reload; None before the first.

    Args:
        clock: Returns epoch seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.reloaded: Reloaded | None = None

    def record(self, *, is_refused: bool, postponed: tuple[str, ...] = (), advice: str = LOG_ADVICE) -> None:
        """Record a reload. A refused reload keeps the postponed settings of the previous one: they still wait."""
        if is_refused and self.reloaded is not None:
            postponed = self.reloaded.postponed
        self.reloaded = Reloaded(self._clock(), is_refused, postponed, advice)


_PROBE_THREAD: Final = ThreadId("is the store writable?")
PROBE_WRITES: Final = (BeginAttempt(_PROBE_THREAD, Attempt("", 1)), EndAttempt(_PROBE_THREAD))
"""Writes that change pages of the database file and leave no data.

A write that changes no page would not reach the disk, so it would succeed even on a full one.
"""

_VERSION: Final = version()  # reads files, so it runs at import and not on the event loop


class ServedBot(Struct, frozen=True):
    """Status of one bot.

    Args:
        report: The state of the bot.
        counts: Its counters.
        dead_letters: Number of its dead letters; None if the store cannot be read.
    """

    report: BotStatus
    counts: Counts
    dead_letters: int | None


class Canary(Struct, frozen=True):
    """A process that takes a small share of the threads, to try code out.

    Args:
        share: The largest share, 0 to 1.
        shards: Number of shards it owns.
        has_handed_back: Its handlers failed more often than those of the others, and it has given its threads back.
        own: Events of the last minutes in this process.
        others: Those in the processes that take threads without a limit.
    """

    share: float
    shards: int
    has_handed_back: bool
    own: Counted
    others: Counted


class Status(Struct, frozen=True):
    """Status of the process.

    Args:
        started_on: Epoch seconds.
        now: Epoch seconds.
        tasks: Number of tasks on the event loop.
        memory: Resident memory in bytes; None if the system does not report it.
        unready: Reasons why the bots are not ready.
        reloaded: Result of the last reload; None if there was none.
        degraded: Reasons why the process as a whole is degraded; each bot has its own.
        sharing: The processes that share the store; None if one process has it alone.
        canary: What a canary has found out; None if the process is none.
    """

    version: str
    pid: int
    started_on: float
    now: float
    endpoint: str
    is_emulator: bool
    tasks: int
    memory: int | None
    bots: tuple[ServedBot, ...]
    unready: tuple[str, ...]
    reloaded: Reloaded | None = None
    degraded: tuple[Degraded, ...] = ()
    sharing: SharingStatus | None = None
    canary: Canary | None = None

    @property
    def missed(self) -> Mapping[str, Mapping[str, float]]:
        """Stalled pollers by bot, with the seconds by which they are overdue."""
        return {bot.report.name: bot.report.stalled for bot in self.bots if bot.report.stalled}

    @property
    def is_degraded(self) -> bool:
        """Whether anything is degraded, that is, impaired in a way that a restart does not fix."""
        return bool(self.degraded) or any(bot.report.degraded for bot in self.bots)


class StatusMonitor:
    """Compute the status of all bots of the process.

    Args:
        bots: The running bots; the caller updates this sequence.
        counters: Counters of the bots, by name.
        store: The store of the bots.
        connection: The connection to the service.

    Attributes:
        last_reload: Result of the last reload.
        degraded: Reasons why the process as a whole is degraded.
        watchdog: Watchdog of the event loop; None if there is none.
        is_draining: The process is about to stop.
        ended: Returns the names of the bots that have ended unexpectedly and will not restart.
        sharing: Measures the use of a shared store; None if one process has it alone.
        admission: Decides which threads the process takes; None where the store is not shared.
    """

    def __init__(
        self, bots: Sequence[Bot], counters: Mapping[str, BotCounters], store: Store, connection: Connection
    ) -> None:
        self.last_reload = LastReload()
        self.watchdog: LoopWatchdog | None = None
        self.is_draining = False
        self.ended: Callable[[], Iterable[str]] = tuple
        self.sharing: SharingMonitor | None = None
        self._unheld_at = -inf
        self.degraded = DegradedReasons()
        self.degraded.add_source(self._of_reload)
        self.degraded.add_source(self._of_admission)
        self.admission: Admission | None = None
        self._bots = bots
        self._counters = counters
        self._store = store
        self._connection = connection
        self._started_on = time.time()
        self._logged: dict[tuple[str | None, str], float] = {}  # by bot and reason: since when
        self._log = structlog.get_logger()

    @property
    def is_emulator(self) -> bool:
        """Whether the service is the emulator."""
        return self._connection.is_emulator

    def missed(self) -> Mapping[str, Mapping[str, float]]:
        """Return the stalled pollers; see `Status.missed`. Call this every few seconds."""
        now = anyio.current_time()
        is_waiting = self._waits_for_store(now)
        found = {bot.name: {**({} if is_waiting else stalled(bot, now)), **self._ended(bot)} for bot in self._bots}
        return {name: pollers for name, pollers in found.items() if pollers}

    def _waits_for_store(self, now: float) -> bool:
        """Return whether pollers may be late because the server of the store is away, or was until recently.

        Nothing may be polled then, and a restart would not help: it would only end all processes at once.
        """
        if isinstance(self._store, OwnedStore) and not self._store.is_held:
            self._unheld_at = now
        return now < self._unheld_at + STALLED_SECONDS

    def _ended(self, bot: Bot) -> Mapping[str, float]:
        """Return the scheduler of a bot as a stalled poller if the bot has ended unexpectedly."""
        return {"scheduler": 0.0} if bot.name in self.ended() else {}

    def _report(self, bot: Bot, now: float) -> BotStatus:
        found = report(bot, now)
        late = {} if self._waits_for_store(now) else found.stalled
        return replace(found, stalled={**late, **self._ended(bot)})

    async def read_missed(self) -> Mapping[str, object]:
        """Return `missed()`; a coroutine function, as `BotsLoop.call` needs one."""
        return self.missed()

    def missed_of_blocked(self) -> Mapping[str, object]:
        """Return the problems that a restart solves while the event loop is blocked. Thread-safe."""
        return self.watchdog.problems if self.watchdog else {}

    @property
    def is_blocked(self) -> bool:
        """Whether the watchdog reports the event loop as blocked. Thread-safe."""
        return self.watchdog is not None and self.watchdog.blocked is not None

    def why_no_answer(self) -> str:
        """Return why the event loop does not answer. Thread-safe."""
        blocked = self.watchdog.blocked if self.watchdog else None
        return str(blocked) if blocked else "the bots did not answer in time; they may be very busy"

    def unsent(self, thread: ThreadId) -> int:
        """Return the number of unsent actions of all bots in a thread."""
        lanes = [bot.scheduler.lanes[thread] for bot in self._bots if thread in bot.scheduler.lanes]
        return sum(len(lane.commits.outbox) for lane in lanes)

    async def unready(self) -> tuple[str, ...]:
        """Return the reasons why the bots are not ready. Tests the store with a write that leaves no data."""
        reasons = ["the bots are about to end"] if self.is_draining else []
        now = time.time()
        for bot in self._bots:
            if bot.context.paused_ms is not None:
                continue  # on purpose
            if bot.context.is_stopping:
                reasons.append(f"{bot.name} is about to end")
            elif not bot.is_started:
                reasons.append(f"{bot.name} has not started")
            expires = self._counters[bot.name].token_expires_on
            if expires is None or expires <= now or "Unauthorized" in bot.context.ongoing.current.values():
                reasons.append(f"{bot.name} has no valid token")
        if (admission := self.admission) is not None and not admission.owned:
            # A process that takes no threads must not let a rollout end those that do.
            reasons += [f"it takes no threads: {one.detail}" for one in self._of_admission(anyio.current_time())]
        if isinstance(self._store, OwnedStore) and not self._store.is_held:
            # A trial would wait until the server is back.
            return (*reasons, "the store cannot be written: the session with its server is broken")
        try:
            await self._store.commit(self._bots[0].user, PROBE_WRITES)
        except StoreError as error:
            reasons.append(f"the store cannot be written: {error}")
        return tuple(reasons)

    async def read_status(self) -> Status:
        """Return the status now."""
        now = anyio.current_time()
        present = list(self._bots)
        reports = [self._report(bot, now) for bot in present]
        bots = [
            ServedBot(one, self._counters[one.name].read(), await self._dead_letters(bot))
            for one, bot in zip(reports, present, strict=True)
        ]
        return Status(
            version=_VERSION,
            pid=os.getpid(),
            started_on=self._started_on,
            now=time.time(),
            endpoint=self._connection.endpoint,
            is_emulator=self._connection.is_emulator,
            tasks=len(anyio.get_running_tasks()),
            memory=await run_in_thread(_resident_bytes),
            bots=tuple(bots),
            unready=await self.unready(),
            reloaded=self.last_reload.reloaded,
            degraded=self.degraded.current(now),
            sharing=self.sharing.read() if self.sharing else None,
            canary=self._canary(),
        )

    def log_degraded(self) -> None:
        """Log the start and end of each degraded reason. Call this every few seconds."""
        now = anyio.current_time()
        current: dict[tuple[str | None, str], Degraded] = {}
        for bot, reasons in [(None, self.degraded), *((bot.name, bot.context.degraded) for bot in self._bots)]:
            for degraded in reasons.current(now):  # the longest first
                current.setdefault((bot, degraded.reason), degraded)
        for key, degraded in current.items():
            if key not in self._logged:
                self._log.warning(
                    "degraded.began", **_labels(key), detail=degraded.detail, seconds=round(degraded.seconds)
                )
        for key, since in list(self._logged.items()):
            if key not in current:
                self._log.info("degraded.ended", **_labels(key), seconds=round(now - since))
        self._logged = {key: now - degraded.seconds for key, degraded in current.items()}

    def _of_reload(self, _now: float) -> Iterator[Degraded]:
        """Yield degraded reasons for a refused reload and for postponed settings."""
        last = self.last_reload.reloaded
        if last is None:
            return
        seconds = max(0.0, time.time() - last.at)
        if last.is_refused:
            yield Degraded(RELOAD_REFUSED, f"the bots run unchanged: {last.advice}", seconds)
        if last.postponed:
            detail = f"only a restart applies {', '.join(last.postponed)}"
            yield Degraded(SETTINGS_POSTPONED, detail, seconds)

    def _of_admission(self, now: float) -> Iterator[Degraded]:
        """Yield degraded reasons for threads that this process does not take."""
        admission = self.admission
        if admission is None:
            return
        if admission.verdict is not None:
            detail = f"{admission.verdict}: its threads go back to them; correct the code, and start the canary again"
            yield Degraded(CANARY_FAILED, detail, max(0.0, now - admission.verdict_at))
        if admission.is_alone:
            detail = "no other process serves the rest of the threads; start one without --canary"
            yield Degraded(CANARY_ALONE, detail, 0.0)
        if admission.refused:
            detail = (
                f"other processes keep what the code of this one cannot continue ({admission.refused[0]}); wait until "
                "it has ended, restore the code, or stop the processes with the old code"
            )
            yield Degraded(SHARDS_REFUSED, detail, max(0.0, now - admission.refused_since))

    def _canary(self) -> Canary | None:
        admission = self.admission
        if admission is None or admission.canary_share is None:
            return None
        own, others = admission.comparison.totals()
        has_handed_back = admission.verdict is not None
        return Canary(admission.canary_share, len(admission.owned), has_handed_back, own, others)

    async def _dead_letters(self, bot: Bot) -> int | None:
        try:
            return len(await self._store.dead_letters(bot.user))
        except StoreError:
            return None


def _labels(key: tuple[str | None, str]) -> dict[str, str]:
    bot, reason = key
    return {"reason": reason} if bot is None else {"bot": bot, "reason": reason}


def _resident_bytes() -> int | None:
    if sys.platform != "linux":
        return None
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def as_json(status: Status) -> dict[str, Any]:
    """Return the status as JSON data. It contains no message texts."""
    return {
        "version": status.version,
        "pid": status.pid,
        "uptime_seconds": round(status.now - status.started_on, 1),
        "service": {"endpoint": status.endpoint, "is_emulator": status.is_emulator},
        "is_healthy": not status.missed,
        "is_ready": not status.unready,
        "unready": list(status.unready),
        "is_degraded": status.is_degraded,
        "degraded": _reasons_as_json(status.degraded),
        "last_reload": _reload_as_json(status),
        "canary": _canary_as_json(status.canary),
        "tasks": status.tasks,
        "memory_bytes": status.memory,
        "sharing": None if status.sharing is None else status.sharing.as_json(),
        "bots": [_bot_as_json(bot, status.now) for bot in status.bots],
    }


def _reasons_as_json(reasons: Iterable[Degraded]) -> list[dict[str, Any]]:
    return [{"reason": one.reason, "detail": one.detail, "seconds": round(one.seconds, 1)} for one in reasons]


def _reload_as_json(status: Status) -> dict[str, Any] | None:
    one = status.reloaded
    if one is None:
        return None
    return {
        "seconds_ago": round(status.now - one.at, 1),
        "is_refused": one.is_refused,
        "advice": one.advice,
        "postponed": list(one.postponed),
    }


def _canary_as_json(canary: Canary | None) -> dict[str, Any] | None:
    if canary is None:
        return None
    return {
        "share": canary.share,
        "shards": canary.shards,
        "has_handed_back": canary.has_handed_back,
        "events": {"handled": canary.own.handled, "failed": canary.own.failed},
        "events_of_others": {"handled": canary.others.handled, "failed": canary.others.failed},
    }


def _bot_as_json(bot: ServedBot, now: float) -> dict[str, Any]:
    report, counts = bot.report, bot.counts
    expires = counts.token_expires_on
    return {
        "name": report.name,
        "user": report.user,
        "paused_seconds": _rounded(report.paused),
        "threads": report.threads,
        "doorbell_seconds": round(report.thread_list_interval, 1),
        "thread_list": {"read": report.listed, "is_complete": report.is_listed},
        "beat_stretch": round(report.stretch, 2),
        "lag_seconds": round(report.lag, 1),
        "missed": {poller: round(seconds, 1) for poller, seconds in report.stalled.items()},
        "oldest_unhandled_seconds": _rounded(report.oldest_unhandled),
        "outbox": {"rows": report.outbox, "oldest_seconds": _rounded(report.outbox_age)},
        "quota_left": dict(report.quota_left),
        "quota_assumed_seconds": round(report.quota_assumed, 1),
        "throttled": sum(count for (_, outcome), count in counts.calls.items() if outcome == "throttled"),
        "doubles_healed": counts.healed,
        "handlers": {"most": report.max_handlers, "running": len(report.running), "waiting": report.waiting},
        "running": [
            {"thread": one.thread, "event": one.event, "seconds": round(one.seconds, 1)} for one in report.running
        ],
        "troubles": dict(report.troubles),
        "degraded": _reasons_as_json(report.degraded),
        "last_failures": [
            {"seconds_ago": round(now - one.at, 1), "handler": one.handler, "error": one.error}
            for one in counts.failures
        ],
        "dead_letters": bot.dead_letters,
        "token_seconds_left": None if expires is None else round(expires - now),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
