"""The reading half of a store that keeps its records in SQL tables, whatever its database and driver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from chatbot.actions import ActionKey
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.stores import codec, queries
from chatbot.stores.records import (
    Attempt,
    BotRecord,
    DeadLetter,
    DialogRecord,
    OutboxRow,
    PersonalRecord,
    StateKey,
    StoredState,
    ThreadRecord,
    TimerRecord,
)
from chatbot.stores.sql import Plan

T = TypeVar("T")


class SqlStore(ABC):
    """A `Store` whose reads are the plans of `queries`."""

    @abstractmethod
    async def _read(self, plan: Plan[T]) -> T:
        """Run a plan that only reads, within one transaction.

        Raises:
            StateError: the store is not open.
            StoreError: the database cannot be read.
        """

    async def find_bot(self, name: str, resource: str) -> BotRecord | None:
        """See `Store.find_bot`."""
        return await self._read(queries.find_bot(name, resource))

    async def bots(self) -> Sequence[BotRecord]:
        """See `Store.bots`."""
        return await self._read(queries.bots())

    async def horizon(self, bot: UserId) -> int | None:
        """See `Store.horizon`."""
        return await self._read(queries.horizon(bot))

    async def threads(self, bot: UserId) -> Sequence[ThreadRecord]:
        """See `Store.threads`."""
        return await self._read(queries.threads(bot))

    async def pending(self, bot: UserId) -> Sequence[OutboxRow]:
        """See `Store.pending`."""
        return await self._read(queries.pending(bot))

    async def row(self, bot: UserId, key: ActionKey) -> OutboxRow | None:
        """See `Store.row`."""
        return await self._read(queries.row(bot, key))

    async def made(self, bot: UserId, messages: Collection[MessageId]) -> frozenset[MessageId]:
        """See `Store.made`."""
        return await self._read(queries.made(bot, messages))

    async def attempts(self, bot: UserId) -> Mapping[ThreadId, Attempt]:
        """See `Store.attempts`."""
        return await self._read(queries.attempts(bot))

    async def dead_letters(self, bot: UserId) -> Sequence[DeadLetter]:
        """See `Store.dead_letters`."""
        return await self._read(queries.dead_letters(bot))

    async def state(self, bot: UserId, key: StateKey) -> StoredState | None:
        """See `Store.state`."""
        return await self._read(queries.state(bot, key))

    async def states(self, bot: UserId, name: str) -> Sequence[tuple[StateKey, StoredState]]:
        """See `Store.states`."""
        return await self._read(queries.states(bot, name))

    async def every_state(self, bot: UserId) -> Sequence[tuple[StateKey, StoredState]]:
        """See `Store.every_state`."""
        return await self._read(queries.every_state(bot))

    async def about(self, user: UserId) -> Sequence[PersonalRecord]:
        """See `Store.about`."""
        return await self._read(queries.about(UserId(codec.text(user, "user"))))

    async def dialogs(self, bot: UserId) -> Sequence[DialogRecord]:
        """See `Store.dialogs`."""
        return await self._read(queries.dialogs(bot))

    async def timers(self, bot: UserId) -> Sequence[TimerRecord]:
        """See `Store.timers`."""
        return await self._read(queries.timers(bot))

    async def result(self, bot: UserId, key: str) -> str | None:
        """See `Store.result`."""
        return await self._read(queries.result(bot, key))
