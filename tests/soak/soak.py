"""The soak: hundreds of threads, a service full of faults, and a real daemon that is killed again and again."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from chatbot.errors import StateError
from chatbot.events import MessageEvent
from chatbot.model import ThreadId, UserId
from chatbot.stores.url import open_between_runs
from tests.chaos.processes import Daemon, Service
from tests.chaos.unlucky import revive_unlucky
from tests.chaos.verdict import Said, Verdict, answers_to, judge, longest_wait
from tests.soak.health import HealthRecord, HealthWatch
from tests.soak.memory import MemoryRecord
from tests.soak.people import ASKS, HOSTILE_ASKS, Person

FAULTS: Final = (
    "*:latency=0..0.4,probability=0.1",
    "*:expired-token,probability=0.002",
    "issue_token:500,probability=0.1",
    "list_threads:503,probability=0.03",
    "list_messages:500,probability=0.02",
    "list_messages:reset,probability=0.01",
    "list_messages:truncate,probability=0.01",
    "list_messages:429,probability=0.01",
    "list_participants:503,probability=0.1",
    "create_thread:reset-after,probability=0.1",
    "send_message:429,probability=0.02",
    "send_message:503,probability=0.02",
    "send_message:reset,probability=0.02",
    "send_message:reset-after,probability=0.04",
    "send_message:504,after=true,probability=0.02",
    "update_message:reset-after,probability=0.05",
    "update_message:503,probability=0.05",
    "delete_message:reset-after,probability=0.1",
    "send_read_receipt:500,probability=0.05",
)
"""What the service does to everybody, beside its own quotas."""

STALE_REPLIES: Final = "send_message:stale=0.5..8,probability=0.1,user={bot}"
"""Replies that lists show late: later than a proof is waited for, so that some are said twice and must be healed."""

STALE_WORDS: Final = "send_message:stale=0.5..8,probability=0.3,thread={thread}"
"""Words of people that lists show late, in some threads; there, order is not asked for."""

STALE_SHARE: Final = 0.05
KILLING_SHARE: Final = 0.7
"""The part of the time in which there are kills; in the rest one process lives long enough for its memory to tell."""

RUNNING_SHARE: Final = 0.8
"""The part of the kills that wait for a process with its bots running; the others may strike its start."""

CATCH_UP_SECONDS: Final = 15.0
"""How long after the last kill the last process is measured for the first time."""

SETTLE_SECONDS: Final = 150.0
"""How long the daemon may take, once everybody is silent, to have everything done."""

LOOK_SECONDS: Final = 3.0
SAMPLE_SECONDS: Final = 2.0

STALE_SECONDS: Final = 10.0
"""How long after that something said earlier may still become visible."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Args:
        seconds: how long people talk.
        threads: how many threads, each with a person of its own.
        kills: how often the daemon is killed.
        seed: of everything random, the service's faults included.
        pause: seconds between two outbursts of one person, on average.
        is_hostile: people also ask for what the handlers of `checkable` do to their bot.
    """

    seconds: float
    threads: int
    kills: int
    seed: int
    pause: float
    is_hostile: bool = False


@dataclass(slots=True)
class Findings:
    """What came of it.

    Args:
        verdict: of all threads together.
        revived: messages that were running at three kills in a row, buried for it, and tried again by command.
        dead: messages whose handler never succeeds, and that are dead letters.
        buried_alive: dead letters that ought not to be.
        forgotten: messages whose handler never succeeds, and that are no dead letters.
        terms: how often the daemon was asked to stop and started again.
        doubts: how often people could not tell whether they had said something.
        wait: how many seconds the slowest reply took; quotas and restarts make people wait.
        exit_code: of the last process, which was asked to stop.
        memory: what the daemon held, in MiB: the first process; the last one soon after its start, and at its end.
        memory_over_time: what it held once everybody was there, in the process that lived longest at the end.
        service_memory: what the emulator held, in MiB, at the start and at the end.
        health: what the daemon said of its health.
    """

    verdict: Verdict = field(default_factory=Verdict)
    revived: int = 0
    dead: int = 0
    buried_alive: int = 0
    forgotten: int = 0
    terms: int = 0
    doubts: int = 0
    wait: float = 0.0
    exit_code: int | None = None
    memory: list[float] = field(default_factory=list)
    memory_over_time: MemoryRecord = field(default_factory=MemoryRecord)
    service_memory: list[float] = field(default_factory=list)
    health: HealthRecord = field(default_factory=HealthRecord)

    @property
    def is_clean(self) -> bool:
        """Whether every promise was kept."""
        is_kept = self.verdict.is_clean and not self.buried_alive and not self.forgotten
        return is_kept and self.exit_code == 0 and self.memory_over_time.is_flat and not self.health.wrong


class Soak:
    """One run.

    Args:
        plan: what is to be done.
        service: where; no faults are in force yet.
        daemon: who is tried; not started yet.
    """

    def __init__(self, plan: Plan, service: Service, daemon: Daemon) -> None:
        self.findings = Findings()
        self.kills = 0
        self.people: list[Person] = []
        self.plan = plan
        self._service = service
        self._daemon = daemon
        self._bot = UserId("")
        self._late: set[str] = set()
        self._arrived = 0
        self._dice = random.Random(plan.seed)

    async def run(self) -> Findings:
        """Do it all; returns when everything has settled, or does not settle."""
        async with self._service.resource() as resource, anyio.create_task_group() as group:
            await self.start(group)
            self._bot = UserId(self._daemon.user)
            self.findings.service_memory.append(self._service.memory)
            await self._service.put_faults([*FAULTS, STALE_REPLIES.format(bot=self._bot)])
            asks = HOSTILE_ASKS if self.plan.is_hostile else ASKS
            self.people = [
                Person(resource, random.Random(f"{self.plan.seed} {number}"), self.plan.pause, asks)
                for number in range(self.plan.threads)
            ]
            watch = HealthWatch(self._daemon)
            self.findings.health = watch.record
            async with anyio.create_task_group() as beside:
                if self._daemon.port is not None:
                    beside.start_soon(watch.run)
                beside.start_soon(self._sample_memory)
                await self._talk_and_kill()
                self.findings.memory_over_time.silent_at = anyio.current_time()
                await self._settle()
                beside.cancel_scope.cancel()
            self.findings.exit_code = await self.stop()
            group.cancel_scope.cancel()
        await self._examine()
        return self.findings

    # ── who is tried ──────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, group: TaskGroup) -> None:
        """Keep running who is tried; returns when all bots run."""
        group.start_soon(self._daemon.keep_running)
        await self.all_ready()

    async def all_ready(self) -> None:
        """Wait until the bots run."""
        await self._daemon.ready()

    async def stop(self) -> int:
        """Ask who is tried to end, for good; returns the exit code."""
        return await self._daemon.stop()

    async def kill_until(self, end: float) -> None:
        """Kill at random moments, so many times; now and then ask to stop instead."""
        while self.kills < self.plan.kills:
            gap = max(0.2, (end - anyio.current_time()) / (self.plan.kills - self.kills))
            await anyio.sleep(self._dice.uniform(0, 2 * gap))
            if self._dice.random() < RUNNING_SHARE:  # on a busy machine none would get past its start otherwise
                await self._daemon.ready()
            if self._dice.random() < 0.1:
                self.findings.terms += self._daemon.terminate()
            else:
                self.kills += self._daemon.kill()
        await self._daemon.ready()

    @property
    def memory(self) -> float:
        """What the running process holds at the moment, in MiB."""
        return self._daemon.memory

    async def revive(self) -> list[ThreadId]:
        """See `revive_unlucky`."""
        return await revive_unlucky(self._daemon)

    def said(self, event: str) -> int:
        """Return how often a log event was said."""
        return self._daemon.said[event]

    @property
    def store(self) -> Path:
        """The file of the store."""
        return self._daemon.store

    @property
    def codes(self) -> list[int]:
        """The exit codes of all processes that have ended."""
        return self._daemon.codes

    # ── people and kills ──────────────────────────────────────────────────────────────────────────────────────

    async def _talk_and_kill(self) -> None:
        end = anyio.current_time() + self.plan.seconds
        async with anyio.create_task_group() as group:
            group.start_soon(self._kill, anyio.current_time() + self.plan.seconds * KILLING_SHARE)
            for person in self.people:
                group.start_soon(self._live, person, end)

    async def _sample_memory(self) -> None:
        record = self.findings.memory_over_time
        while True:
            if record.settled_at is None and len(self.people) == self.plan.threads == self._arrived:
                record.settled_at = anyio.current_time()
            if self._daemon.pid is not None:
                record.note(self._daemon.pid, anyio.current_time(), self._daemon.memory)
            await anyio.sleep(SAMPLE_SECONDS)

    async def _live(self, person: Person, end: float) -> None:
        """A person's time; some come while the bot is being killed already."""
        number = self.people.index(person)
        await anyio.sleep(self.plan.seconds * KILLING_SHARE / 2 * number / len(self.people))
        thread = await person.come(self._bot)
        self._arrived += 1
        if self._is_late(number):
            self._late.add(thread)
            await self._service.add_faults([STALE_WORDS.format(thread=thread)])
        if number in (1, 2):
            await person.say("/poison {}" if number == 1 else "/die {}")
        await person.talk(end)

    def _is_late(self, number: int) -> bool:
        every = int(1 / STALE_SHARE)
        return number % every == every - 1

    async def _kill(self, end: float) -> None:
        self.findings.memory.append(self.memory)
        await self.kill_until(end)
        await anyio.sleep(CATCH_UP_SECONDS)
        self.findings.memory.append(self.memory)

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _settle(self) -> None:
        """Wait until all is done, then see whether it stays so."""
        await self.all_ready()
        await anyio.sleep(STALE_SECONDS)  # what was running at three kills is buried at the first look
        await self._revive_unlucky()
        await self._become_clean(SETTLE_SECONDS)
        await anyio.sleep(STALE_SECONDS)
        await self._become_clean(SETTLE_SECONDS / 3)  # what became visible only now is to be healed
        self.findings.memory.append(self.memory)

    async def _revive_unlucky(self) -> None:
        """Retry dead letters, by the next process if need be: a handler that kills may end the one that is asked."""
        while True:
            await self.all_ready()
            try:
                threads = await self.revive()
            except StateError:
                await anyio.sleep(LOOK_SECONDS)
                continue
            self._late.update(threads)
            self.findings.revived += len(threads)
            return

    async def _become_clean(self, patience: float) -> None:
        with anyio.move_on_after(patience):
            while not (await self.judge()).is_clean:  # noqa: ASYNC110 -- another process is waited for
                await anyio.sleep(LOOK_SECONDS)

    async def judge(self) -> Verdict:
        """What can be seen at the moment."""
        verdict = Verdict()
        for thread in await self._service.threads():
            said = Said.living(await self._service.messages(thread), self._bot)
            verdict += judge(said, has_order=thread not in self._late)
            self.findings.wait = max(self.findings.wait, longest_wait(said))
        return verdict

    async def _examine(self) -> None:
        """What can be seen at the end, on the service and in the store."""
        findings = self.findings
        findings.verdict = await self.judge()
        findings.service_memory.append(self._service.memory)
        findings.doubts = sum(person.doubts for person in self.people)
        buried = await self._buried()
        wanted = await self._deadly(await self._service.threads())
        findings.dead = len(buried & wanted)
        findings.buried_alive = len(buried - wanted)
        findings.forgotten = len(wanted - buried)

    async def keep_evidence(self, file: Path) -> None:
        """Write down what is in the threads, those that are not as they ought to be first."""
        evidence: dict[str, dict[str, Any]] = {}
        for thread in await self._service.threads():
            messages = await self._service.messages(thread)
            said = Said.living(messages, self._bot)
            verdict = judge(said, has_order=thread not in self._late)
            evidence[thread] = {
                "is_clean": verdict.is_clean,
                "verdict": str(verdict),
                "longest_wait": longest_wait(said),
                "messages": messages,
            }
        ordered = sorted(evidence.items(), key=lambda item: (item[1]["is_clean"], -item[1]["longest_wait"]))
        await anyio.Path(file).write_text(json.dumps(dict(ordered), indent=1))

    async def _buried(self) -> set[tuple[str, int]]:
        store = open_between_runs(self._daemon.store_url, base_dir=self._daemon.directory)
        assert store is not None
        async with store:
            dead_letters = await store.dead_letters(self._bot)
        return {
            (letter.event.thread, letter.event.message.number)
            if isinstance(letter.event, MessageEvent)
            else (letter.event.key, 0)
            for letter in dead_letters
        }

    async def _deadly(self, threads: Sequence[str]) -> set[tuple[str, int]]:
        deadly: set[tuple[str, int]] = set()
        for thread in threads:
            said = [one for one in Said.living(await self._service.messages(thread), self._bot) if not one.is_bot]
            answers = answers_to([one.text for one in said])
            deadly |= {(thread, one.id) for one, texts in zip(said, answers, strict=True) if not texts}
        return deadly


def size_of(store: Path) -> float:
    """What a store takes on the disk, in MiB."""
    return sum(file.stat().st_size for file in store.parent.glob(f"{store.name}*")) / 2**20
