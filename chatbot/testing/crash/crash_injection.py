"""Bots that die when their hour has come: at a chosen write, send, acknowledgement or read, as `kill -9` ends them.

A `CrashableProcess` is started again after such a death, as a supervisor does, and remembers over all of its lives what
its handlers have handled.

Where a process dies: a `Fate` counts what bots do to store and service, and ends them at chosen points.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import structlog
from anyio.abc import TaskStatus

from chatbot.conversation import UnitOfWork
from chatbot.dispatch import Access, Ack, BotInfo, Dispatcher, Outcome
from chatbot.dispatch.action_buffer import During, alone
from chatbot.dispatch.author_code import RunLimits
from chatbot.dispatch.live import LiveChannel
from chatbot.emulator import Fault
from chatbot.events import Event, ThreadEvent
from chatbot.model import ThreadId, UserId
from chatbot.plugin import Plugin
from chatbot.service.base import ChatService
from chatbot.stores.base import Store
from chatbot.stores.records import StateKey
from chatbot.stores.writes import SaveState, Write
from chatbot.testing.outcomes import ends_the_test
from chatbot.testing.process import BotProcess, HandlerFailure, Part
from chatbot.testing.transport import Stage

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


class CrashableProcess(BotProcess):
    """The bots of a chat, which die at the points that their fate has chosen, and are started again.

    Args:
        stage: the service they use.
        store: their memory.
        parts: what they are made of; their plugins are those of `plugins`.
        on_failure: told of every failure.
        fate: where they die.
        plugins: makes the plugins anew for every life, so that nothing in the process's memory survives its death.
        faults: what the service does to the bots, and to nobody else.
        is_silent: let the bots write no log.

    Attributes:
        handled: what the handlers were given, the latest time of each: bot, event key, event.
        states: the states that were ever written.
    """

    def __init__(
        self,
        stage: Stage,
        store: Store,
        parts: Sequence[Part],
        on_failure: Callable[[HandlerFailure], None],
        *,
        fate: CrashPlan,
        plugins: Callable[[Part], Sequence[Plugin]],
        faults: Sequence[Fault] = (),
        is_silent: bool = True,
    ) -> None:
        super().__init__(stage, store, parts, on_failure)
        self.handled: dict[tuple[UserId, str], Event] = {}
        self.states: dict[tuple[UserId, StateKey], None] = {}
        self._fate = fate
        self._plugins = plugins
        self._faults = faults
        self._is_silent = is_silent
        self._afflicted: set[UserId] = set()
        self._has_died = False
        self._is_up = anyio.Event()
        self._is_up.set()
        fate.rule(self._perish)

    # ── dying and rising ──────────────────────────────────────────────────────────────────────────────────────

    def _perish(self) -> None:
        self._has_died = not self._stopping.is_set()  # whoever dies while being stopped stays down
        if self._has_died:
            self._is_up = anyio.Event()
        self.die()

    async def kill(self) -> None:
        """See `BotProcess.kill`; nobody starts the bots again."""
        self._has_died = False
        self._is_up.set()
        await super().kill()

    async def settle(self, threads: Sequence[ThreadId]) -> None:
        """See `BotProcess.settle`; bots that die meanwhile are waited for in their next life."""
        deaths = -1
        while deaths != len(self._fate.deaths):
            while not self._is_up.is_set():  # asked again, as they may die in the very moment in which one waits
                await self._is_up.wait()
            deaths = len(self._fate.deaths)
            await super().settle(threads)

    async def _run(self, *, task_status: TaskStatus[None]) -> None:
        birth = _Birth(task_status, self)
        while True:
            self._has_died = False
            await super()._run(task_status=cast("TaskStatus[None]", birth))
            if not self._has_died:
                self._is_up.set()
                return

    def rise(self) -> None:
        """The bots are made: people may expect something of them."""
        for guest in self.guests.values():
            if guest.user not in self._afflicted:
                self._afflicted.add(guest.user)
                for fault in self._faults:
                    self._stage.emulator.faults.add(dataclasses.replace(fault, user=fault.user or guest.user))
        self._is_up.set()

    # ── what bots are made with ───────────────────────────────────────────────────────────────────────────────

    def service_of(self, user: UserId) -> ChatService:
        """A bot's view of the service, every call of which is two points: before, and after its effect."""
        return cast("ChatService", CrashingService(super().service_of(user), self._fate))

    def memory(self) -> Store:
        """The memory of all bots, every commit of which is two points."""
        return cast("Store", CrashingStore(super().memory(), self._fate, self.states))

    def dispatcher(self, part: Part, info: BotInfo, access: Access) -> Dispatcher:
        """A bot's handlers, made anew."""
        return _Witness(self._plugins(part), info, part.manners.ack, access, self.handled)

    def log(self) -> FilteringBoundLogger:
        """Hundreds of lives would fill a log with the same few lines."""
        if not self._is_silent:
            return super().log()
        silence = structlog.make_filtering_bound_logger("critical")
        return structlog.wrap_logger(structlog.ReturnLogger(), processors=[], wrapper_class=silence)  # type: ignore[no-any-return]


class _Birth:
    """Tells the first time that the process has started, and each time that it is up."""

    def __init__(self, status: TaskStatus[None], process: CrashableProcess) -> None:
        self._status: TaskStatus[None] | None = status
        self._process = process

    def started(self, _value: None = None) -> None:
        self._process.rise()
        if self._status is not None:
            self._status.started()
            self._status = None


class _Witness(Dispatcher):
    """A dispatcher that writes down what its handlers were given."""

    def __init__(
        self,
        plugins: Sequence[Plugin],
        info: BotInfo,
        ack: Ack,
        access: Access,
        handled: dict[tuple[UserId, str], Event],
    ) -> None:
        super().__init__(plugins, bot=info, ack=ack, access=access, ends_all=ends_the_test)
        self._user = info.user
        self._handled = handled

    async def dispatch(
        self,
        event: Event,
        memory: UnitOfWork | None = None,
        *,
        line: LiveChannel | None = None,
        during: During = alone,
        limits: RunLimits | None = None,
    ) -> Outcome:
        outcome = await super().dispatch(event, memory, line=line, during=during, limits=limits)
        if isinstance(event, ThreadEvent):
            key = self._user, f"{event.thread} {type(event).__name__} {event.key}"
            self._handled.pop(key, None)
            self._handled[key] = event
        return outcome


class CrashKind(StrEnum):
    """What a process does that somebody else could tell from its not having been done."""

    COMMIT = "store write"
    SEND = "send"
    RECEIPT = "acknowledgement"
    CHANGE = "edit or delete"
    ACT = "other act"
    READ = "read"


_KINDS: Final = {
    "send_message": CrashKind.SEND,
    "send_receipt": CrashKind.RECEIPT,
    "edit_message": CrashKind.CHANGE,
    "delete_message": CrashKind.CHANGE,
    "create_thread": CrashKind.ACT,
    "delete_thread": CrashKind.ACT,
    "update_topic": CrashKind.ACT,
    "add_participants": CrashKind.ACT,
    "remove_participant": CrashKind.ACT,
    "send_typing": CrashKind.ACT,
    "get_thread": CrashKind.READ,
    "get_message": CrashKind.READ,
    "list_threads": CrashKind.READ,
    "list_messages": CrashKind.READ,
    "list_participants": CrashKind.READ,
    "list_receipts": CrashKind.READ,
}
_WALKS: Final = {"list_participants", "list_receipts"}


@dataclass(frozen=True, slots=True)
class Point:
    """A moment at which a process can die.

    Args:
        number: which one, from 0, of all in the life of a chat.
        kind: what is being done.
        what: the method of the service, or the writes of the commit.
        is_after: it is done, but the process does not know yet.
    """

    number: int
    kind: CrashKind
    what: str
    is_after: bool

    def __str__(self) -> str:
        return f"point {self.number}, {'after' if self.is_after else 'before'} a {self.kind} ({self.what})"


class CrashPlan:
    """What the bots of a chat do, point by point, and where they have to die.

    Args:
        fatal: the numbers of the points at which the process is killed.
    """

    def __init__(self, fatal: Iterable[int] = ()) -> None:
        self.points: list[Point] = []
        self.deaths: list[Point] = []
        self.is_sealed = False
        self._fatal = set(fatal)
        self._die: Callable[[], None] | None = None

    def rule(self, die: Callable[[], None]) -> None:
        """Say how the process is killed."""
        self._die = die

    def strike_after(self, points: int) -> None:
        """Kill the process so many points from now."""
        self._fatal.add(len(self.points) + points)

    def spare(self) -> None:
        """Kill nobody any more."""
        self._fatal.clear()

    async def reach(self, kind: CrashKind, what: str, *, is_after: bool = False) -> None:
        """Count a point. If it is a fatal one, the process dies here, and this never returns."""
        if self.is_sealed:
            return
        point = Point(len(self.points), kind, what, is_after)
        self.points.append(point)
        if point.number in self._fatal and self._die is not None:
            self.deaths.append(point)
            self._die()
            await anyio.sleep_forever()


class CrashingService:
    """A view of the service; every call of it may be the last, before its effect or after it.

    Args:
        service: the view.
        fate: what decides.
    """

    def __init__(self, service: ChatService, fate: CrashPlan) -> None:
        self._service = service
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._service, name)
        if name not in _KINDS:
            return found
        return self._walk(name, found) if name in _WALKS else self._call(name, found)

    def _call(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def calling(*args: Any, **options: Any) -> Any:
            kind = _KINDS[name]
            await self._fate.reach(kind, name)
            answer = await call(*args, **options)
            if kind is not CrashKind.READ:
                await self._fate.reach(kind, name, is_after=True)
            return answer

        return calling

    def _walk(self, name: str, walk: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def walking(*args: Any, **options: Any) -> AsyncIterator[Any]:
            await self._fate.reach(_KINDS[name], name)
            async for item in walk(*args, **options):
                yield item

        return walking


class CrashingStore:
    """A store; every commit to it may be the last, before it or after it.

    Args:
        store: the store.
        fate: what decides.
        states: where the states are noted that are written.
    """

    def __init__(self, store: Store, fate: CrashPlan, states: dict[tuple[UserId, StateKey], None]) -> None:
        self._store = store
        self._fate = fate
        self._states = states

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, bot: UserId, writes: Sequence[Write]) -> None:
        """See `Store.commit`."""
        what = ", ".join(type(write).__name__ for write in writes)
        await self._fate.reach(CrashKind.COMMIT, what)
        await self._store.commit(bot, writes)
        self._states.update({(bot, write.key): None for write in writes if isinstance(write, SaveState)})
        await self._fate.reach(CrashKind.COMMIT, what, is_after=True)
