"""The test harness: whole bots against the emulator in this process, with people who talk to them.

Everything is real, the official SDK included, except the network, which is a function call into the emulator, and
waiting, which virtual time skips. Authors of bots use `chat`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from os import PathLike
from typing import Any, Final

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from chatbot.bot import BotSettings
from chatbot.dispatch import Ack, Rate
from chatbot.emulator import Emulator, Quirks, World
from chatbot.emulator.snapshots import Contents, find, load
from chatbot.errors import StateError, StoreError, described
from chatbot.model import ThreadId
from chatbot.plugin import Plugin
from chatbot.polling.cadence import Cadence
from chatbot.stores import MemoryStore
from chatbot.stores.base import Store
from chatbot.stores.records import DeadLetter
from chatbot.testing.outcomes import detecting_interrupts, raising_test_outcomes
from chatbot.testing.process import BotOptions, BotProcess, BotSpec, Failure
from chatbot.testing.provided import check_provided, with_provided
from chatbot.testing.room import Room
from chatbot.testing.transcripts import check_plugins_fit, transcript, without_framework_frames
from chatbot.testing.transport import Stage
from chatbot.testing.virtual_time import (
    START,
    VirtualClock,
    VirtualTimeLoop,
    store_in_real_time,
    virtual_loop,
    waiting_places,
)

__tracebackhide__ = True  # pytest: what is of interest is the author's test and code

VIRTUAL_LIMIT: Final = timedelta(hours=1)
REAL_LIMIT: Final = timedelta(seconds=20)

VIRTUAL_CADENCE: Final = Cadence(interval=300, idle=1800)
"""Polls are rare, so that a day of silence costs little: the harness asks for one whenever something has happened."""

REAL_CADENCE: Final = Cadence(interval=0.2, idle=5)

AFTER_SNAPSHOT: Final = timedelta(minutes=1)
"""How long after the last change of its snapshot a chat begins on virtual time."""

SHOWN_MESSAGES: Final = 40
"""How much of the conversation a failing test shows."""


class Harness:
    """What the rooms of one chat share: the service, the bots' process, the failures, and the deadline.

    Args:
        emulator: the service.
        store: the store of the bots.
        specs: the bots.
        patience: how long one act may take until the chat counts as hanging.
        raise_failures: failures of handlers fail the test.
        process: makes the process that runs the bots.
    """

    def __init__(
        self,
        emulator: Emulator,
        store: Store,
        specs: Sequence[BotSpec],
        *,
        patience: timedelta,
        raise_failures: bool,
        process: Callable[[Stage, Store, Sequence[BotSpec], Callable[[Failure], None]], BotProcess] = BotProcess,
    ) -> None:
        self.stage = Stage(emulator)
        self.process = process(self.stage, store, specs, self._record_failure)
        self.failures: list[Failure] = []
        self.rooms: list[Room] = []
        self.dead_letters: list[DeadLetter] = []
        self.threads: dict[str, ThreadId] = {}
        self.is_waiting = True
        self._store = store
        self._raises_failures = raise_failures
        self._raised = 0
        self._patience = patience
        self._deadline = anyio.current_time()
        self._group: TaskGroup | None = None
        self.extend_deadline()

    def open_room(self, topic: str) -> Room:
        """Return another room; its thread is created when somebody enters, or is the snapshot's of this topic."""
        self.rooms.append(Room(self, topic, self.threads.pop(topic, None)))
        return self.rooms[-1]

    def open_first_room(self) -> Room:
        """Return the first room: of a snapshot, the thread in which something happened last."""
        state = self.stage.emulator.world.state
        latest = max(self.threads, key=lambda topic: state.room(self.threads[topic]).version, default="room")
        return self.open_room(latest)

    def adopt(self, found: Contents) -> None:
        """Open rooms in the threads of a snapshot, with the users who have names there."""
        self.stage.adopt(found.users)
        self.threads = {topic: ThreadId(thread) for topic, thread in found.threads.items()}

    # ── failures ──────────────────────────────────────────────────────────────────────────────────────────────

    def _record_failure(self, failure: Failure) -> None:
        self.failures.append(failure)

    def raise_failures(self) -> None:
        """Raise what handlers have raised since the last call: the latest failure of each event, retries or not."""
        fresh, self._raised = self.failures[self._raised :], len(self.failures)
        if not self._raises_failures:
            return
        latest = {(failure.bot, failure.event and failure.event.key): failure for failure in fresh}
        for failure in latest.values():
            what = type(failure.event).__name__ if failure.event else "no event in particular"
            failure.error.add_note(f"raised in bot {failure.bot!r} while it handled: {what}")
        errors = [without_framework_frames(failure.error) for failure in latest.values()]
        if len(errors) == 1:
            raise errors[0]
        if errors:
            msg = f"{len(errors)} handlers failed"
            raise ExceptionGroup(msg, errors)

    # ── time and process ──────────────────────────────────────────────────────────────────────────────────────

    async def run(self, group: TaskGroup) -> None:
        """Start the deadline and the bots."""
        self._group = group
        group.start_soon(self._watch, name="the deadline of the chat")
        await self.start()

    async def start(self) -> None:
        """Start the bots' process."""
        assert self._group is not None
        await self.process.start(self._group)

    async def settle(self) -> None:
        """Wait for the bots in all rooms, unless `is_waiting` is off; then raise failures."""
        self.extend_deadline()
        if self.is_waiting:
            await self.process.settle([room.thread for room in self.rooms if room.is_open])
            self.extend_deadline()
        await self._read_dead_letters()
        self.raise_failures()

    async def _read_dead_letters(self) -> None:
        """Read the bots' dead letters; those read last stay while no bot runs."""
        if self.process.is_running:
            # The bots may be killed meanwhile: their store fails in the middle of a read, or is closed before it.
            with suppress(StateError, StoreError):
                users = [member.user for member in self.process.members.values()]
                self.dead_letters = [letter for user in users for letter in await self._store.dead_letters(user)]

    def extend_deadline(self, seconds: float = 0.0) -> None:
        """Start the deadline again from now, plus some seconds."""
        self._deadline = anyio.current_time() + self._patience.total_seconds() + seconds

    async def _watch(self) -> None:
        """Fail the chat when it hangs, and say where."""
        while anyio.current_time() < self._deadline:  # noqa: ASYNC110 -- it is time that is waited for
            await anyio.sleep_until(self._deadline)
        raise TimeoutError(self._explain_hang())

    def _explain_hang(self) -> str:
        kind = "virtual" if virtual_loop() else "real"
        return (
            f"nothing happened within {self._patience} of {kind} time. If nothing hangs, give the chat more "
            "patience: chat(…, patience=timedelta(…)). Waiting are:\n" + waiting_places(asyncio.all_tasks())
        )

    def explain(self, error: BaseException) -> None:
        """Add the conversation to an error, and the failures of handlers that it does not contain."""
        raised = error.exceptions if isinstance(error, BaseExceptionGroup) else (error,)
        latest = {(failure.bot, failure.event and failure.event.key): failure for failure in self.failures}
        for failure in latest.values():
            if failure.error not in raised:
                error.add_note(f"\nIn bot {failure.bot!r} a handler failed: {_shown(failure.error)}")
        for room in self.rooms:
            if room.is_open:
                text = transcript(room.messages, self.stage.names, last=SHOWN_MESSAGES)
                error.add_note(f"\nWhat was said:\n{text}")


@asynccontextmanager
async def chat(
    *plugins: Plugin,
    name: str = "bot",
    bots: Mapping[str, Sequence[Plugin]] | None = None,
    store: Store | None = None,
    settings: BotSettings | None = None,
    ack: Ack = Ack.HANDLED,
    admins: Sequence[str] = (),
    allow: Sequence[str] | None = None,
    rate: Rate | None = None,
    apology: str | None = None,
    provide: Mapping[Any, object] | None = None,
    world: World | None = None,
    quirks: Quirks | str | PathLike[str] | None = None,
    snapshot: str | PathLike[str] | None = None,
    quotas: bool = True,
    raise_failures: bool = True,
    patience: timedelta | None = None,
) -> AsyncIterator[Room]:
    """Run bots against the emulator in this process, and yield the room where people talk to them.

    ::

        @pytest.mark.virtual_time
        async def test_bot() -> None:
            async with chat(plugin) as room:
                ann = room.user("Ann")
                await ann.says("hi", "/roll 2 6")
                assert room.replies == ["hi", "2d6"]

    Works on virtual time and in real time; only `Room.advance` needs virtual time. An error raised inside is raised as
    it is, with the conversation as a note.

    Args:
        plugins: the plugins of one bot, in order.
        name: the name of that bot.
        bots: further bots by name, each with its plugins.
        store: the store of the bots; by default one in memory, which survives a `restart` but not the chat.
        settings: settings of the bots. By default they poll rarely by themselves on virtual time, and often in real
            time; either way they poll at once when somebody acts in a room.
        ack: when the bots send read receipts.
        admins: the names of the people who are the bots' admins.
        allow: the names of the only people, besides admins, whom the bots answer; by default everybody.
        rate: how many answers each person gets in a thread; by default there is no limit.
        apology: what a person is told when all attempts to handle their message have failed, as in bots.yaml; by
            default nothing, so that `replies` holds only what plugins say.
        provide: objects by type, such as `{Api: FakeApi()}`, that handlers get in place of what the plugins' providers
            make; these providers are not called.
        world: the state of the service, to continue an earlier chat; by default a new one, the same for every test.
        quirks: how the service behaves where that is not known, or a file of `chatbot doctor --probe` that says how
            yours does; by default as the recordings of the service do.
        snapshot: the state of the service to begin with: a name, or a file that ends in `.snapshot`; see
            `Room.save_snapshot` and `chatbot emulator snapshot`. The first room is the thread in which something
            happened last, and `another` finds the others by topic. People and bots are who had their names. Virtual
            time begins a minute after the last change.
        quotas: the service throttles as the real one does; people wait then, too.
        raise_failures: a handler's failure fails the act that caused it. Otherwise see `Room.failures`.
        patience: how long an act may take until the chat counts as hanging; by default an hour of virtual time, or 20 s
            of real time.

    Raises:
        TimeoutError: something hangs; the message says where.
        PluginError: a plugin cannot be used.
        ValueError: the file of `quirks` cannot be used.
        SnapshotError: there is no such snapshot, or it cannot be used.
        TypeError: an argument is not a plugin, or `provide` has a type that no handler asks for.
    """
    loop = virtual_loop()
    world = world or World(seed=0)
    found = await _set_up(world, quirks, snapshot)
    settings = settings or BotSettings(cadence=VIRTUAL_CADENCE if loop else REAL_CADENCE)
    store = store or MemoryStore()
    harness = Harness(
        Emulator(world, clock=_virtual_clock(loop, found) if loop else time.time, quotas=quotas),
        store_in_real_time(store, loop) if loop else store,
        bot_specs(plugins, name, bots or {}, BotOptions(settings, ack, admins, allow, rate, apology), provide or {}),
        patience=patience or (VIRTUAL_LIMIT if loop else REAL_LIMIT),
        raise_failures=raise_failures,
    )
    if found is not None:
        harness.adopt(found)
    async with run_harness(harness) as room:
        yield room


@asynccontextmanager
async def run_harness(harness: Harness) -> AsyncIterator[Room]:
    """Run the bots, yield the room where people talk to them, and stop the bots."""
    with detecting_interrupts(), _unwrapping(), _explaining(harness):
        async with harness.stage.resource, anyio.create_task_group() as group:
            await harness.run(group)
            yield harness.open_first_room()
            harness.extend_deadline()
            await harness.process.stop()
            harness.raise_failures()
            group.cancel_scope.cancel()


async def _set_up(
    world: World, quirks: Quirks | str | PathLike[str] | None, snapshot: str | PathLike[str] | None
) -> Contents | None:
    """Set how the service behaves and what it holds; return the contents of the snapshot, if there is one."""
    if quirks is not None:
        world.quirks = quirks if isinstance(quirks, Quirks) else await anyio.to_thread.run_sync(_load_quirks, quirks)
    return None if snapshot is None else await load(world, find(snapshot))


def _virtual_clock(loop: VirtualTimeLoop, found: Contents | None) -> VirtualClock:
    """Return a clock that shows a time after everything in the snapshot: ids are times, and must go on rising."""
    if found is None:
        return VirtualClock(loop)
    begin = datetime.fromtimestamp(found.last_change / 1000, UTC) + AFTER_SNAPSHOT - timedelta(seconds=loop.time())
    return VirtualClock(loop, start=max(START, begin))


def _load_quirks(path: str | PathLike[str]) -> Quirks:
    if not isinstance(path, str | PathLike):
        msg = f"chat(quirks=…): write Quirks(start_time='exclusive'), or the path of a file, not {type(path).__name__}"
        raise TypeError(msg)
    try:
        return Quirks.load(path)
    except ValueError as error:
        msg = f"chat(quirks=…): {error}"
        raise ValueError(msg) from None


def bot_specs(
    plugins: Sequence[Plugin],
    name: str,
    bots: Mapping[str, Sequence[Plugin]],
    options: BotOptions,
    provide: Mapping[Any, object],
) -> list[BotSpec]:
    """Return the bots of a chat; for the arguments see `chat`."""
    named = {name: plugins, **bots} if plugins else dict(bots)
    if not named:
        msg = "chat() was given no plugin: give it those of one bot, chat(plugin), or bots={'name': [plugin]}"
        raise TypeError(msg)
    sources_of = {bot: with_provided(given, provide, "chat()") for bot, given in named.items()}
    check_provided([source for sources in sources_of.values() for source in sources], provide)
    for sources in sources_of.values():
        check_plugins_fit(sources)
    return [BotSpec(bot, tuple(sources), options) for bot, sources in sources_of.items()]


@contextmanager
def _explaining(harness: Harness) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if not isinstance(error, asyncio.CancelledError):
            harness.explain(_single(error))
        raise


@contextmanager
def _unwrapping() -> Iterator[None]:
    """Raise a group of a single error as that error, and what ends the test as it was raised."""
    try:
        with raising_test_outcomes():
            yield
    except BaseExceptionGroup as group:
        error = _single(group)
        if error is group:
            raise
        context = error.__context__
        try:
            raise error
        finally:  # the group is of no interest to the reader
            error.__context__ = context


def _shown(error: Exception) -> str:
    """Return the repr of an error; `__repr__` is a plugin's code and may fail."""
    try:
        return f"{error!r}"
    except BaseException:
        return described(error)


def _single(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
