"""Where a process dies: a `Fate` counts what bots do to store and service, and ends them at chosen points."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import anyio

from chatbot.model import UserId
from chatbot.service.base import ChatService
from chatbot.stores.base import Store, Write
from chatbot.stores.conversation import SaveState, StateKey


class Kind(StrEnum):
    """What a process does that somebody else could tell from its not having been done."""

    COMMIT = "store write"
    SEND = "send"
    RECEIPT = "acknowledgement"
    CHANGE = "edit or delete"
    ACT = "other act"
    READ = "read"


_KINDS: Final = {
    "send_message": Kind.SEND,
    "send_receipt": Kind.RECEIPT,
    "edit_message": Kind.CHANGE,
    "delete_message": Kind.CHANGE,
    "create_thread": Kind.ACT,
    "delete_thread": Kind.ACT,
    "update_topic": Kind.ACT,
    "add_participants": Kind.ACT,
    "remove_participant": Kind.ACT,
    "send_typing": Kind.ACT,
    "get_thread": Kind.READ,
    "get_message": Kind.READ,
    "list_threads": Kind.READ,
    "list_messages": Kind.READ,
    "list_participants": Kind.READ,
    "list_receipts": Kind.READ,
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
    kind: Kind
    what: str
    is_after: bool

    def __str__(self) -> str:
        return f"point {self.number}, {'after' if self.is_after else 'before'} a {self.kind} ({self.what})"


class Fate:
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

    async def reach(self, kind: Kind, what: str, *, is_after: bool = False) -> None:
        """Count a point. If it is a fatal one, the process dies here, and this never returns."""
        if self.is_sealed:
            return
        point = Point(len(self.points), kind, what, is_after)
        self.points.append(point)
        if point.number in self._fatal and self._die is not None:
            self.deaths.append(point)
            self._die()
            await anyio.sleep_forever()


class FatefulService:
    """A view of the service; every call of it may be the last, before its effect or after it.

    Args:
        service: the view.
        fate: what decides.
    """

    def __init__(self, service: ChatService, fate: Fate) -> None:
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
            if kind is not Kind.READ:
                await self._fate.reach(kind, name, is_after=True)
            return answer

        return calling

    def _walk(self, name: str, walk: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def walking(*args: Any, **options: Any) -> AsyncIterator[Any]:
            await self._fate.reach(_KINDS[name], name)
            async for item in walk(*args, **options):
                yield item

        return walking


class FatefulStore:
    """A store; every commit to it may be the last, before it or after it.

    Args:
        store: the store.
        fate: what decides.
        states: where the states are noted that are written.
    """

    def __init__(self, store: Store, fate: Fate, states: dict[tuple[UserId, StateKey], None]) -> None:
        self._store = store
        self._fate = fate
        self._states = states

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, bot: UserId, writes: Sequence[Write]) -> None:
        """See `Store.commit`."""
        what = ", ".join(type(write).__name__ for write in writes)
        await self._fate.reach(Kind.COMMIT, what)
        await self._store.commit(bot, writes)
        self._states.update({(bot, write.key): None for write in writes if isinstance(write, SaveState)})
        await self._fate.reach(Kind.COMMIT, what, is_after=True)
