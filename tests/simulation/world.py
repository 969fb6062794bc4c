"""Play a story: replicas of a real bot on the model of the database, the emulator, people and disturbances.

Everything is on virtual time and in one task tree, and everything random comes from the story's seed. How long each
call of the store or the service takes is drawn, too, so that another seed is another order of what happens.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import anyio
import structlog
from anyio._backends import _asyncio
from azure.core.pipeline.transport import AsyncHttpResponse, HttpRequest

from chatbot.bot import BotSettings
from chatbot.errors import StoreError
from chatbot.polling.cadence import Cadence
from chatbot.testing.virtual_time import VirtualTimeLoop
from tests.cluster.cluster import Cluster, Replica
from tests.cluster.database import Database
from tests.cluster.gate import is_send
from tests.simulation.judge import DEATHS, Judge
from tests.simulation.oracle import Oracle, Problem, Trace
from tests.simulation.plugins import Ways, witness
from tests.simulation.story import KNOWN_THREADS, Step, Story

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

DISORDER: Final = (0.0, 0.05, 0.5, 1.0)
"""How often ready callbacks are called out of turn: one of these for each seed."""

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


class ShuffledQueue(deque[asyncio.Handle]):
    """What is ready to run on an event loop, taken out in an order that a seed gives.

    asyncio keeps the order in which callbacks became ready. Which of two tasks becomes ready first depends on the
    network, the database and the other processes, and between replicas there is no order at all: so any order may
    come. Callbacks of one future keep theirs, because all of them become ready at once.

    Args:
        dice: gives the order.
        disorder: how often a callback is taken out of turn, 0 to 1; 0 at the end, so that the last callbacks come.
    """

    def __init__(self, dice: random.Random, disorder: float) -> None:
        super().__init__()
        self._dice = dice
        self.disorder = disorder

    def popleft(self) -> asyncio.Handle:
        """Remove and return a callback."""
        count = len(self)
        if count < 2 or self._dice.random() >= self.disorder:
            return super().popleft()
        place = self._dice.randrange(count)
        future = _future(self[place])
        if future is not None:
            place = next(place for place, handle in enumerate(self) if _future(handle) is future)
        handle = self[place]
        del self[place]
        return handle


def _future(handle: asyncio.Handle) -> asyncio.Future[Any] | None:
    """Return the future whose end a callback tells."""
    arguments = handle._args  # type: ignore[attr-defined] # noqa: SLF001 - None once it is canceled
    return arguments[0] if arguments and isinstance(arguments[0], asyncio.Future) else None


class SeededTask(asyncio.Task[Any]):
    """A task whose hash is its number: sets of tasks have the same order in each run."""

    def __hash__(self) -> int:
        return self.number

    number = 0


class SeededScope(_asyncio.CancelScope):
    """A cancel scope whose hash is its number: scopes within one are canceled in the same order in each run."""

    __slots__ = ("number",)
    count = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        SeededScope.count += 1
        self.number = SeededScope.count

    def __hash__(self) -> int:
        return self.number


@contextmanager
def repeatable(seed: int) -> Iterator[tuple[VirtualTimeLoop, ShuffledQueue]]:
    """Give everything random a seed, and ready callbacks an order; restore the former state of the generator."""
    state = random.getstate()
    random.seed(seed)
    loop = VirtualTimeLoop()
    dice = random.Random(f"order {seed}")
    ready = ShuffledQueue(dice, dice.choice(DISORDER))
    loop._ready = ready  # type: ignore[attr-defined] # noqa: SLF001 - there is no other way
    numbers = count(1)

    def create(loop: asyncio.AbstractEventLoop, code: Any, **options: Any) -> SeededTask:
        task = SeededTask.__new__(SeededTask)
        task.number = next(numbers)
        task.__init__(code, loop=loop, **options)  # type: ignore[misc]
        return task

    loop.set_task_factory(create)
    is_collecting = gc.isenabled()
    gc.disable()  # it would close what nobody refers to any more at another moment in each process
    scope_type, SeededScope.count = _asyncio.CancelScope, 0
    _asyncio.CancelScope = SeededScope  # type: ignore[misc]
    try:
        yield loop, ready
    finally:
        _asyncio.CancelScope = scope_type  # type: ignore[misc]
        if is_collecting:
            gc.enable()
        random.setstate(state)


def play(story: Story) -> Outcome:
    """Play a story, and judge it."""
    with repeatable(story.seed) as (loop, ready), asyncio.Runner(loop_factory=lambda: loop) as runner:

        async def run() -> Outcome:
            try:
                return await Play(story).run()
            finally:
                ready.disorder = 0.0

        return runner.run(run())


class SimulatedCluster(Cluster):
    """A cluster that an oracle watches."""

    def __init__(self, story: Story, oracle: Oracle, ways: Ways) -> None:
        super().__init__(witness(ways), settings=SETTINGS, witness=oracle, seed=story.seed, raises_failures=False)
        self._oracle = oracle
        self._seed = story.seed
        self.log = structlog.wrap_logger(None, processors=[self._logged], wrapper_class=structlog.BoundLogger)
        if isinstance(self.database, Database):
            oracle.watch(self.database)

    def _logged(self, _logger: Any, level: str, fields: MutableMapping[str, Any]) -> Mapping[str, Any]:
        self._oracle.logged(str(fields.get("event")), level)
        raise structlog.DropEvent

    def prepare(self, replica: Replica) -> None:
        """Let the oracle watch a replica, and its calls take time."""
        dice = random.Random(f"{self._seed} {replica.name}")
        gate = replica.gate

        def delay() -> float:
            if gate.is_slow:
                return dice.uniform(0.1, 1.0)
            return dice.uniform(0.2, 0.9) if dice.random() < 0.01 else dice.uniform(0.001, 0.03)

        gate.delay = delay
        self._oracle.joined(replica)


MakeCluster = Callable[[Story, Oracle, Ways], SimulatedCluster]


class Play:
    """One play of a story.

    Args:
        story: what happens.
        make_cluster: makes the replicas and what they share.
    """

    def __init__(self, story: Story, make_cluster: MakeCluster = SimulatedCluster) -> None:
        self.story = story
        self.trace = Trace(anyio.current_time)
        self.oracle = Oracle(self.trace, anyio.current_time)
        self.deaths: dict[int, int] = {}
        self._places: list[Replica | None] = [None] * story.replicas
        self._busy: set[int] = set()
        self._make_cluster = make_cluster
        self._dice = random.Random(f"skew {story.seed}")

    async def run(self) -> Outcome:
        """Play it."""
        ways = Ways(self.oracle.interrupted, self._die, lambda: self.judge.thread(0))
        cluster = self.cluster = self._make_cluster(self.story, self.oracle, ways)
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
            await anyio.sleep(max(0.0, begun + self.story.seconds - anyio.current_time()))

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
        await self.cluster.database.refresh()
        if owners := self.cluster.database.owners():
            self.oracle.report("shards not released", f"{len(owners)} after all replicas have left")

    async def _watch(self) -> None:
        while True:
            await anyio.sleep(1.0)
            self.oracle.check_sessions()
            for replica in filter(None, self._places):
                self.oracle.check_kept(replica, self.judge.threads)

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
        if step.what == "lag":
            gate.gate.is_slow = True
            await anyio.sleep(step.seconds)
            gate.gate.is_slow = False
            return
        self._busy.add(step.where)
        try:
            await self._act_on(step, gate)
        finally:
            self._busy.discard(step.where)

    def _gate_of(self, step: Step) -> Replica | None:
        """Return the replica that a step disturbs; None if it cannot be, or is being disturbed already."""
        if step.what in {"fault", "drop notes"} or (step.where in self._busy and step.what != "lag"):
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
            case "refuse":
                gate.is_refusing = True
                await anyio.sleep(seconds)
                gate.is_refusing = False
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
