"""The test harness: whole bots against the service in this process, with people who talk to them.

Everything is real, the official SDK included, except the network, which is a function call into the emulator, and
the waiting, which is skipped where a test runs on virtual time. `chat` is what authors of bots use.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from chatbot.bot import BotSettings
from chatbot.dispatch import Ack, Rate
from chatbot.emulator import Emulator, World
from chatbot.errors import StateError, StoreError, described
from chatbot.model import UserId
from chatbot.plugin import Plugin
from chatbot.polling.cadence import Cadence
from chatbot.stores import MemoryStore
from chatbot.stores.base import Store
from chatbot.stores.records import DeadLetter
from chatbot.testing.outcomes import ending_at_once, noting_interrupts
from chatbot.testing.process import BotOptions, BotProcess, HandlerFailure, Part
from chatbot.testing.provided import check_provided, with_provided
from chatbot.testing.room import Room
from chatbot.testing.transcripts import check_together, from_the_author_on, transcript
from chatbot.testing.transport import Stage
from chatbot.testing.virtual_time import VirtualClock, patient, virtual_loop, waiting_places

__tracebackhide__ = True  # pytest: what is of interest is the author's test and code

VIRTUAL_PATIENCE: Final = timedelta(hours=1)
REAL_PATIENCE: Final = timedelta(seconds=20)

VIRTUAL_CADENCE: Final = Cadence(interval=300, idle=1800)
"""Slow beats, so that a day of silence costs little: the harness rings whenever something has happened."""

REAL_CADENCE: Final = Cadence(interval=0.2, idle=5)

SHOWN_MESSAGES: Final = 40
"""How much of the conversation a failing test shows."""


class Harness:
    """What the rooms of one chat share: the service, the bots' process, the failures, and an end to all patience.

    Args:
        emulator: the service.
        store: the bots' memory.
        parts: what the bots are made of.
        patience: how long nothing may come of anything.
        raise_failures: let the failures of handlers fail the test.
        process: makes what runs the bots.
    """

    def __init__(
        self,
        emulator: Emulator,
        store: Store,
        parts: Sequence[Part],
        *,
        patience: timedelta,
        raise_failures: bool,
        process: Callable[[Stage, Store, Sequence[Part], Callable[[HandlerFailure], None]], BotProcess] = BotProcess,
    ) -> None:
        self.stage = Stage(emulator)
        self.process = process(self.stage, store, parts, self._note_failure)
        self.failures: list[HandlerFailure] = []
        self.rooms: list[Room] = []
        self.dead_letters: list[DeadLetter] = []
        self.is_waiting = True
        self._store = store
        self._raises_failures = raise_failures
        self._surfaced = 0
        self._patience = patience
        self._deadline = anyio.current_time()
        self._group: TaskGroup | None = None
        self.be_patient()

    def open_room(self, topic: str) -> Room:
        """A further thread, which begins to exist when somebody comes in."""
        self.rooms.append(Room(self, topic))
        return self.rooms[-1]

    def user_of(self, name: str) -> UserId:
        """The user of a person."""
        return self.stage.person(name)

    # ── failures ──────────────────────────────────────────────────────────────────────────────────────────────

    def _note_failure(self, failure: HandlerFailure) -> None:
        self.failures.append(failure)

    def surface(self) -> None:
        """Raise what handlers have raised since the last time: of each event the latest failure, retries or not."""
        fresh, self._surfaced = self.failures[self._surfaced :], len(self.failures)
        if not self._raises_failures:
            return
        latest = {(failure.bot, failure.event and failure.event.key): failure for failure in fresh}
        for failure in latest.values():
            what = type(failure.event).__name__ if failure.event else "no event in particular"
            failure.error.add_note(f"raised in bot {failure.bot!r} while it handled: {what}")
        errors = [from_the_author_on(failure.error) for failure in latest.values()]
        if len(errors) == 1:
            raise errors[0]
        if errors:
            msg = f"{len(errors)} handlers failed"
            raise ExceptionGroup(msg, errors)

    # ── time and process ──────────────────────────────────────────────────────────────────────────────────────

    async def run(self, group: TaskGroup) -> None:
        """Watch over the chat, and start its bots."""
        self._group = group
        group.start_soon(self._watch, name="the harness's patience")
        await self.start()

    async def start(self) -> None:
        """Start the bots' process."""
        assert self._group is not None
        await self.process.start(self._group)

    async def settle(self) -> None:
        """Wait for the bots in all rooms, unless nobody waits; then let failures surface."""
        self.be_patient()
        if self.is_waiting:
            await self.process.settle([room.thread for room in self.rooms if room.is_open])
            self.be_patient()
        await self._read_dead_letters()
        self.surface()

    async def _read_dead_letters(self) -> None:
        """Read the bots' dead letters, for tests to look at; those read last stay while no bot runs."""
        if self.process.is_running:
            # The bots may be killed meanwhile: their store fails in the middle of a read, or is closed before it.
            with suppress(StateError, StoreError):
                users = [guest.user for guest in self.process.guests.values()]
                self.dead_letters = [letter for user in users for letter in await self._store.dead_letters(user)]

    def be_patient(self, seconds: float = 0.0) -> None:
        """Begin to count anew how long nothing comes of anything, and add some seconds."""
        self._deadline = anyio.current_time() + self._patience.total_seconds() + seconds

    async def _watch(self) -> None:
        """End the chat when it hangs, and say where."""
        while anyio.current_time() < self._deadline:  # noqa: ASYNC110 -- it is time that is waited for
            await anyio.sleep_until(self._deadline)
        raise TimeoutError(self._explain_hang())

    def _explain_hang(self) -> str:
        kind = "virtual" if virtual_loop() else "real"
        return (
            f"nothing came of it within {self._patience} of {kind} time. If that is no hang, give the chat more "
            "patience: chat(…, patience=timedelta(…)). Waiting are:\n" + waiting_places(asyncio.all_tasks())
        )

    def explain(self, error: BaseException) -> None:
        """Show with a failing test what was said, and which handlers failed without failing it."""
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
    quotas: bool = True,
    raise_failures: bool = True,
    patience: timedelta | None = None,
) -> AsyncIterator[Room]:
    """Run bots against the service in this process, and give the room where people talk to them.

    ::

        @pytest.mark.virtual_time
        async def test_bot() -> None:
            async with chat(plugin) as room:
                ann = room.user("Ann")
                await ann.says("hi", "/roll 2 6")
                assert room.replies == ["hi", "2d6"]

    Works on virtual time and in real time; only `Room.advance` needs virtual time. What is asserted inside is raised
    as it is, with the conversation as a note.

    Args:
        plugins: the plugins of one bot, in their order.
        name: that bot's name.
        bots: further bots by name, each with its plugins.
        store: the bots' memory; by default one in memory, which outlives a `restart` but not the chat.
        settings: how the bots are to behave. By default they look rarely by themselves on virtual time, and often in
            real time; either way they look at once when something was done in a room.
        ack: when the bots confirm that they have read.
        admins: the names of the people who are the bots' admins.
        allow: the names of the only people, besides admins, whom the bots hear; by default everybody.
        rate: how many answers each person gets in a thread; by default as many as they like.
        apology: what a person is told when all tries to handle their message have failed, as in bots.yaml; by default
            nothing, so that `replies` holds only what plugins say.
        provide: things by type, such as `{Api: FakeApi()}`, that handlers get in place of what the plugins' providers
            make; these are not called.
        world: the service's world, to go on with that of an earlier chat, or with other `quirks`; by default a new
            one, the same for every test.
        quotas: let the service throttle as the real one does; people wait then, too.
        raise_failures: let the failure of a handler fail the act that caused it. Else see `Room.failures`.
        patience: how long nothing may come of an act; by default an hour of virtual time, or 20 s of real time.

    Raises:
        TimeoutError: something hangs; the message says where.
        PluginError: a plugin cannot be used.
        TypeError: something else was given than plugins, or `provide` gives what nobody asks for.
    """
    loop = virtual_loop()
    settings = settings or BotSettings(cadence=VIRTUAL_CADENCE if loop else REAL_CADENCE)
    store = store or MemoryStore()
    harness = Harness(
        Emulator(world or World(seed=0), clock=VirtualClock(loop) if loop else time.time, quotas=quotas),
        patient(store, loop) if loop else store,
        _parts(plugins, name, bots or {}, BotOptions(settings, ack, admins, allow, rate, apology), provide or {}),
        patience=patience or (VIRTUAL_PATIENCE if loop else REAL_PATIENCE),
        raise_failures=raise_failures,
    )
    async with playing(harness) as room:
        yield room


@asynccontextmanager
async def playing(harness: Harness) -> AsyncIterator[Room]:
    """Run the bots, and give the room where people talk to them; in the end, stop them."""
    with noting_interrupts(), _unwrapping(), _explaining(harness):
        async with harness.stage.resource, anyio.create_task_group() as group:
            await harness.run(group)
            yield harness.open_room("room")
            harness.be_patient()
            await harness.process.stop()
            harness.surface()
            group.cancel_scope.cancel()


def _parts(
    plugins: Sequence[Plugin],
    name: str,
    bots: Mapping[str, Sequence[Plugin]],
    manners: BotOptions,
    provide: Mapping[Any, object],
) -> list[Part]:
    named = {name: plugins, **bots} if plugins else dict(bots)
    if not named:
        msg = "chat() was given no plugin: give it those of one bot, chat(plugin), or bots={'name': [plugin]}"
        raise TypeError(msg)
    everything = {each: with_provided(given, provide, "chat()") for each, given in named.items()}
    check_provided([one for given in everything.values() for one in given], provide)
    for sources in everything.values():
        check_together(sources)
    return [Part(each, tuple(sources), manners) for each, sources in everything.items()]


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
    """Raise what a task group raises about a single thing as that thing, and what ends the test as it was raised."""
    try:
        with ending_at_once():
            yield
    except BaseExceptionGroup as group:
        error = _single(group)
        if error is group:
            raise
        context = error.__context__
        try:
            raise error
        finally:  # the group is no part of the story
            error.__context__ = context


def _shown(error: Exception) -> str:
    """How an error shows itself; `__repr__` is a plugin's code."""
    try:
        return f"{error!r}"
    except BaseException:
        return described(error)


def _single(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
