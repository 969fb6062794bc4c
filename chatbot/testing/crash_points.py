"""Crash points: run a conversation again and again, with a kill at every point where one could do harm.

`crash_points` runs a script once without a kill, and counts every store write, send, receipt, edit and read of the
bots. Then it runs the script once for each of these points, under each fault of the service, and kills the bots there
as `kill -9` does; they are started again as a supervisor does. What is visible in the end, what was handled, and what
is stored must be as without the kill. The report is written for people to read.

A kill costs time, and changes the ids and times that the service gives: an `EndState` is without these. Nothing else
may differ between two runs.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final, TypeAlias

import anyio

from chatbot.bot import BotSettings
from chatbot.dispatch import Ack
from chatbot.emulator import Emulator, Fault, World
from chatbot.errors import StateError
from chatbot.events import (
    ActionFailed,
    Event,
    MessageDeleted,
    MessageEvent,
    ParticipantsAdded,
    ParticipantsRemoved,
)
from chatbot.model import ThreadId
from chatbot.plugin import Plugin
from chatbot.polling.cadence import Cadence
from chatbot.stores import MemoryStore
from chatbot.stores.base import Store
from chatbot.testing.crash_injection import CrashableProcess, CrashKind, CrashPlan, Point
from chatbot.testing.harness import VIRTUAL_LIMIT, Harness, run_harness
from chatbot.testing.process import BotOptions, BotSpec
from chatbot.testing.room import Room
from chatbot.testing.virtual_time import START, VirtualClock, VirtualTimeLoop, store_in_real_time, virtual_loop

_KEY: Final = re.compile(r"\bk[0-9a-f]{32}\b")
_TIMES: Final = re.compile(r"(?<!\d)1[67]\d{11}(?!\d)")
"""Milliseconds since 1970 as the service's ids and versions have them, on the days of a virtual clock."""


@dataclass(frozen=True, slots=True)
class RoomState:
    """How one room ended.

    Args:
        replies: name and final text of what bots said, in order.
        handled: the events that handlers were given, in the order of the last time of each.
        read: by bot in the room, the text up to which it has sent read receipts.
        people: the names of all who are in the room.
        topic: the topic.
    """

    replies: Sequence[tuple[str, str]]
    handled: Sequence[str]
    read: Mapping[str, str]
    people: Sequence[str]
    topic: str


@dataclass(frozen=True, slots=True)
class EndState:
    """How a chat ended.

    Args:
        rooms: its rooms, in the order in which they were opened.
        stored: what is in the store, by kind.
    """

    rooms: Sequence[RoomState]
    stored: Mapping[str, Sequence[str]] = field(default_factory=dict)


def without_times(text: str) -> str:
    """Replace the ids and times of the service, which differ between runs."""
    return _TIMES.sub("<time>", text)


def without_ids(value: str, names: Mapping[str, str]) -> str:
    """Replace user ids in a stored state (JSON text) by names, and the keys of messages and timers by "a key".

    User ids differ between runs, and keys are made from the bot's id.
    """
    value = _KEY.sub("a key", value)
    for user, name in names.items():
        value = value.replace(user, json.dumps(name)[1:-1])
    return without_times(json.dumps(json.loads(value), sort_keys=True, ensure_ascii=False))


def describe_event(event: Event, names: Mapping[str, str]) -> str:
    """Describe an event without ids and times."""
    kind = type(event).__name__
    if isinstance(event, ParticipantsAdded | ParticipantsRemoved):
        return f"{kind} {', '.join(names.get(member.user, member.user) for member in event.participants)}"
    if isinstance(event, MessageEvent) and not isinstance(event, MessageDeleted):
        return without_times(f"{kind} {event.message.content!r}")
    if isinstance(event, ActionFailed):
        return without_times(f"{kind} {event.action!r}: {event.reason}")
    return kind


def differences(expected: EndState, actual: EndState) -> list[str]:
    """Return what differs from the expected end state, one sentence each."""
    wrong: list[str] = []
    for number, (there, here) in enumerate(zip(expected.rooms, actual.rooms, strict=False)):
        where = f" in room {number}" if len(expected.rooms) > 1 else ""
        wrong += [f"{sentence}{where}" for sentence in _room_differences(there, here)]
    if len(expected.rooms) != len(actual.rooms):
        wrong.append(f"there are {len(actual.rooms)} rooms, not {len(expected.rooms)}")
    for kind in sorted({*expected.stored, *actual.stored}):
        wanted, got = expected.stored.get(kind, ()), actual.stored.get(kind, ())
        if wanted != got:
            wrong.append(f"{kind}: {_listed(got)}; without the crash: {_listed(wanted)}")
    return wrong


def _room_differences(expected: RoomState, actual: RoomState) -> list[str]:
    wanted, got = Counter(expected.replies), Counter(actual.replies)
    wrong = [f"missing: {name}: {text!r}" for name, text in wanted - got]
    for reply in got - wanted:
        kind = "doubled" if reply in wanted else "unexpected"
        wrong.append(f"{kind}: {reply[0]}: {reply[1]!r}")
    if not wrong and list(expected.replies) != list(actual.replies):
        wrong.append(f"out of order: {[text for _, text in actual.replies]}")
    lost = Counter(expected.handled) - Counter(actual.handled)
    wrong += [f"never handled: {event}" for event in lost]
    if not lost and _only_expected(actual.handled, expected.handled) != list(expected.handled):
        wrong.append(f"handled out of order: {_listed(actual.handled)}")
    for what in ("read", "people", "topic"):
        wanted, got = getattr(expected, what), getattr(actual, what)
        if wanted != got:
            wrong.append(f"{what}: {got}, not {wanted}")
    return wrong


def _only_expected(handled: Sequence[str], expected: Sequence[str]) -> list[str]:
    """Drop repeated and additional events from what was handled: neither is a loss of order."""
    surplus = Counter(handled) - Counter(expected)
    kept: list[str] = []
    for event in handled:
        if surplus[event]:
            surplus[event] -= 1
        else:
            kept.append(event)
    return kept


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items) or "nothing"


SHOWN_VIOLATIONS: Final = 5


@dataclass(frozen=True, slots=True)
class Violation:
    """A run that did not end like the run without a kill.

    Args:
        point: where the bots were killed; None if they were not, and the fault alone is the cause.
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
    """The results of all runs.

    Args:
        points: how many points there were under each fault, by kind.
        runs: how often the conversation ran: once without a kill, and once for each kill.
        violations: the runs that did not end well.
        unreached: kills that did not happen because the run took another path; 0 unless the bots or the script do
            something random that does not come from `random`.
    """

    points: Mapping[str, Mapping[CrashKind, int]]
    runs: int
    violations: Sequence[Violation]
    unreached: int = 0

    @property
    def count(self) -> int:
        """The number of all points."""
        return sum(sum(kinds.values()) for kinds in self.points.values())

    @property
    def is_clean(self) -> bool:
        """Whether every run ended as without a kill."""
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
"""A function that plays a conversation in a room."""

NO_FAULT: Final = ""

CADENCE: Final = Cadence(interval=60, idle=120)
"""Bots poll rarely by themselves, because every poll is one more point."""

AFTERMATH: Final = timedelta(minutes=5)
"""How long the bots run after the script: a double may show only at the next full poll."""

EPOCH_SECONDS: Final = 4096.0
"""Every run begins at a multiple of this on the loop's clock, so that float sums are rounded alike in all runs."""

FIRST_EPOCH_SECONDS: Final = 2.0**24
"""The first run begins no earlier: floats near zero are finer, so its sums would be rounded unlike those of later runs.
Up to the next power of two there is room for 4,096 runs."""


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
    every: int = 1,
    at: Collection[int] | None = None,
) -> CrashReport:
    """Kill a bot at every point of a conversation, and report every difference that the kill made.

    ::

        @pytest.mark.virtual_time
        async def test_no_kill_is_noticed() -> None:
            async def script(room: Room) -> None:
                await room.user("Ann").says("hi", "/roll 2 6")

            report = await crash_points(script, plugin, faults=["", "send_message:503,after=true"])
            print(report)
            assert report.is_clean, report

    Needs virtual time. What people do in the script waits for the bots, and for bots that crash until they are up
    again. `random` gives the same numbers in every run.

    Args:
        script: plays the conversation in a new room each time; it may open others, and stop, kill and restart the
            bots.
        plugins: the bot's plugins, or functions that make them: these are called at each start of the bot, so that
            what a plugin keeps in memory is gone after a kill, as in production.
        faults: the faults of the service, one after the other: texts as `chatbot emulator --fault` takes them, and ""
            for none. They do not affect people, unless a fault names them.
        store: makes the store of each run.
        world: makes the service's world for each run, for other seeds and quirks.
        settings: of the bot. By default it polls every minute or two by itself; the more often it polls, the more
            points there are.
        ack: when the bot sends read receipts.
        name: the bot's name.
        aftermath: how long the bots run after the script.
        every: kill at every n-th point only: a sample, for a quick run of a long conversation.
        at: kill at the points of these numbers only, and write the bots' log: to examine a violation.

    Raises:
        StateError: the test runs in real time.
        ValueError: `every` is less than 1.
        Exception: whatever the run without a kill raises.
    """
    loop = virtual_loop()
    if loop is None:
        msg = "crash_points() needs virtual time: mark the test @pytest.mark.virtual_time"
        raise StateError(msg)
    if every < 1:
        msg = f"crash_points() kills at every point (1), every second one (2) or fewer, not at every {every}"
        raise ValueError(msg)
    settings = settings or BotSettings(cadence=CADENCE)
    spec = BotSpec(name, (), BotOptions(settings, ack))
    play = _ScriptRunner(
        loop, script, plugins, spec, store=store, world=world, aftermath=aftermath, is_silent=at is None
    )
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
            if point.number % every == 0 and (at is None or point.number in at):
                run = await play.run(fault, point.number)
                violations += run.compared(undisturbed, fault)
                unreached += not run.crashes
                runs += 1
        runs += 1
    return CrashReport(points, runs, violations, unreached)


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of the script, and how it ended."""

    points: Sequence[Point]
    crashes: Sequence[Point]
    ending: EndState | None
    transcript: str
    error: Exception | None

    def compared(self, undisturbed: _Run, fault: str) -> Iterator[Violation]:
        wrong = [f"the run failed: {type(self.error).__name__}: {self.error}"] if self.error is not None else []
        if self.ending is not None and undisturbed.ending is not None:
            wrong += differences(undisturbed.ending, self.ending)
        if wrong:
            yield Violation(self.crashes[0] if self.crashes else None, fault, wrong, self.transcript)


class _ScriptRunner:
    """Runs the script, always in the same world."""

    def __init__(
        self,
        loop: VirtualTimeLoop,
        script: Script,
        plugins: Sequence[Plugin | Callable[[], Plugin]],
        spec: BotSpec,
        *,
        store: Callable[[], Store],
        world: Callable[[], World],
        aftermath: timedelta,
        is_silent: bool,
    ) -> None:
        self._loop = loop
        self._script = script
        self._plugins = plugins
        self._spec = spec
        self._store = store
        self._world = world
        self._aftermath = aftermath
        self._is_silent = is_silent

    async def run(self, fault: str = NO_FAULT, fatal: int | None = None) -> _Run:
        """Run the script once, and kill the bots at the point `fatal`, if given."""
        now = self._loop.time()
        earliest = max(now, FIRST_EPOCH_SECONDS)
        await anyio.sleep(earliest - now + -earliest % EPOCH_SECONDS)
        plan = CrashPlan(() if fatal is None else [fatal])
        store = store_in_real_time(self._store(), self._loop)
        harness = self._harness(store, plan, [Fault.parse(fault)] if fault else [])
        ending, error = None, None
        with _same_random():
            try:
                async with run_harness(harness) as room:
                    await self._play(room, harness)
                    plan.is_sealed = True
                    await room.settle()  # for bots that crashed at the very end
                    ending = await _end_state(harness, store)
            except Exception as raised:
                error = raised
        return _Run(plan.points, plan.crashes, ending, _transcript(harness), error)

    def _harness(self, store: Store, plan: CrashPlan, faults: Sequence[Fault]) -> Harness:
        clock = VirtualClock(self._loop, start=START - timedelta(seconds=self._loop.time()))
        return Harness(
            Emulator(self._world(), clock=clock),
            store,
            [self._spec],
            patience=VIRTUAL_LIMIT,
            raise_failures=False,
            process=partial(CrashableProcess, plan=plan, plugins=self._made, faults=faults, is_silent=self._is_silent),
        )

    def _made(self, _spec: BotSpec) -> list[Plugin]:
        return [plugin if isinstance(plugin, Plugin) else plugin() for plugin in self._plugins]

    async def _play(self, room: Room, harness: Harness) -> None:
        """Run to the end. Bots that are down then, or crashed while they were stopped, get one more life to settle."""
        await self._script(room)
        if not harness.process.is_running:
            await room.start()
        await room.advance(self._aftermath)


@contextmanager
def _same_random() -> Iterator[None]:
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


async def _end_state(harness: Harness, store: Store) -> EndState:
    process = harness.process
    assert isinstance(process, CrashableProcess)
    rooms = [room for room in harness.rooms if room.is_open]
    threads = {room.thread: f"room {number}" for number, room in enumerate(rooms)}
    return EndState(
        [_room_state(room, process) for room in rooms], await _stored(process, store, harness.stage.names, threads)
    )


def _room_state(room: Room, process: CrashableProcess) -> RoomState:
    names = room.stage.names
    bots = {guest.name for guest in room.bots.values()}
    head = room.emulator.world.state.room(room.thread).head
    people = sorted(room.people) if head.deleted is None else []
    handled = [event for event in process.handled.values() if getattr(event, "thread", None) == room.thread]
    return RoomState(
        replies=[(who, without_times(text)) for who, text in room.said if who in bots],
        handled=[describe_event(event, names) for event in handled],
        read={who: without_times(text) for who, text in room.read.items() if who in bots & {*people}},
        people=people,
        topic=head.topic,
    )


async def _stored(
    process: CrashableProcess, store: Store, names: Mapping[str, str], threads: Mapping[ThreadId, str]
) -> dict[str, list[str]]:
    memory: dict[str, list[str]] = {}
    for guest in process.members.values():
        bot = guest.user
        memory |= {
            f"actions that {guest.name} has not sent": [repr(row.action) for row in await store.pending(bot)],
            f"dead letters of {guest.name}": sorted(
                f"{describe_event(letter.event, names)} in {letter.handler}: {letter.error}"
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
        memory[f"state {whose}"] = [without_ids(stored.value, names)] if stored else []
    return memory


def _transcript(harness: Harness) -> str:
    return "\n\n".join(room.transcript for room in harness.rooms if room.is_open)
