"""A store that lives as long as its object: for tests, and for bots that may forget.

It holds encoded rows only, as a database would, and keeps them when it is closed: opened again, it is a bot's
memory after a restart. It commits at once, on the loop, without a thread, so it works under virtual time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import anyio.lowlevel

from chatbot.actions import ActionKey
from chatbot.errors import StoreInUse
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.stores import rows
from chatbot.stores.records import (
    Attempt,
    BotRecord,
    DeadLetter,
    DialogRecord,
    OutboxRow,
    RowStatus,
    StateKey,
    StoredState,
    ThreadRecord,
    TimerRecord,
)
from chatbot.stores.tables import Tables
from chatbot.stores.writes import Write


class MemoryStore:
    """A `Store` in memory. What one `async with` block committed, the next one finds."""

    def __init__(self) -> None:
        self._tables = Tables()
        self._is_entered = False
        self._is_open = False
        self._has_holder = False
        self._was_killed = False
        self._is_stopping = False
        self._was_stopping = False
        self._stays_marked = False

    async def __aenter__(self) -> MemoryStore:
        """Open.

        Raises:
            StoreInUse: it is open already.
        """
        if self._is_entered:
            msg = "this MemoryStore is in use already: end the one `async with` block before the next begins"
            raise StoreInUse(msg)
        self._was_killed = self._has_holder
        self._was_stopping, self._is_stopping = self._has_holder and self._is_stopping, False
        self._is_entered = self._is_open = self._has_holder = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close; the contents stay."""
        if self._is_open:
            self._is_open, self._has_holder, self._stays_marked = False, self._stays_marked, False
        self._is_entered = False

    def kill(self) -> None:
        """End as a killed process does: at once, with what is committed, and without closing.

        Whoever still uses the store in this `async with` block gets `StateError`, as a dead process writes nothing.
        Opened again after the block, it says `was_killed`.
        """
        self._is_open = False

    @property
    def was_killed(self) -> bool:
        """See `Store.was_killed`."""
        return self._was_killed

    @property
    def was_stopping(self) -> bool:
        """See `Store.was_stopping`."""
        return self._was_stopping

    def stop_began(self) -> None:
        """See `EndableStore.stop_began`."""
        self._is_stopping = True

    def submit_from_thread(self, bot: UserId, writes: Sequence[Write]) -> None:
        """See `EndableStore.submit_from_thread`; it would end with the process."""

    def stay_marked(self) -> None:
        """See `EndableStore.stay_marked`."""
        self._stays_marked = True

    def finish(self, seconds: float) -> None:
        """See `EndableStore.finish`: everything is written."""

    async def commit(self, bot: UserId, writes: Sequence[Write]) -> None:
        """Make these changes, all of them or none; see `Store.commit`."""
        (await self._opened()).apply(bot, writes)

    async def find_bot(self, name: str, resource: str) -> BotRecord | None:
        """See `Store.find_bot`."""
        row = (await self._opened()).bots.get((name, resource))
        return None if row is None else rows.decode_bot(row)

    async def bots(self) -> Sequence[BotRecord]:
        """See `Store.bots`."""
        found = (await self._opened()).bots
        return [rows.decode_bot(found[key]) for key in sorted(found)]

    async def horizon(self, bot: UserId) -> int | None:
        """See `Store.horizon`."""
        return (await self._opened()).horizons.get(bot)

    async def threads(self, bot: UserId) -> Sequence[ThreadRecord]:
        """See `Store.threads`."""
        tables = await self._opened()
        return [
            rows.decode_thread(row, dict(tables.seen[owner, id]))
            for (owner, id), row in tables.threads.items()
            if owner == bot
        ]

    async def pending(self, bot: UserId) -> Sequence[OutboxRow]:
        """See `Store.pending`."""
        tables = await self._opened()
        wishes = [
            rows.decode_wish(row, position)
            for (owner, _), (position, row) in tables.wishes.items()
            if owner == bot and row.status == RowStatus.PENDING
        ]
        return sorted(wishes, key=lambda wish: wish.position)

    async def row(self, bot: UserId, key: ActionKey) -> OutboxRow | None:
        """See `Store.row`."""
        found = (await self._opened()).wishes.get((bot, key))
        return None if found is None else rows.decode_wish(found[1], found[0])

    async def made(self, bot: UserId, messages: Collection[MessageId]) -> frozenset[MessageId]:
        """See `Store.made`."""
        wishes = (await self._opened()).wishes
        known = {row.message for (owner, _), (_, row) in wishes.items() if owner == bot}
        return frozenset(message for message in messages if message in known)

    async def attempts(self, bot: UserId) -> Mapping[ThreadId, Attempt]:
        """See `Store.attempts`."""
        tables = await self._opened()
        return rows.decode_attempts(row for (owner, _), row in tables.attempts.items() if owner == bot)

    async def dead_letters(self, bot: UserId) -> Sequence[DeadLetter]:
        """See `Store.dead_letters`."""
        tables = await self._opened()
        letters = [rows.decode_letter(row) for (owner, _), row in tables.letters.items() if owner == bot]
        return sorted(letters, key=lambda letter: (letter.died_ms, letter.id))

    async def state(self, bot: UserId, key: StateKey) -> StoredState | None:
        """See `Store.state`."""
        row = (await self._opened()).conversations.state(bot, key)
        return None if row is None else rows.decode_state(row)

    async def dialogs(self, bot: UserId) -> Sequence[DialogRecord]:
        """See `Store.dialogs`."""
        tables = (await self._opened()).conversations
        found = [rows.decode_dialog(row) for (owner, _), row in tables.dialogs.items() if owner == bot]
        return sorted(found, key=lambda dialog: (dialog.changed_ms, dialog.id))

    async def timers(self, bot: UserId) -> Sequence[TimerRecord]:
        """See `Store.timers`."""
        tables = (await self._opened()).conversations
        found = [rows.decode_timer(row) for (owner, _), row in tables.timers.items() if owner == bot]
        return sorted(found, key=lambda timer: (timer.due_ms, timer.id))

    async def result(self, bot: UserId, key: str) -> str | None:
        """See `Store.result`."""
        row = (await self._opened()).conversations.results.get((bot, key))
        return None if row is None else row.value

    async def forget(self, user: UserId) -> int:
        """See `Store.forget`."""
        return (await self._opened()).forget(user)

    async def _opened(self) -> Tables:
        """Give others a turn, as every real store does; whoever is cancelled here has changed nothing."""
        await anyio.lowlevel.checkpoint()
        if not self._is_open:
            raise rows.not_open()
        return self._tables
