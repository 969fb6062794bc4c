"""Crash injection: kill a process of bots at a chosen write, send, receipt or read, as `kill -9` does.

A `CrashPlan` counts what bots do to the store and the service, and says at which points they crash. A
`CrashableProcess` crashes there, is started again as a supervisor does, and records over all of its lives what its
handlers were given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import structlog
from anyio.abc import TaskGroup, TaskStatus

from chatbot.conversation import UnitOfWork
from chatbot.dispatch import Access, Ack, BotInfo, Dispatcher, Outcome
from chatbot.dispatch.action_buffer import HandlerScope, no_handler_scope
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
from chatbot.testing.process import BotProcess, BotSpec, Failure
from chatbot.testing.transport import Stage

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


class CrashableProcess(BotProcess):
    """The bots of a chat, which crash at the points of a plan and are started again.

    Args:
        stage: the service they use.
        store: the store of the bots.
        specs: the bots; their plugins come from `plugins`.
        on_failure: called with every failure.
        plan: where they crash.
        plugins: makes the plugins again for every life, so that nothing in memory survives a crash.
        faults: what the service does to the bots, and to nobody else.
        is_silent: the bots write no log.

    Attributes:
        handled: the events that handlers were given by bot and event key, in the order of the last time of each.
        states: the states that were ever written.
    """

    def __init__(
        self,
        stage: Stage,
        store: Store,
        specs: Sequence[BotSpec],
        on_failure: Callable[[Failure], None],
        *,
        plan: CrashPlan,
        plugins: Callable[[BotSpec], Sequence[Plugin]],
        faults: Sequence[Fault] = (),
        is_silent: bool = True,
    ) -> None:
        super().__init__(stage, store, specs, on_failure)
        self.handled: dict[tuple[UserId, str], Event] = {}
        self.states: dict[tuple[UserId, StateKey], None] = {}
        self._plan = plan
        self._plugins = plugins
        self._faults = faults
        self._is_silent = is_silent
        self._users_with_faults: set[UserId] = set()
        self._has_crashed = False
        self._is_up = anyio.Event()
        self._is_up.set()
        plan.on_crash(self._crash_here)

    # ── crash and restart ──────────────────────────────────────────────────────────────────────────────────────

    def _crash_here(self) -> None:
        self._has_crashed = not self._stopping.is_set()  # one that crashes while it is stopped stays down
        if self._has_crashed:
            self._is_up = anyio.Event()
        self.crash()

    async def start(self, group: TaskGroup) -> None:
        """Start the bots as `BotProcess.start` does; bots that are being started again after a crash are waited for."""
        if self._is_up.is_set():
            await super().start(group)
        while not self._is_up.is_set():
            await self._is_up.wait()

    async def kill(self) -> None:
        """Kill the bots as `BotProcess.kill` does; they are not started again."""
        self._has_crashed = False
        self._is_up.set()
        await super().kill()

    async def settle(self, threads: Sequence[ThreadId]) -> None:
        """Settle as `BotProcess.settle` does; bots that crash meanwhile are waited for in their next life."""
        crashes = -1
        while crashes != len(self._plan.crashes):
            while not self._is_up.is_set():  # in a loop, as they may crash again before this task runs
                await self._is_up.wait()
            crashes = len(self._plan.crashes)
            await super().settle(threads)

    async def _run(self, *, task_status: TaskStatus[None]) -> None:
        report = _StartReport(task_status, self)
        while True:
            self._has_crashed = False
            await super()._run(task_status=cast("TaskStatus[None]", report))
            if not self._has_crashed:
                self._is_up.set()
                return

    def mark_up(self) -> None:
        """Note that the bots are running: people may expect something of them."""
        for guest in self.members.values():
            if guest.user not in self._users_with_faults:
                self._users_with_faults.add(guest.user)
                for fault in self._faults:
                    self._stage.emulator.faults.add(dataclasses.replace(fault, user=fault.user or guest.user))
        self._is_up.set()

    # ── what bots are made with ───────────────────────────────────────────────────────────────────────────────

    def service_of(self, user: UserId) -> ChatService:
        """Return a client of the service each call of which is two points: before and after its effect."""
        return cast("ChatService", CrashingService(super().service_of(user), self._plan))

    def store_for_bots(self) -> Store:
        """Return the store each commit to which is two points."""
        return cast("Store", CrashingStore(super().store_for_bots(), self._plan, self.states))

    def dispatcher(self, spec: BotSpec, info: BotInfo, access: Access) -> Dispatcher:
        """Make a bot's handlers again."""
        return _RecordingDispatcher(self._plugins(spec), info, spec.options.ack, access, self.handled)

    def log(self) -> FilteringBoundLogger:
        """Return a log that writes nothing: hundreds of lives would repeat the same few lines."""
        if not self._is_silent:
            return super().log()
        silence = structlog.make_filtering_bound_logger("critical")
        return structlog.wrap_logger(structlog.ReturnLogger(), processors=[], wrapper_class=silence)  # type: ignore[no-any-return]


class _StartReport:
    """Reports to the task group once that the process has started, and to the process each time that it is up."""

    def __init__(self, status: TaskStatus[None], process: CrashableProcess) -> None:
        self._status: TaskStatus[None] | None = status
        self._process = process

    def started(self, _value: None = None) -> None:
        self._process.mark_up()
        if self._status is not None:
            self._status.started()
            self._status = None


class _RecordingDispatcher(Dispatcher):
    """A dispatcher that records what its handlers were given."""

    def __init__(
        self,
        plugins: Sequence[Plugin],
        info: BotInfo,
        ack: Ack,
        access: Access,
        handled: dict[tuple[UserId, str], Event],
    ) -> None:
        super().__init__(plugins, bot=info, ack=ack, access=access, is_fatal=ends_the_test)
        self._user = info.user
        self._handled = handled

    async def dispatch(
        self,
        event: Event,
        unit_of_work: UnitOfWork | None = None,
        *,
        live: LiveChannel | None = None,
        handler_scope: HandlerScope = no_handler_scope,
        limits: RunLimits | None = None,
    ) -> Outcome:
        outcome = await super().dispatch(event, unit_of_work, live=live, handler_scope=handler_scope, limits=limits)
        if isinstance(event, ThreadEvent):
            key = self._user, f"{event.thread} {type(event).__name__} {event.key}"
            self._handled.pop(key, None)
            self._handled[key] = event
        return outcome


class CrashKind(StrEnum):
    """Effects of a process that others can observe."""

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
    """A moment at which a process can crash.

    Args:
        number: counted from 0 over the whole chat.
        kind: the kind of effect.
        what: the method of the service, or the writes of the commit.
        is_after: the effect has happened, but the process has not been told yet.
    """

    number: int
    kind: CrashKind
    what: str
    is_after: bool

    def __str__(self) -> str:
        return f"point {self.number}, {'after' if self.is_after else 'before'} a {self.kind} ({self.what})"


class CrashPlan:
    """Counts the points that the bots of a chat pass, and crashes the process at chosen ones.

    Args:
        fatal: the numbers of the points at which the process is killed.
    """

    def __init__(self, fatal: Iterable[int] = ()) -> None:
        self.points: list[Point] = []
        self.crashes: list[Point] = []
        self.is_sealed = False
        self._fatal = set(fatal)
        self._crash: Callable[[], None] | None = None

    def on_crash(self, die: Callable[[], None]) -> None:
        """Set the function that crashes the process."""
        self._crash = die

    def crash_after(self, points: int) -> None:
        """Crash the process so many points from now."""
        self._fatal.add(len(self.points) + points)

    def cancel(self) -> None:
        """Cancel all crashes that have not happened yet."""
        self._fatal.clear()

    async def reach(self, kind: CrashKind, what: str, *, is_after: bool = False) -> None:
        """Count a point. If it is a chosen one, crash the process here and never return."""
        if self.is_sealed:
            return
        point = Point(len(self.points), kind, what, is_after)
        self.points.append(point)
        if point.number in self._fatal and self._crash is not None:
            self.crashes.append(point)
            self._crash()
            await anyio.sleep_forever()


class CrashingService:
    """A client of the service each call of which may be the last, before its effect or after it.

    Args:
        service: the client.
        plan: where the process crashes.
    """

    def __init__(self, service: ChatService, plan: CrashPlan) -> None:
        self._service = service
        self._plan = plan

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._service, name)
        if name not in _KINDS:
            return found
        return self._walk(name, found) if name in _WALKS else self._call(name, found)

    def _call(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def calling(*args: Any, **options: Any) -> Any:
            kind = _KINDS[name]
            await self._plan.reach(kind, name)
            answer = await call(*args, **options)
            if kind is not CrashKind.READ:
                await self._plan.reach(kind, name, is_after=True)
            return answer

        return calling

    def _walk(self, name: str, walk: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def walking(*args: Any, **options: Any) -> AsyncIterator[Any]:
            await self._plan.reach(_KINDS[name], name)
            async for item in walk(*args, **options):
                yield item

        return walking


class CrashingStore:
    """A store each commit to which may be the last, before it or after it.

    Args:
        store: the store.
        plan: where the process crashes.
        states: collects the keys of the states that are written.
    """

    def __init__(self, store: Store, plan: CrashPlan, states: dict[tuple[UserId, StateKey], None]) -> None:
        self._store = store
        self._plan = plan
        self._states = states

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(
        self, bot: UserId, writes: Sequence[Write], *, shards: Collection[int] = (), notes: Sequence[str] = ()
    ) -> None:
        """Commit as `Store.commit` does, between two points."""
        what = ", ".join(type(write).__name__ for write in writes)
        await self._plan.reach(CrashKind.COMMIT, what)
        await self._store.commit(bot, writes, shards=shards, notes=notes)
        self._states.update({(bot, write.key): None for write in writes if isinstance(write, SaveState)})
        await self._plan.reach(CrashKind.COMMIT, what, is_after=True)
