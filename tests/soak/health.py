"""Watches what the daemon says of its health while it is killed, and compares it with what its handlers really do.

`degraded` must be there exactly while a handler is stuck, and /healthz must stay green: nothing that happens in a soak
is cured by a restart. Handlers that are stuck say so in files (see `checkable`), so the daemon is not asked twice.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import anyio

from chatbot.bot.degraded import HANDLER_ABANDONED
from tests.chaos.processes import Daemon

LOOK_SECONDS: Final = 0.5
ANSWER_SECONDS: Final = 10.0

ABANDONED_SECONDS: Final = 6.0
"""How long after its beginning a stuck handler is abandoned: its timeout of 1 s, and 5 s to end after that."""

TOLERANCE_SECONDS: Final = 8.0
"""How much later or longer something may be reported on a busy machine."""


@dataclass(slots=True)
class HealthRecord:
    """What was seen.

    Args:
        looks: how often the daemon answered.
        degraded: how often it said that it was degraded.
        wrong: what it should not have said, or should have said; a sentence each.
    """

    looks: int = 0
    degraded: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Stuck:
    """Which handlers of a process are stuck at a moment: the name of each one's file, with seconds since it began."""

    ages: dict[str, float]

    @property
    def abandoned(self) -> set[str]:
        return {name for name, age in self.ages.items() if age > ABANDONED_SECONDS + TOLERANCE_SECONDS}

    @property
    def is_none_abandoned(self) -> bool:
        return all(age < ABANDONED_SECONDS - 1 for age in self.ages.values())


class HealthWatch:
    """Asks the daemon for its health again and again.

    Args:
        daemon: it has a status server.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.record = HealthRecord()
        self._daemon = daemon
        self._ended_at: dict[int, float] = {}
        self._seen: dict[int, set[str]] = {}

    async def run(self) -> None:
        """Watch until canceled."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        base = f"http://127.0.0.1:{self._daemon.port}"
        async with aiohttp.ClientSession(base, timeout=timeout) as session:
            while True:
                pid = self._daemon.pid
                if pid is not None and self._daemon.is_ready:
                    await self._look(session, pid)
                await anyio.sleep(LOOK_SECONDS)

    async def _look(self, session: aiohttp.ClientSession, pid: int) -> None:
        before = await self._stuck(pid)
        try:
            health = await _read(session, "/healthz")
            status = await _read(session, "/status")
        except TimeoutError:
            if self._is_alive(pid):
                self._wrong(f"no answer within {ANSWER_SECONDS:.0f} s")
            return
        except aiohttp.ClientError:  # it was killed, or is ending
            return
        after = await self._stuck(pid)
        if not self._is_alive(pid):
            return
        self.record.looks += 1
        if not health["is_healthy"]:
            self._wrong(f"/healthz is red: {health['missed']}")
        self._compare(pid, before, after, status)

    def _compare(self, pid: int, before: _Stuck, after: _Stuck, status: dict[str, Any]) -> None:
        if "bots" not in status:
            self._wrong(f"/status has no answer: {status}")
            return
        found = [reason for part in (status, *status["bots"]) for reason in part["degraded"]]
        self.record.degraded += bool(found)
        reasons = {one["reason"] for one in found}
        if before.abandoned & after.ages.keys() and HANDLER_ABANDONED not in reasons:
            self._wrong(f"a handler is stuck for {max(before.ages.values()):.0f} s, and nothing is degraded")
        is_calm = before.is_none_abandoned and after.is_none_abandoned
        if is_calm and time.monotonic() - self._ended_at.get(pid, 0.0) > TOLERANCE_SECONDS:
            for one in found:
                self._wrong(f"nothing is stuck, but degraded: {one['reason']}: {one['detail']}")

    async def _stuck(self, pid: int) -> _Stuck:
        """Read which handlers of this process are stuck, and note when one of them ended."""
        ages: dict[str, float] = {}
        directory = anyio.Path(self._daemon.directory / "stuck")
        if await directory.exists():
            async for file in directory.glob(f"{pid}-*"):
                try:
                    ages[file.name] = time.time() - (await file.stat()).st_mtime
                except FileNotFoundError:  # it ended in this moment
                    self._ended_at[pid] = time.monotonic()
        if self._seen.get(pid, set()) - ages.keys():
            self._ended_at[pid] = time.monotonic()
        self._seen[pid] = {*ages}
        return _Stuck(ages)

    def _is_alive(self, pid: int) -> bool:
        return self._daemon.pid == pid and self._daemon.is_ready

    def _wrong(self, sentence: str) -> None:
        self.record.wrong.append(f"{time.strftime('%H:%M:%S', time.gmtime())} {sentence}")


async def _read(session: aiohttp.ClientSession, path: str) -> dict[str, Any]:
    async with session.get(path) as response:
        return dict(await response.json())
