"""The status of the process at one moment, for `/status` and the metrics; the last reload is part of it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import structlog

from chatbot.bot import Bot
from chatbot.bot.degraded import RELOAD_REFUSED, SETTINGS_POSTPONED, Degraded, DegradedReasons
from chatbot.bot.status import BotStatus, missed, report
from chatbot.distribution import version
from chatbot.errors import StoreError
from chatbot.model import ThreadId
from chatbot.runtime.connection import Connection
from chatbot.runtime.observe.counters import BotCounters, Counts
from chatbot.runtime.watchdog import LoopWatchdog
from chatbot.stores.base import Store
from chatbot.stores.records import Attempt
from chatbot.stores.writes import BeginAttempt, EndAttempt


@dataclass(frozen=True, slots=True)
class Reloaded:
    """One reload.

    Args:
        at: epoch seconds, when it was over.
        is_refused: nothing was changed, because something was wrong.
        postponed: settings that are in force after a restart only.
        advice: what to do about a reload that was refused.
    """

    at: float
    is_refused: bool
    postponed: tuple[str, ...] = ()
    advice: str = ""


LOG_ADVICE: Final = "see reload.refused in the log"


class LastReload:
    """Remembers it; None until there was one.

    Args:
        clock: epoch seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.reloaded: Reloaded | None = None

    def note(self, *, is_refused: bool, postponed: tuple[str, ...] = (), advice: str = LOG_ADVICE) -> None:
        """A reload is over; what an earlier one has postponed still waits when this one was refused."""
        if is_refused and self.reloaded is not None:
            postponed = self.reloaded.postponed
        self.reloaded = Reloaded(self._clock(), is_refused, postponed, advice)


_NOWHERE: Final = ThreadId("is the store writable?")
TRIAL: Final = (BeginAttempt(_NOWHERE, Attempt("", 1)), EndAttempt(_NOWHERE))
"""Writes that change pages of a file, and leave nothing; what changes none is not written, not even to a full disk."""

_VERSION: Final = version()  # reads files, so not on the loop


@dataclass(frozen=True, slots=True)
class ServedBot:
    """One bot.

    Args:
        report: how it is doing.
        counts: what it has done.
        dead_letters: how many wait to be seen to; None when the store cannot tell.
    """

    report: BotStatus
    counts: Counts
    dead_letters: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """The process.

    Args:
        started_on: epoch seconds.
        now: epoch seconds.
        tasks: of the event loop.
        memory: resident bytes; None where the system does not tell.
        unready: why the bots cannot work as they should, one text a reason.
        reloaded: how the latest reload went; None if there was none.
        degraded: why the process as a whole does not work as it should; bots have reasons of their own.
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

    @property
    def missed(self) -> Mapping[str, Mapping[str, float]]:
        """The pollers that have missed their beat, by bot, with the seconds since it was due."""
        return {bot.report.name: bot.report.missed for bot in self.bots if bot.report.missed}

    @property
    def is_degraded(self) -> bool:
        """Whether anything does not work as it should although a restart would not help."""
        return bool(self.degraded) or any(bot.report.degraded for bot in self.bots)


class StatusMonitor:
    """Watches the bots of a process.

    Args:
        bots: those that run, at any time.
        counters: their counts, by name.
        store: their memory.
        connection: the service they use.

    Attributes:
        last_reload: where reloads are noted.
        degraded: why the process as a whole does not work as it should.
        watchdog: sees whether the event loop runs; None where nobody watches.
        is_draining: the process is about to end.
        ended: the bots that have ended for good although nobody asked them to.
    """

    def __init__(
        self, bots: Sequence[Bot], counters: Mapping[str, BotCounters], store: Store, connection: Connection
    ) -> None:
        self.last_reload = LastReload()
        self.watchdog: LoopWatchdog | None = None
        self.is_draining = False
        self.ended: Callable[[], Iterable[str]] = tuple
        self.degraded = DegradedReasons()
        self.degraded.add_source(self._of_reload)
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
        """The pollers that have missed their beat: see `Status.missed`."""
        now = anyio.current_time()
        found = {bot.name: {**missed(bot, now), **self._ended(bot)} for bot in self._bots}
        return {name: pollers for name, pollers in found.items() if pollers}

    def _ended(self, bot: Bot) -> Mapping[str, float]:
        """The scheduler of a bot, among the pollers that are missed, if the bot has ended for good."""
        return {"scheduler": 0.0} if bot.name in self.ended() else {}

    def _report(self, bot: Bot, now: float) -> BotStatus:
        found = report(bot, now)
        return replace(found, missed={**found.missed, **self._ended(bot)})

    async def read_missed(self) -> Mapping[str, object]:
        """The same, as a coroutine function."""
        return self.missed()

    def missed_of_blocked(self) -> Mapping[str, object]:
        """What a restart helps with while the event loop does not answer; on any thread."""
        return self.watchdog.problems if self.watchdog else {}

    @property
    def is_blocked(self) -> bool:
        """Whether the event loop is known not to run; on any thread."""
        return self.watchdog is not None and self.watchdog.blocked is not None

    def why_no_answer(self) -> str:
        """Why the event loop does not answer; on any thread."""
        blocked = self.watchdog.blocked if self.watchdog else None
        return str(blocked) if blocked else "the bots did not answer in time; they may be very busy"

    def unsent(self, thread: ThreadId) -> int:
        """How much the bots still want to say or do in a thread."""
        lanes = [bot.scheduler.lanes[thread] for bot in self._bots if thread in bot.scheduler.lanes]
        return sum(len(lane.commits.outbox) for lane in lanes)

    async def unready(self) -> tuple[str, ...]:
        """Why the bots cannot work as they should; has the store write something that is gone again at once."""
        reasons = ["the bots are about to end"] if self.is_draining else []
        now = time.time()
        for bot in self._bots:
            if bot.context.is_stopping:
                reasons.append(f"{bot.name} is about to end")
            elif not bot.is_started:
                reasons.append(f"{bot.name} has not started")
            expires = self._counters[bot.name].token_expires_on
            if expires is None or expires <= now or "Unauthorized" in bot.context.ongoing.current.values():
                reasons.append(f"{bot.name} has no valid token")
        try:
            await self._store.commit(self._bots[0].user, TRIAL)
        except StoreError as error:
            reasons.append(f"the store cannot be written: {error}")
        return tuple(reasons)

    async def read_status(self) -> Status:
        """Everything, now."""
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
            memory=await anyio.to_thread.run_sync(_resident_bytes),
            bots=tuple(bots),
            unready=await self.unready(),
            reloaded=self.last_reload.reloaded,
            degraded=self.degraded.current(now),
        )

    def log_degraded(self) -> None:
        """Log each reason to be degraded when it begins, and when it ends; called every few seconds."""
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
        """What of the last reload is not in force."""
        last = self.last_reload.reloaded
        if last is None:
            return
        seconds = max(0.0, time.time() - last.at)
        if last.is_refused:
            yield Degraded(RELOAD_REFUSED, f"the bots run as before: {last.advice}", seconds)
        if last.postponed:
            detail = f"only a restart applies {', '.join(last.postponed)}"
            yield Degraded(SETTINGS_POSTPONED, detail, seconds)

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
    """The status for programs; no text of people is in it."""
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
        "tasks": status.tasks,
        "memory_bytes": status.memory,
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


def _bot_as_json(bot: ServedBot, now: float) -> dict[str, Any]:
    report, counts = bot.report, bot.counts
    expires = counts.token_expires_on
    return {
        "name": report.name,
        "user": report.user,
        "threads": report.threads,
        "doorbell_seconds": round(report.doorbell, 1),
        "beat_stretch": round(report.stretch, 2),
        "lag_seconds": round(report.lag, 1),
        "missed": {poller: round(seconds, 1) for poller, seconds in report.missed.items()},
        "oldest_unhandled_seconds": _rounded(report.oldest_unhandled),
        "outbox": {"rows": report.outbox, "oldest_seconds": _rounded(report.outbox_age)},
        "quota_left": dict(report.quota_left),
        "throttled": sum(count for (_, outcome), count in counts.calls.items() if outcome == "throttled"),
        "handlers": {"most": report.most_handlers, "running": len(report.running), "waiting": report.waiting},
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
