"""A cluster in one process, on virtual time: replicas of a real bot, one database, and the emulator.

    async with Cluster(plugins) as cluster:
        one, two = await cluster.join(), await cluster.join()
        thread = cluster.thread("Ann")
        cluster.say(thread, "Ann", "hi")
        one.pause()
        await cluster.until(lambda: cluster.replies(thread) == ["hi"])

`plugins` makes the plugins of each replica anew, so that nothing in memory is shared. What happens to a replica:
`join`, `leave` (SIGTERM), `kill` (kill -9), `pause` and `resume` (SIGSTOP, SIGCONT), `gate.is_cut_from_database`,
`gate.is_cut_from_service`, and a wrong wall clock (`skew`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import anyio
from anyio.abc import TaskStatus

from chatbot.bot import Bot, BotSettings
from chatbot.bot.monitoring import DoubleHealed, Observation, Observer
from chatbot.cluster.member import ClusterMember
from chatbot.dispatch import BotInfo, Dispatcher
from chatbot.emulator import Emulator, World
from chatbot.events import Event
from chatbot.model import ThreadId, UserId
from chatbot.plugin import Plugin
from chatbot.polling.cadence import Cadence
from chatbot.service.acs import AcsResource
from chatbot.service.budget import SharedQuotas
from chatbot.stores.records import BotRecord
from chatbot.stores.shards import shard_of, shard_of_bot
from chatbot.stores.writes import SaveBot
from chatbot.testing.outcomes import ends_the_test
from tests.cluster.database import Database, Rules, Witness
from tests.cluster.gate import Gate, GatedTransport
from tests.cluster.store import ModelStore

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

BEGUN: Final = 1_700_000_000.0
"""The wall time at which a cluster begins, epoch seconds."""

CADENCE: Final = Cadence(interval=1.0)
"""Polls are rarer than by default, so that an hour of silence costs less."""

PATIENCE_SECONDS: Final = 300.0
"""Seconds of virtual time after which `Cluster.until` gives up."""

Plugins = Callable[["Replica"], Sequence[Plugin]]
"""Makes the plugins of a replica."""


class Replica:
    """A process with one bot.

    Args:
        cluster: where it runs.
        name: its name.
        skew: seconds by which its wall clock is fast.
        limit: the largest share of the shards that it takes, 0 to 1; None without one.

    Attributes:
        gate: what separates it from the database and the service.
        store: its store.
        bot: its bot, once it has started.
    """

    def __init__(self, cluster: Cluster, name: str, *, skew: float = 0.0, limit: float | None = None) -> None:
        self.name = name
        self.gate = cluster.make_gate()
        self.store = cluster.make_store(name, self.gate, limit)
        self._bots: list[Bot] = []
        self.member = ClusterMember(self.store, lambda: self._bots)
        self._cluster = cluster
        self._skew = skew
        self._scope = anyio.CancelScope()
        self._stopping = anyio.Event()
        self._ended = anyio.Event()

    @property
    def bot(self) -> Bot:
        """The bot."""
        return self._bots[0]

    @property
    def is_running(self) -> bool:
        """Whether it has neither left nor been killed."""
        return not self._ended.is_set()

    def owns(self, thread: ThreadId) -> bool:
        """Return whether it serves a thread, as far as it knows."""
        return self.bot.context.owns(thread)

    def clock(self) -> float:
        """Its wall clock, epoch seconds."""
        return self._cluster.clock() + self._skew

    def pause(self) -> None:
        """Stop it, as SIGSTOP does."""
        self.gate.close()

    def resume(self) -> None:
        """Let it go on, as SIGCONT does."""
        self.gate.open()

    async def kill(self) -> None:
        """Kill it, as `kill -9` does. The server ends its session at once."""
        self.gate.die()
        self.store.break_connection()
        self._scope.cancel()
        await self._ended.wait()

    async def leave(self) -> None:
        """Stop it in order, as SIGTERM does."""
        self.store.stop_claiming()
        self._stopping.set()
        await self._ended.wait()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Run until it leaves or is killed."""
        try:
            with self._scope:
                async with self.store:
                    await self._run(task_status)
        finally:
            self._ended.set()

    async def _run(self, task_status: TaskStatus[None]) -> None:
        cluster = self._cluster
        resource = AcsResource(
            cluster.emulator.endpoint,
            access_key=cluster.emulator.access_key,
            transport=GatedTransport(cluster.emulator, self.gate),
            clock=cluster.clock,
            permit=self.member.permit,
        )
        record = await self._identity()
        info = BotInfo(record.name, record.user, record.name)
        async with resource:
            bot = Bot(
                name=record.name,
                service=resource.chat(record.user, resource.issued_tokens(record.user)),
                store=self.store,
                dispatcher=Dispatcher(cluster.plugins(self), bot=info, is_fatal=ends_the_test),
                settings=cluster.settings,
                display_name=record.name,
                first_started_ms=record.first_started_ms,
                shared=SharedQuotas(),
                clock=self.clock,
                on_failure=cluster.failed,
                observer=cluster.observer(self.name),
                ownership=self.member,
                log=cluster.log,
            )
            self._bots.append(bot)
            async with anyio.create_task_group() as group:
                group.start_soon(self.member.run)
                task_status.started()
                await self.run_bot(resource, self._stopping)
                group.cancel_scope.cancel()

    async def run_bot(self, resource: AcsResource, stopping: anyio.Event) -> None:
        """Run the bot until `stopping` is set, and it has finished its work."""
        await self.bot.run(stopping)

    async def _identity(self) -> BotRecord:
        """Return the bot's identity; the replica that comes first creates it."""
        cluster = self._cluster
        async with self.store.exclusive("identity bot"):
            known = await self.store.find_bot("bot", "model")
            if known is not None:
                return known
            user = UserId(cluster.emulator.create_user())
            record = BotRecord("bot", "model", user, first_started_ms=int(cluster.clock() * 1000))
            await self.store.commit(user, [SaveBot(record)])
            return record


class Cluster:
    """Replicas, their database and the service. Use it as `async with` block, which ends them.

    Args:
        plugins: makes the plugins of each replica.
        settings: of the bot.
        rules: what the database checks.
        witness: sees what happens in the database.
        seed: of the service's ids; None for random ones.
        raises_failures: a failure of a handler fails the test.

    Attributes:
        replica_type: the class of its replicas.
        replicas: all that have ever joined, in order.
        failures: failures of handlers.
        log: what the bots log to; None for the default.
        healed: how many doubles each replica has healed.
    """

    replica_type: type[Replica] = Replica

    def __init__(
        self,
        plugins: Plugins,
        *,
        settings: BotSettings | None = None,
        rules: Rules | None = None,
        witness: Witness | None = None,
        seed: int | None = None,
        raises_failures: bool = True,
    ) -> None:
        begun = anyio.current_time()
        self.clock: Callable[[], float] = lambda: BEGUN + anyio.current_time() - begun
        self.plugins = plugins
        self.settings = settings or BotSettings(cadence=CADENCE)
        self.emulator = Emulator(World(seed=seed), clock=self.clock)
        self.database = self.make_database(rules, witness)
        self.log: FilteringBoundLogger | None = None
        self.replicas: list[Replica] = []
        self.failures: list[tuple[Event | None, Exception]] = []
        self.healed: Counter[str] = Counter()
        self._raises_failures = raises_failures
        self._people: dict[str, UserId] = {}
        self._bot: UserId | None = None
        self._group = anyio.create_task_group()
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start the cluster, without any replica."""
        await self._exits.enter_async_context(self._group)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill all replicas that still run."""
        try:
            for replica in self.running:
                await replica.kill()
        finally:
            await self._exits.__aexit__(kind, error, trace)
            self.database.close()

    # ── what replicas use; for those who extend this class ────────────────────────────────────────────────────────

    def make_database(self, rules: Rules | None, witness: Witness | None) -> Database:
        """Return the database."""
        return Database(anyio.current_time, rules, witness)

    def make_gate(self) -> Gate:
        """Return what separates a replica from the others."""
        return Gate(anyio.current_time)

    def make_store(self, name: str, gate: Gate, limit: float | None) -> ModelStore:
        """Return the store of a replica."""
        return ModelStore(self.database, name, gate, limit=limit)

    # ── replicas ──────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def running(self) -> list[Replica]:
        """The replicas that have neither left nor been killed, also those that are paused."""
        return [replica for replica in self.replicas if replica.is_running]

    async def join(self, *, skew: float = 0.0, limit: float | None = None) -> Replica:
        """Start another replica."""
        replica = self.replica_type(self, f"r{len(self.replicas) + 1}", skew=skew, limit=limit)
        self.replicas.append(replica)
        self.prepare(replica)
        await self._group.start(replica.run)
        self._bot = replica.bot.user
        return replica

    def prepare(self, replica: Replica) -> None:
        """Change a replica before it starts; for those who extend this class."""

    def observer(self, replica: str) -> Observer:
        """Return what counts the doubles that a replica heals."""
        return _Healing(self.healed, replica)

    def failed(self, event: Event | None, error: Exception) -> None:
        """Note a failure of a handler or a lane."""
        self.failures.append((event, error))
        if self._raises_failures:
            raise error

    def owner_of(self, thread: ThreadId) -> Replica | None:
        """Return the replica that holds the lock of a thread's shard."""
        return self._owner_of_shard(shard_of(thread))

    @property
    def owner_of_bot(self) -> Replica | None:
        """The replica that holds what belongs to the bot and to no thread."""
        return self._owner_of_shard(shard_of_bot(self.bot))

    def _owner_of_shard(self, shard: int) -> Replica | None:
        name = self.database.owners().get(shard)
        return next((replica for replica in self.replicas if replica.name == name), None)

    def is_balanced(self) -> bool:
        """Return whether all running replicas own their share, and know it."""
        running = self.running
        counts = [len(replica.member.owned) for replica in running]
        return sum(counts) == 256 and max(counts) - min(counts) <= 1

    # ── people ────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def bot(self) -> UserId:
        """The bot's user."""
        assert self._bot is not None
        return self._bot

    def person(self, name: str) -> UserId:
        """Return the user of this name; the same one at each call."""
        if name not in self._people:
            self._people[name] = UserId(self.emulator.create_user())
        return self._people[name]

    def thread(self, *people: str) -> ThreadId:
        """Create a thread of these people and the bot."""
        users = [self.person(name) for name in people]
        others = [*users[1:], self.bot]
        return ThreadId(self.emulator.create_thread(users[0], "talk", others))

    def thread_of(self, replica: Replica, *people: str) -> ThreadId:
        """Create threads until one belongs to this replica; return it."""
        while True:
            thread = self.thread(*people)
            if self.owner_of(thread) is replica:
                return thread

    def say(self, thread: ThreadId, person: str, text: str) -> None:
        """Say something."""
        self.emulator.send(thread, self.person(person), text)

    def say_in(self, threads: Sequence[ThreadId], person: str, text: str) -> None:
        """Say something in each of these threads."""
        for thread in threads:
            self.say(thread, person, text)

    def replies(self, thread: ThreadId) -> list[str]:
        """Return what the bot has said in a thread, without what was deleted."""
        return [text for sender, text in self.emulator.texts(thread) if sender == self.bot]

    def all_replies(self, threads: Sequence[ThreadId]) -> Mapping[ThreadId, list[str]]:
        """Return the bot's replies in these threads."""
        return {thread: self.replies(thread) for thread in threads}

    async def until(
        self, is_done: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS, step: float = 0.05
    ) -> float:
        """Wait until something is true, looking every `step` seconds; return how long it took.

        Raises:
            TimeoutError: it is not true after so many seconds of virtual time.
        """
        begun = anyio.current_time()
        with anyio.fail_after(seconds):
            while not is_done():  # noqa: ASYNC110 what is waited for sets no event
                await anyio.sleep(step)
        return anyio.current_time() - begun

    async def balanced(self) -> float:
        """Wait until all running replicas own their share; return how long it took."""
        return await self.until(self.is_balanced, seconds=60)


class _Healing:
    def __init__(self, healed: Counter[str], replica: str) -> None:
        self._healed = healed
        self._replica = replica

    def observe(self, fact: Observation) -> None:
        self._healed[self._replica] += isinstance(fact, DoubleHealed)
