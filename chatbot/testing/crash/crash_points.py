"""What came of killing a bot at every point of a conversation, for people to read.

Crash points: play a conversation again and again, with a kill at every point where one could do harm.

`crash_points` plays a script once, undisturbed, and counts every store write, send, acknowledgement, edit and read
that the bots do. Then it plays the script once for each of these points, under each fault of the service, and kills
the bots there as `kill -9` would; they are started again, as a supervisor does. What is visible in the end, what was
handled, and what the bots remember must be as it was without the kill.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, TypeAlias

import anyio

from chatbot.bot import BotSettings
from chatbot.dispatch import Ack
from chatbot.emulator import Emulator, Fault, World
from chatbot.errors import StateError
from chatbot.model import ThreadId
from chatbot.plugin import Plugin
from chatbot.polling.cadence import Cadence
from chatbot.stores import MemoryStore
from chatbot.stores.base import Store
from chatbot.testing.crash.crash_injection import CrashableProcess, CrashKind, CrashPlan, Point
from chatbot.testing.crash.end_state import EndState, StatePath, differences, impersonal, name_of, timeless
from chatbot.testing.harness import VIRTUAL_PATIENCE, Harness, playing
from chatbot.testing.process import BotOptions, Part
from chatbot.testing.room import Room
from chatbot.testing.virtual_time import START, VirtualClock, VirtualTimeLoop, patient, virtual_loop

SHOWN_VIOLATIONS: Final = 5


@dataclass(frozen=True, slots=True)
class Violation:
    """A run that did not end as the undisturbed one.

    Args:
        point: where the bots were killed; None if they were not, so that the fault alone did it.
        fault: what the service did to them.
        wrong: what is wrong, a sentence each.
        transcript: the conversation.
    """

    point: Point | None
    fault: str
    wrong: Sequence[str]
    transcript: str

    def __str__(self) -> str:
        where = f"killed at {self.point}" if self.point else "not killed"
        lines = [f"{where}, {f'under {self.fault}' if self.fault else 'without a fault'}:"]
        lines += [f"  {sentence}" for sentence in self.wrong]
        lines += [f"    {line}" for line in self.transcript.splitlines()]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class CrashReport:
    """What came of all the kills.

    Args:
        points: how many points there were under each fault, by kind.
        runs: how often the conversation was played.
        violations: the runs that did not end well.
        unreached: kills that never came, as the run took another way; 0 unless the bots or the script do something
            random that `random` does not know of.
    """

    points: Mapping[str, Mapping[CrashKind, int]]
    runs: int
    violations: Sequence[Violation]
    unreached: int = 0

    @property
    def count(self) -> int:
        """How many points there were in all."""
        return sum(sum(kinds.values()) for kinds in self.points.values())

    @property
    def is_clean(self) -> bool:
        """Whether all was as it would have been without a kill."""
        return not self.violations

    def __str__(self) -> str:
        kinds = [kind for kind in CrashKind if any(kind in counts for counts in self.points.values())]
        width = max(len(text) for text in ("fault", "none", *self.points))
        lines = [f"{'fault':{width}}  {'points':>6}  {'  '.join(kinds)}"]
        for fault, counts in self.points.items():
            cells = "  ".join(f"{counts.get(kind, 0):{len(kind)}}" for kind in kinds)
            lines.append(f"{fault or 'none':{width}}  {sum(counts.values()):6}  {cells}")
        lines.append(f"{self.count} crash points in {self.runs} runs: {len(self.violations)} violations")
        if self.unreached:
            lines.append(f"{self.unreached} points were not reached again: something in the chat is random")
        lines += [f"\n{violation}" for violation in self.violations[:SHOWN_VIOLATIONS]]
        if len(self.violations) > SHOWN_VIOLATIONS:
            lines.append(f"\n… and {len(self.violations) - SHOWN_VIOLATIONS} more")
        return "\n".join(lines)


Script: TypeAlias = Callable[[Room], Awaitable[None]]
"""Plays a conversation in a room."""

NO_FAULT: Final = ""

CADENCE: Final = Cadence(interval=60, idle=120)
"""How often bots look by themselves: rarely, as every look is a point more; but see below."""

AFTERMATH: Final = timedelta(minutes=5)
"""How long the bots have, after the script, for what shows late: a double may take until the next whole look."""

EPOCH_SECONDS: Final = 4096.0
"""Every run begins at a multiple of this on the loop's clock: sums of such a number lose nothing in a float."""


async def crash_points(
    script: Script,
    *plugins: Plugin | Callable[[], Plugin],
    faults: Sequence[str] = (NO_FAULT,),
    store: Callable[[], Store] = MemoryStore,
    world: Callable[[], World] = lambda: World(seed=0),
    settings: BotSettings | None = None,
    ack: Ack = Ack.HANDLED,
    name: str = "bot",
    aftermath: timedelta = AFTERMATH,
    at: Collection[int] | None = None,
) -> CrashReport:
    """Kill a bot at every point of a conversation, and see whether anybody could tell.

    ::

        @pytest.mark.virtual_time
        async def test_no_kill_is_noticed() -> None:
            async def script(room: Room) -> None:
                await room.user("Ann").says("hi", "/roll 2 6")

            report = await crash_points(script, plugin, faults=["", "send_message:503,after=true"])
            print(report)
            assert report.is_clean, report

    Needs virtual time. What the script's people do waits for the bots, and for bots that die meanwhile until they are
    up again. The dice of `random` fall the same way in every run.

    Args:
        script: plays the conversation, from the beginning, in a fresh room each time; it may open others, and stop,
            kill and restart the bots.
        plugins: the bot's plugins, or functions that make them: these are called at each start of the bot, so that
            what a plugin keeps in its own memory is gone after a kill, as it is in production.
        faults: what the service does to the bot, each on its own: texts as `chatbot emulator --fault` takes them, and
            "" for nothing. The people are spared, unless a fault names them.
        store: makes the memory of each run.
        world: makes the service's world for each run, for other seeds and quirks.
        settings: how the bot is to behave. By default it looks every minute or two by itself; the more often it
            looks, the more points there are.
        ack: when the bot confirms that it has read.
        name: the bot's name.
        aftermath: how long to wait for late consequences after the script.
        at: kill at the points of these numbers only, and let the bots write their log: to look at a violation.

    Raises:
        StateError: the test runs in real time.
        Exception: whatever the undisturbed run raises.
    """
    loop = virtual_loop()
    if loop is None:
        msg = "crash_points() needs virtual time: mark the test @pytest.mark.virtual_time"
        raise StateError(msg)
    settings = settings or BotSettings(cadence=CADENCE)
    part = Part(name, (), BotOptions(settings, ack))
    play = _Player(loop, script, plugins, part, store=store, world=world, aftermath=aftermath, is_silent=at is None)
    undisturbed = await play.run()
    if undisturbed.error is not None:
        raise undisturbed.error
    points: dict[str, Counter[CrashKind]] = {}
    violations: list[Violation] = []
    runs = unreached = 0
    for fault in faults:
        untouched = undisturbed if fault == NO_FAULT else await play.run(fault)
        points[fault] = Counter(point.kind for point in untouched.points)
        violations += untouched.compared(undisturbed, fault)
        for point in untouched.points:
            if at is None or point.number in at:
                run = await play.run(fault, point.number)
                violations += run.compared(undisturbed, fault)
                unreached += not run.deaths
                runs += 1
        runs += 1
    return CrashReport(points, runs, violations, unreached)


@dataclass(frozen=True, slots=True)
class _Run:
    """One play of the script: what it was, and how it ended."""

    points: Sequence[Point]
    deaths: Sequence[Point]
    ending: EndState | None
    transcript: str
    error: Exception | None

    def compared(self, undisturbed: _Run, fault: str) -> Iterator[Violation]:
        """What is wrong, if anything is."""
        wrong = [f"the run failed: {type(self.error).__name__}: {self.error}"] if self.error is not None else []
        if self.ending is not None and undisturbed.ending is not None:
            wrong += differences(undisturbed.ending, self.ending)
        if wrong:
            yield Violation(self.deaths[0] if self.deaths else None, fault, wrong, self.transcript)


class _Player:
    """Plays the script, always in the same world."""

    def __init__(
        self,
        loop: VirtualTimeLoop,
        script: Script,
        plugins: Sequence[Plugin | Callable[[], Plugin]],
        part: Part,
        *,
        store: Callable[[], Store],
        world: Callable[[], World],
        aftermath: timedelta,
        is_silent: bool,
    ) -> None:
        self._loop = loop
        self._script = script
        self._plugins = plugins
        self._part = part
        self._store = store
        self._world = world
        self._aftermath = aftermath
        self._is_silent = is_silent

    async def run(self, fault: str = NO_FAULT, fatal: int | None = None) -> _Run:
        """Play the script once, and kill the bots at one point, if any."""
        now = self._loop.time()
        await anyio.sleep(-now % EPOCH_SECONDS)
        fate = CrashPlan(() if fatal is None else [fatal])
        store = patient(self._store(), self._loop)
        harness = self._harness(store, fate, [Fault.parse(fault)] if fault else [])
        ending, error = None, None
        with _same_dice():
            try:
                async with playing(harness) as room:
                    await self._play(room, harness)
                    fate.is_sealed = True
                    await room.settle()  # whoever died at the very end
                    ending = await _ending(harness, store)
            except Exception as raised:
                error = raised
        return _Run(fate.points, fate.deaths, ending, _transcript(harness), error)

    def _harness(self, store: Store, fate: CrashPlan, faults: Sequence[Fault]) -> Harness:
        clock = VirtualClock(self._loop, start=START - timedelta(seconds=self._loop.time()))
        return Harness(
            Emulator(self._world(), clock=clock),
            store,
            [self._part],
            patience=VIRTUAL_PATIENCE,
            raise_failures=False,
            process=partial(CrashableProcess, fate=fate, plugins=self._made, faults=faults, is_silent=self._is_silent),
        )

    def _made(self, _part: Part) -> list[Plugin]:
        return [one if isinstance(one, Plugin) else one() for one in self._plugins]

    async def _play(self, room: Room, harness: Harness) -> None:
        """Play to the end. Bots that are down then, or died while they were stopped, settle in a life more."""
        await self._script(room)
        if not harness.process.is_running:
            await room.start()
        await room.advance(self._aftermath)


@contextmanager
def _same_dice() -> Iterator[None]:
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


async def _ending(harness: Harness, store: Store) -> EndState:
    process = harness.process
    assert isinstance(process, CrashableProcess)
    rooms = [room for room in harness.rooms if room.is_open]
    threads = {room.thread: f"room {number}" for number, room in enumerate(rooms)}
    return EndState(
        [_place(room, process) for room in rooms], await _memory(process, store, harness.stage.names, threads)
    )


def _place(room: Room, process: CrashableProcess) -> StatePath:
    names = room.stage.names
    bots = {guest.name for guest in room.bots.values()}
    head = room.emulator.world.state.room(room.thread).head
    people = sorted(room.people) if head.deleted is None else []
    handled = [event for event in process.handled.values() if getattr(event, "thread", None) == room.thread]
    return StatePath(
        replies=[(who, timeless(text)) for who, text in room.said if who in bots],
        handled=[name_of(event, names) for event in handled],
        read={who: timeless(text) for who, text in room.read.items() if who in bots & {*people}},
        people=people,
        topic=head.topic,
    )


async def _memory(
    process: CrashableProcess, store: Store, names: Mapping[str, str], threads: Mapping[ThreadId, str]
) -> dict[str, list[str]]:
    memory: dict[str, list[str]] = {}
    for guest in process.guests.values():
        bot = guest.user
        memory |= {
            f"wishes that {guest.name} still owes": [repr(row.action) for row in await store.pending(bot)],
            f"dead letters of {guest.name}": sorted(
                f"{name_of(letter.event, names)} in {letter.handler}: {letter.error}"
                for letter in await store.dead_letters(bot)
            ),
            f"timers of {guest.name}": sorted(timer.handler for timer in await store.timers(bot)),
            f"dialogs of {guest.name}": sorted(dialog.handler for dialog in await store.dialogs(bot)),
            f"threads of {guest.name}": sorted(
                f"{threads.get(record.thread, record.thread)}{' (left)' if record.is_left else ''}"
                for record in await store.threads(bot)
            ),
        }
    for bot, key in process.states:
        stored = await store.state(bot, key)
        whose = " of ".join(
            filter(None, (key.name, names.get(key.user or "", key.user), threads.get(key.thread or ThreadId(""))))
        )
        memory[f"state {whose}"] = [impersonal(stored.value, names)] if stored else []
    return memory


def _transcript(harness: Harness) -> str:
    return "\n\n".join(room.transcript for room in harness.rooms if room.is_open)
