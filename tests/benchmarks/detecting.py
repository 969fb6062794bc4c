"""The scenes of `detection`: people who talk, and contenders who notice, in virtual time and in this process.

Every request is the SDK's own, into the emulator with its quotas, and takes 30 to 80 ms of virtual time.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import anyio

from chatbot import Context, Plugin
from chatbot.bot import Bot, BotSettings
from chatbot.dispatch import Ack, BotInfo, Dispatcher
from chatbot.emulator import Emulator, Faults, World
from chatbot.model import ThreadId, UserId
from chatbot.polling.cadence import Cadence
from chatbot.service.acs import AcsResource
from chatbot.service.base import ChatService
from chatbot.stores import MemoryStore
from chatbot.stores.records import ThreadRecord
from chatbot.stores.writes import MoveHorizon, SaveThread
from chatbot.testing.transport import AsgiTransport
from chatbot.testing.virtual_time import VirtualClock, VirtualTimeLoop

LATENCY = "*:latency=0.03..0.08"
QUIET_SECONDS = 400.0
PAGE_SIZE = 50


@dataclass(frozen=True)
class Talk:
    """How people talk in a thread: so many messages at once, a second apart, after pauses of about this long."""

    pause: float
    burst: int = 1


SILENT, BURSTY, BUSY = Talk(120.0), Talk(60.0, burst=5), Talk(3.0)


@dataclass
class Scene:
    """A service with threads, and what was noticed in them: who a message is from, and how late it was seen."""

    emulator: Emulator
    service: ChatService
    clock: VirtualClock
    person: str
    groups: dict[str, list[ThreadId]]
    latencies: dict[str, list[float]] = field(default_factory=dict)
    seen: set[tuple[str, int]] = field(default_factory=set)

    @property
    def threads(self) -> list[ThreadId]:
        return [thread for group in self.groups.values() for thread in group]

    def notice(self, thread: ThreadId, number: int, text: str) -> None:
        """A contender has seen a message; its text is the name of its group."""
        if (thread, number) not in self.seen:
            self.seen.add((thread, number))
            self.latencies.setdefault(text, []).append(self.clock() - number / 1000)


@dataclass(frozen=True)
class Outcome:
    """What came of a scene.

    Args:
        median, worst: seconds until a message was noticed, by the name of the group.
        missed: messages that were said, early enough, and not noticed.
        requests: list_threads and list_messages a minute.
        lists: list_threads a minute.
        refused: requests that the service answered with 429.
    """

    median: dict[str, float]
    worst: dict[str, float]
    missed: int
    requests: float
    lists: float
    refused: int


Contender = Callable[[Scene], Awaitable[None]]


def play(contender: Contender, groups: dict[str, tuple[Talk, int]], *, seconds: float, silent: int = 0) -> Outcome:
    """Let people talk in groups of so many threads each, and a contender notice.

    Args:
        contender: notices, until it is cancelled.
        groups: by name, how people talk there, and in how many threads.
        seconds: how long.
        silent: so many threads more, in which nobody talks.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(_play(contender, groups, seconds, silent))


async def _play(contender: Contender, groups: dict[str, tuple[Talk, int]], seconds: float, silent: int) -> Outcome:
    clock = VirtualClock()
    emulator = Emulator(World(seed=1), clock=clock, faults=Faults([LATENCY]))
    user, person = UserId(emulator.create_user()), emulator.create_user()
    made = {
        name: _threads(emulator, person, user, count) for name, (_, count) in {**groups, "": (SILENT, silent)}.items()
    }
    await anyio.sleep(QUIET_SECONDS)
    said = list[tuple[str, int]]()
    transport = AsgiTransport(emulator)
    async with AcsResource.from_connection_string(emulator.connection_string, transport=transport, clock=clock) as acs:
        scene = Scene(emulator, acs.chat(user, acs.issued_tokens(user)), clock, person, made)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(contender, scene)
            await anyio.sleep(5)
            counts = _Counts(emulator)
            tasks.start_soon(counts.watch)
            for name, (talk, _) in groups.items():
                for number, thread in enumerate(made[name]):
                    dice = random.Random(f"{name}{number}")
                    tasks.start_soon(_talk, scene, thread, name, talk, dice, seconds, said)
            await anyio.sleep(seconds + 10)
            tasks.cancel_scope.cancel()
    times = {name: scene.latencies.get(name, []) for name in groups}
    return Outcome(
        median={name: statistics.median(taken) for name, taken in times.items() if taken},
        worst={name: max(taken) for name, taken in times.items() if taken},
        missed=len(set(said) - scene.seen),
        requests=counts.of("list_threads", "list_messages") * 60 / (seconds + 10),
        lists=counts.of("list_threads") * 60 / (seconds + 10),
        refused=counts.refused,
    )


def _threads(emulator: Emulator, person: str, user: UserId, count: int) -> list[ThreadId]:
    return [ThreadId(emulator.create_thread(person, f"{number}", [user])) for number in range(count)]


async def _talk(
    scene: Scene,
    thread: ThreadId,
    name: str,
    talk: Talk,
    dice: random.Random,
    seconds: float,
    said: list[tuple[str, int]],
) -> None:
    end = anyio.current_time() + seconds
    while True:
        await anyio.sleep(dice.uniform(0.0, 2 * talk.pause))
        for _ in range(talk.burst):
            if anyio.current_time() >= end:
                return
            said.append((thread, scene.emulator.send(thread, scene.person, name)))
            await anyio.sleep(dice.uniform(0.5, 1.5) if talk.burst > 1 else 0)


class _Counts:
    """Counts the service's calls, which it remembers for a while only."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._counts: dict[str, int] = {}
        self.refused = 0
        emulator.calls.clear()

    async def watch(self) -> None:
        while True:
            await anyio.sleep(1)
            self._take()

    def _take(self) -> None:
        for call in self._emulator.calls:
            self._counts[call.operation] = self._counts.get(call.operation, 0) + 1
            self.refused += call.status == 429
        self._emulator.calls.clear()

    def of(self, *operations: str) -> int:
        self._take()
        return sum(self._counts.get(operation, 0) for operation in operations)


def fixed(interval: float) -> Contender:
    """Ask every thread again and again, as the quickstart's readers do."""

    async def poll(scene: Scene, thread: ThreadId, phase: float) -> None:
        await anyio.sleep(phase)
        while True:
            page = await scene.service.list_messages(thread, page_size=PAGE_SIZE)
            for message in page.messages:
                if message.is_said:
                    scene.notice(thread, int(message.id), message.content or "")
            await anyio.sleep(interval)

    async def contend(scene: Scene) -> None:
        dice = random.Random(1)
        async with anyio.create_task_group() as tasks:
            for thread in scene.threads:
                tasks.start_soon(poll, scene, thread, dice.uniform(0, interval))

    return contend


def ours(cadence: Cadence) -> Contender:
    """The whole bot, on a store that knows the threads."""

    async def contend(scene: Scene) -> None:
        plugin = Plugin("witness")

        @plugin.message()
        async def witness(ctx: Context) -> None:
            scene.notice(ctx.event.thread, int(ctx.event.message.id), ctx.text)

        user = scene.service.user
        async with MemoryStore() as store:
            await store.commit(user, [*_known(scene), MoveHorizon(int(scene.clock() * 1000))])
            bot = Bot(
                name="bot",
                service=scene.service,
                store=store,
                dispatcher=Dispatcher([plugin], bot=BotInfo("bot", user, "bot"), ack=Ack.MANUAL),
                settings=BotSettings(cadence=cadence),
                clock=scene.clock,
            )
            await bot.run(anyio.Event())

    return contend


def _known(scene: Scene) -> Sequence[SaveThread]:
    records = []
    for thread in scene.threads:
        seen = {message.id: message.version for message in scene.emulator.transcript(thread)}
        records.append(SaveThread(ThreadRecord(thread, floor=0, base=max(seen.values()), seen=seen)))
    return records
