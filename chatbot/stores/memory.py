"""A store that lives as long as its object: for tests, and for bots that may forget.

It holds encoded rows only, as a database would, and keeps them when it is closed: opened again, it is a bot's
memory after a restart. It commits at once, on the loop, without a thread, so it works under virtual time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import anyio.lowlevel

from chatbot.actions import ActionKey
from chatbot.errors import StoreInUse
from chatbot.model import ThreadId, UserId
from chatbot.stores import codec, erasure, rows
from chatbot.stores.base import (
    BotRecord,
    Enqueue,
    LeaveThread,
    MarkSeen,
    MoveBase,
    OutboxRow,
    OweReceipt,
    Prune,
    RowStatus,
    SaveBot,
    SaveThread,
    SettleReceipt,
    SettleRow,
    ThreadRecord,
    Write,
)


class MemoryStore:
    """A `Store` in memory. What one `async with` block committed, the next one finds."""

    def __init__(self) -> None:
        self._is_open = False
        self._position = 0
        self._bots: dict[tuple[str, str], rows.BotRow] = {}
        self._threads: dict[tuple[str, str], rows.ThreadRow] = {}
        self._seen: dict[tuple[str, str], dict[int, int]] = {}
        self._wishes: dict[tuple[str, str], tuple[int, rows.WishRow]] = {}
        self._undo = _Undo()

    async def __aenter__(self) -> MemoryStore:
        """Open.

        Raises:
            StoreInUse: it is open already.
        """
        if self._is_open:
            msg = "this MemoryStore is open already: use one `async with` block at a time"
            raise StoreInUse(msg)
        self._is_open = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close; the contents stay."""
        self._is_open = False

    async def commit(self, bot: UserId, writes: Sequence[Write]) -> None:
        """Make these changes, all of them or none; see `Store.commit`."""
        await self._checkpoint()
        bot = UserId(codec.text(bot, "bot"))
        with self._undo.on_error():
            for write in writes:
                self._apply(bot, write)

    async def find_bot(self, name: str, resource: str) -> BotRecord | None:
        """See `Store.find_bot`."""
        await self._checkpoint()
        row = self._bots.get((name, resource))
        return None if row is None else rows.decode_bot(row)

    async def threads(self, bot: UserId) -> Sequence[ThreadRecord]:
        """See `Store.threads`."""
        await self._checkpoint()
        return [
            rows.decode_thread(row, dict(self._seen[owner, id]))
            for (owner, id), row in self._threads.items()
            if owner == bot
        ]

    async def pending(self, bot: UserId) -> Sequence[OutboxRow]:
        """See `Store.pending`."""
        await self._checkpoint()
        wishes = [
            rows.decode_wish(row, position)
            for (owner, _), (position, row) in self._wishes.items()
            if owner == bot and row.status == RowStatus.PENDING
        ]
        return sorted(wishes, key=lambda wish: wish.position)

    async def row(self, bot: UserId, key: ActionKey) -> OutboxRow | None:
        """See `Store.row`."""
        await self._checkpoint()
        found = self._wishes.get((bot, key))
        return None if found is None else rows.decode_wish(found[1], found[0])

    async def forget(self, user: UserId) -> int:
        """See `Store.forget`."""
        await self._checkpoint()
        changed = 0
        for key, (position, row) in self._wishes.items():
            wish = rows.decode_wish(row, position)
            erased = erasure.erase(wish, user)
            if erased is not wish:
                self._wishes[key] = (position, rows.encode_wish(erased))
                changed += 1
        return changed

    async def _checkpoint(self) -> None:
        """Give others a turn, as every real store does; whoever is cancelled here has changed nothing."""
        await anyio.lowlevel.checkpoint()
        if not self._is_open:
            raise rows.not_open()

    def _apply(self, bot: UserId, write: Write) -> None:
        match write:
            case SaveBot(record):
                row = rows.encode_bot(record)
                self._undo.put(self._bots, (row.name, row.resource), row)
            case Enqueue(wish):
                self._enqueue(bot, rows.encode_wish(wish))
            case SettleRow(key, status, message, reason):
                self._settle(
                    (bot, key),
                    status=RowStatus(status).value,
                    message=codec.optional_text(message, "SettleRow.message"),
                    reason=codec.diagnostic(reason),
                )
            case Prune(before_ms):
                self._prune(bot, codec.integer(before_ms, "Prune.before_ms"))
            case _:
                self._apply_to_thread(bot, write)

    def _apply_to_thread(
        self, bot: UserId, write: SaveThread | MoveBase | MarkSeen | LeaveThread | OweReceipt | SettleReceipt
    ) -> None:
        match write:
            case SaveThread(record):
                self._save_thread(bot, record)
            case MarkSeen(thread, seen):
                for id, version in rows.encode_seen(seen, "MarkSeen.seen"):
                    self._undo.put(self._seen_of(bot, thread), id, version)
            case MoveBase(thread, base, below):
                self._move_base(bot, thread, codec.integer(base, "MoveBase.base"), below)
            case LeaveThread(thread, reason):
                self._change_thread(bot, thread, is_left=1)
                self._fail_pending(bot, thread, codec.diagnostic(reason))
            case OweReceipt(thread, message):
                number = codec.number(message, "OweReceipt.message")
                due = self._thread(bot, thread).receipt_due
                self._change_thread(bot, thread, receipt_due=max(number, due or 0))
            case SettleReceipt(thread, message):
                number = codec.number(message, "SettleReceipt.message")
                sent = self._thread(bot, thread).receipt_sent
                self._change_thread(bot, thread, receipt_sent=max(number, sent or 0))

    def _save_thread(self, bot: UserId, record: ThreadRecord) -> None:
        row = rows.encode_thread(record)
        seen = dict(rows.encode_seen(record.seen, "ThreadRecord.seen"))
        self._undo.put(self._threads, (bot, row.id), row)
        self._undo.put(self._seen, (bot, row.id), seen)

    def _move_base(self, bot: UserId, thread: ThreadId, base: int, below: int) -> None:
        self._change_thread(bot, thread, base=max(base, self._thread(bot, thread).base))
        limit = codec.integer(below, "MoveBase.below")
        seen = self._seen_of(bot, thread)
        for id in [id for id, version in seen.items() if id <= limit and version <= limit]:
            self._undo.drop(seen, id)

    def _thread(self, bot: UserId, thread: ThreadId) -> rows.ThreadRow:
        row = self._threads.get((bot, thread))
        if row is None:
            raise rows.unknown_thread(thread)
        return row

    def _seen_of(self, bot: UserId, thread: ThreadId) -> dict[int, int]:
        self._thread(bot, thread)
        return self._seen[bot, thread]

    def _change_thread(self, bot: UserId, thread: ThreadId, **changes: Any) -> None:
        self._undo.put(self._threads, (bot, thread), self._thread(bot, thread)._replace(**changes))

    def _enqueue(self, bot: UserId, row: rows.WishRow) -> None:
        if (bot, row.key) not in self._wishes:
            self._position += 1
            self._undo.put(self._wishes, (bot, row.key), (self._position, row))

    def _settle(self, at: tuple[str, str], **changes: Any) -> None:
        position, row = self._wishes.get(at, (0, None))
        if row is not None and row.status == RowStatus.PENDING:
            self._undo.put(self._wishes, at, (position, row._replace(**changes)))

    def _fail_pending(self, bot: UserId, thread: ThreadId, reason: str | None) -> None:
        for (owner, key), (_, row) in list(self._wishes.items()):
            if owner == bot and row.thread == thread:
                self._settle((owner, key), status=RowStatus.FAILED.value, reason=reason)

    def _prune(self, bot: UserId, before_ms: int) -> None:
        for at, (_, row) in list(self._wishes.items()):
            if at[0] == bot and row.status != RowStatus.PENDING and row.created_ms < before_ms:
                self._undo.drop(self._wishes, at)


class _Undo:
    """What the tables held before the commit in hand touched them."""

    def __init__(self) -> None:
        self._before: list[tuple[dict[Any, Any], Any, Any]] = []

    def put(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        self._before.append((table, key, table.get(key)))
        table[key] = value

    def drop(self, table: dict[Any, Any], key: Any) -> None:
        self._before.append((table, key, table.pop(key)))

    @contextmanager
    def on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            for table, key, value in reversed(self._before):
                if value is None:
                    del table[key]
                else:
                    table[key] = value
            raise
        finally:
            self._before.clear()
