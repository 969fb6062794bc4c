"""Play a story: replicas of a real bot on the model of the database, the emulator, people and disturbances.

Everything is on virtual time and in one task tree, and everything random comes from the story's seed. How long each
call of the store or the service takes is drawn, too, so that another seed is another order of what happens.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import anyio
import structlog
from azure.core.pipeline.transport import AsyncHttpResponse, HttpRequest

from chatbot.bot import BotSettings
from chatbot.errors import StoreError
from chatbot.polling.cadence import Cadence
from chatbot.testing.virtual_time import VirtualTimeLoop
from tests.cluster.cluster import Cluster, Replica
from tests.cluster.gate import is_send
from tests.simulation.judge import DEATHS, Judge
from tests.simulation.oracle import Oracle, Problem, Trace
from tests.simulation.plugins import Ways, witness
from tests.simulation.story import KNOWN_THREADS, SECONDS, Step, Story

PATIENCE_SECONDS: Final = 120.0
"""Seconds after the last disturbance until everything must have been answered."""

PATIENCE_WITHOUT_NOTES: Final = 720.0
"""The same if notes were lost: a new thread is then found by the next read of the whole list."""

QUIET_SECONDS: Final = 4.0
"""Seconds after the last answer in which nothing more may come."""

SETTINGS: Final = BotSettings(
    cadence=Cadence(interval=1.0, idle=15.0), slack_ms=5_000, maintenance=12.0, max_turns=16, max_handlers=16
)
"""Short intervals and a short slack, so that a minute shows what a day would."""

SKEW_SECONDS: Final = 7200.0
"""How fast or slow the wall clock of a replica may be."""


@dataclass(frozen=True)
class Outcome:
    """What came of a story.

    Args:
        story: the story.
        problems: what must not have been.
        digest: the hash of the trace.
        lines: the trace.
        counts: how often what has happened.
        seconds: of virtual time.
    """

    story: Story
    problems: tuple[Problem, ...]
    digest: str
    lines: tuple[str, ...]
    counts: Mapping[str, int]
    seconds: float

    @property
    def kinds(self) -> set[str]:
        """Which rules were broken."""
        return {problem.kind for problem in self.problems}


class SeededTask(asyncio.Task[Any]):
    """A task whose hash is its number: sets of tasks have the same order in each run."""

    def __hash__(self) -> int:
        return self.number

    number = 0


@contextmanager
def repeatable(seed: int) -> Iterator[VirtualTimeLoop]:
    """Give everything random a seed, and tasks an order; restore the former state of the generator."""
    state = random.getstate()
    random.seed(seed)
    loop = VirtualTimeLoop()
    count = 0

    def create(loop: asyncio.AbstractEventLoop, code: Any, **options: Any) -> SeededTask:
        nonlocal count
        count += 1
        task = SeededTask.__new__(SeededTask)
        task.number = count
        task.__init__(code, loop=loop, **options)  # type: ignore[misc]
        return task

    loop.set_task_factory(create)
    try:
        yield loop
    finally:
        random.setstate(state)


def play(story: Story) -> Outcome:
    """Play a story, and judge it."""
    with repeatable(story.seed) as loop, asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(Play(story).run())


class SimulatedCluster(Cluster):
    """A cluster that an oracle watches."""

    def __init__(self, story: Story, oracle: Oracle, ways: Ways) -> None:
        super().__init__(witness(ways), settings=SETTINGS, witness=oracle, seed=story.seed, raises_failures=False)
        self._oracle = oracle
        self._seed = story.seed
        self.log = structlog.wrap_logger(None, processors=[self._logged], wrapper_class=structlog.BoundLogger)
        oracle.watch(self.database)

    def _logged(self, _logger: Any, level: str, fields: MutableMapping[str, Any]) -> Mapping[str, Any]:
        self._oracle.logged(str(fields.get("event")), level)
        raise structlog.DropEvent

    def prepare(self, replica: Replica) -> None:
        """Let the oracle watch a replica, and its calls take time."""
        dice = random.Random(f"{self._seed} {replica.name}")
        replica.gate.delay = lambda: dice.uniform(0.2, 0.9) if dice.random() < 0.01 else dice.uniform(0.001, 0.03)
        self._oracle.joined(replica)


class Play:
    """One play of a story."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.trace = Trace(anyio.current_time)
        self.oracle = Oracle(self.trace, anyio.current_time)
        self.deaths: dict[int, int] = {}
        self._places: list[Replica | None] = [None] * story.replicas
        self._busy: set[int] = set()
        self._dice = random.Random(f"skew {story.seed}")

    async def run(self) -> Outcome:
        """Play it."""
        ways = Ways(self.oracle.interrupted, self._die, lambda: self.judge.thread(0))
        cluster = self.cluster = SimulatedCluster(self.story, self.oracle, ways)
        self.judge = Judge(cluster, self.oracle, self.trace)
        self.oracle.has_lost_notes = cluster.database.loses_notes
        try:
            async with cluster, anyio.create_task_group() as group:
                self._group = group
                for place in range(self.story.replicas):
                    await self._join(place)
                self.oracle.know_bot(cluster.bot)
                for number in range(KNOWN_THREADS):
                    self.judge.thread(number)
                await anyio.sleep(3.0)
                group.start_soon(self._watch)
                await self._happen()
                await self._heal()
                await self._end()
                group.cancel_scope.cancel()
        except Exception as error:
            self.oracle.report("unexpected error", repr(error))
        for event, failure in cluster.failures:
            # A handler that reads a state while the store is away is tried again.
            if not isinstance(failure, StoreError):
                self.oracle.report("unexpected error", f"{type(event).__name__}: {failure!r}")
        self.oracle.counts["healed"] = cluster.healed.total()
        return Outcome(
            self.story,
            tuple(self.oracle.problems),
            self.trace.digest,
            tuple(self.trace.lines),
            dict(self.oracle.counts),
            anyio.current_time(),
        )

    # ── what happens ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _happen(self) -> None:
        begun = anyio.current_time()
        async with anyio.create_task_group() as group:
            for step in self.story.steps:
                await anyio.sleep(max(0.0, begun + step.at - anyio.current_time()))
                self.trace.note(f"STEP {step}")
                group.start_soon(self.judge.act if step.is_said else self._disturb, step)
            await anyio.sleep(max(0.0, begun + SECONDS - anyio.current_time()))

    async def _heal(self) -> None:
        """End all disturbances, and wait until everything is answered."""
        self.trace.note("HEAL")
        cluster = self.cluster
        cluster.emulator.faults.clear()
        cluster.database.loses_notes = False
        seconds = PATIENCE_WITHOUT_NOTES if self.oracle.has_lost_notes else PATIENCE_SECONDS
        with suppress(TimeoutError):
            await cluster.until(self._is_healed, seconds=seconds, step=1.0)
        await anyio.sleep(QUIET_SECONDS)
        owned = sum(len(replica.member.owned) for replica in cluster.running)
        if owned != 256 or len(cluster.database.owners()) != 256:
            self.oracle.report("shards without owner", f"{owned} of 256 are owned")
        await self.judge.judge(self.deaths)

    def _is_healed(self) -> bool:
        return self.cluster.is_balanced() and all(self._places) and self.judge.is_settled(self.deaths)

    async def _end(self) -> None:
        self.oracle.is_over = True
        for replica in self.cluster.running:
            self.oracle.gone(replica)
            await replica.leave()
        if owners := self.cluster.database.owners():
            self.oracle.report("shards not released", f"{len(owners)} after all replicas have left")

    async def _watch(self) -> None:
        while True:
            await anyio.sleep(1.0)
            self.oracle.check_sessions()

    # ── replicas ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _join(self, place: int, *, skew: float = 0.0) -> None:
        self._places[place] = await self.cluster.join(skew=skew)

    async def _kill(self, place: int, seconds: float) -> None:
        replica = self._take(place)
        if replica is not None:
            self.oracle.gone(replica)
            await replica.kill()
            await anyio.sleep(seconds)
            await self._join(place)

    async def _leave(self, place: int, seconds: float, *, skew: float = 0.0) -> None:
        replica = self._take(place)
        if replica is not None:
            self.oracle.gone(replica)
            await replica.leave()
            await anyio.sleep(seconds)
            await self._join(place, skew=skew)

    def _take(self, place: int) -> Replica | None:
        replica, self._places[place] = self._places[place], None
        return replica

    def _die(self, replica: Replica, number: int) -> None:
        """Kill a replica, because the handler of a message does."""
        if replica.is_running and not replica.gate.is_dead and replica in self._places:
            self.deaths[number] = self.deaths.get(number, 0) + 1
            self.trace.note(f"{replica.name} dies of message {number}")
            if self.deaths[number] > DEATHS:
                self.oracle.report("killed too often", f"message {number} has killed {self.deaths[number]} replicas")
            replica.gate.die()
            self._group.start_soon(self._kill, self._places.index(replica), 1.0)

    async def _disturb(self, step: Step) -> None:
        cluster, gate = self.cluster, self._gate_of(step)
        if step.what == "fault":
            self.oracle.has_late_lists |= "stale" in step.detail
            cluster.emulator.faults.add(f"{step.detail},user={cluster.bot}")
            return
        if step.what == "drop notes":
            former = cluster.database.loses_notes
            self.oracle.has_lost_notes = cluster.database.loses_notes = True
            await anyio.sleep(step.seconds)
            cluster.database.loses_notes = former
            return
        if gate is None:
            return
        self._busy.add(step.where)
        try:
            await self._act_on(step, gate)
        finally:
            self._busy.discard(step.where)

    def _gate_of(self, step: Step) -> Replica | None:
        """Return the replica that a step disturbs; None if it cannot be, or is being disturbed already."""
        if step.what in {"fault", "drop notes"} or step.where in self._busy:
            return None
        replica = self._places[step.where]
        return replica if replica is not None and replica.bot.is_started and not replica.gate.is_dead else None

    async def _act_on(self, step: Step, replica: Replica) -> None:
        gate, place, seconds = replica.gate, step.where, step.seconds
        match step.what:
            case "kill":
                await self._kill(place, seconds)
            case "leave":
                await self._leave(place, seconds)
            case "rejoin askew":
                await self._leave(place, seconds, skew=self._dice.choice((-SKEW_SECONDS, SKEW_SECONDS)))
            case "pause":
                self._pause(replica)
                await anyio.sleep(seconds)
                replica.resume()
            case "freeze send":
                await self._freeze_send(replica, seconds)
            case "kill after send":
                await self._kill_after_send(replica, place, seconds)
            case "visit":
                visitor = await self.cluster.join()
                await anyio.sleep(seconds)
                self.oracle.gone(visitor)
                await visitor.leave()
            case _:
                if step.what != "cut service":
                    self.oracle.cut.add(replica.name)
                gate.is_silent = step.what == "cut all"
                gate.is_cut_from_database = step.what != "cut service"
                gate.is_cut_from_service = step.what != "cut store"
                await anyio.sleep(seconds)
                gate.is_cut_from_database = gate.is_cut_from_service = False

    def _pause(self, replica: Replica) -> None:
        self.oracle.closed(replica)
        replica.pause()

    async def _freeze_send(self, replica: Replica, seconds: float) -> None:
        """Pause a replica between the check before its next send and the send: nothing can fence that."""
        frozen, before = anyio.Event(), replica.gate.on_request

        def pause(request: HttpRequest) -> None:
            before(request)
            if is_send(request):
                replica.gate.on_request = before
                self._pause(replica)
                frozen.set()

        replica.gate.on_request = pause
        with anyio.move_on_after(10):
            await frozen.wait()
        replica.gate.on_request = before
        if frozen.is_set():
            await anyio.sleep(seconds)
            replica.resume()

    async def _kill_after_send(self, replica: Replica, place: int, seconds: float) -> None:
        """Kill a replica as soon as its next send has taken effect: it never hears of that, or cannot store it."""
        sent, before = anyio.Event(), replica.gate.on_answer

        def note(request: HttpRequest, answer: AsyncHttpResponse) -> None:
            before(request, answer)
            if is_send(request):
                sent.set()

        replica.gate.on_answer = note
        with anyio.move_on_after(10):
            await sent.wait()
        replica.gate.on_answer = before
        if self._places[place] is replica:
            await anyio.sleep(self._dice.choice((0.0, 0.0, 0.1, 0.5)))
            await self._kill(place, seconds)
