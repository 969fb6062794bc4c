"""The tables of the store in memory, and what each write does to them: dictionaries of encoded rows.

The same rows as a database's tables hold, so that nothing lives here that could not live there.

The tables of conversations in memory, and what each write does to them; see `tables`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from chatbot.errors import StoreConflict
from chatbot.model import ThreadId, UserId
from chatbot.stores import codec, erasure, rows
from chatbot.stores.records import RowStatus, StateKey, ThreadRecord
from chatbot.stores.rows import DialogRow, ResultRow, StateKeyRow, StateRow, TimerRow
from chatbot.stores.writes import (
    BeginAttempt,
    BeginStay,
    ConversationWrite,
    DropDeadLetter,
    DropDialog,
    DropTimer,
    EndAttempt,
    Enqueue,
    EnterThread,
    LeaveThread,
    MarkSeen,
    MoveBase,
    MoveHorizon,
    OweReceipt,
    Prune,
    ReopenRow,
    RepointRow,
    ReviveDeadLetter,
    SaveBot,
    SaveDeadLetter,
    SaveDialog,
    SaveResult,
    SaveState,
    SaveThread,
    SetTimer,
    SettleReceipt,
    SettleRow,
    Write,
)

Key = tuple[str, str]


class Tables:
    """All records of a store in memory.

    Attributes:
        bots: by name and resource; all others by the bot's user and an id of their own.
        wishes: with their positions.
        conversations: state, dialogs, timers and results.
    """

    def __init__(self) -> None:
        self.bots: dict[Key, rows.BotRow] = {}
        self.horizons: dict[str, int] = {}
        self.threads: dict[Key, rows.ThreadRow] = {}
        self.seen: dict[Key, dict[int, int]] = {}
        self.wishes: dict[Key, tuple[int, rows.ActionRow]] = {}
        self.letters: dict[Key, rows.LetterRow] = {}
        self.attempts: dict[Key, rows.AttemptRow] = {}
        self._position = 0
        self._undo = _Undo()
        self.conversations = ConversationTables(self._undo)

    def apply(self, bot: UserId, writes: Sequence[Write]) -> None:
        """Make these changes, all of them or none.

        Raises:
            CannotStore: a value has no stored form.
            StoreConflict: a state was changed since it was read.
            StateError: a thread was never begun.
        """
        owner = codec.text(bot, "bot")
        with self._undo.on_error():
            for write in writes:
                self._apply(owner, write)

    def forget(self, user: UserId) -> int:
        """Erase a person; how many rows held something of them."""
        theirs = {wish.key for _, wish in self.wishes.values() if wish.caused_by == user}
        changed = 0
        for key, (position, row) in self.wishes.items():
            wish = rows.decode_wish(row, position)
            erased = erasure.erase(wish, user)
            if erased is not wish:
                self.wishes[key] = (position, rows.encode_wish(erased))
                changed += 1
        dropped = [key for key, row in self.letters.items() if erasure.holds(rows.decode_letter(row), user, theirs)]
        for key in dropped:
            del self.letters[key]
        return changed + len(dropped) + self.conversations.forget(user)

    def _apply(self, bot: str, write: Write) -> None:
        match write:
            case SaveBot(record):
                row = rows.encode_bot(record)
                self._undo.put(self.bots, (row.name, row.resource), row)
            case MoveHorizon(horizon_ms):
                self._undo.put(self.horizons, bot, codec.integer(horizon_ms, "MoveHorizon.horizon_ms"))
            case Enqueue(wish):
                self._enqueue(bot, rows.encode_wish(wish))
            case SettleRow():
                self._settle_row(bot, write)
            case RepointRow(key, message):
                self._repoint((bot, codec.text(key, "RepointRow.key")), codec.text(message, "RepointRow.message"))
            case ReopenRow(key, created_ms):
                at = None if created_ms is None else codec.integer(created_ms, "ReopenRow.created_ms")
                self._reopen((bot, codec.text(key, "ReopenRow.key")), at)
            case Prune(before_ms):
                self._prune(bot, codec.integer(before_ms, "Prune.before_ms"))
            case SaveDeadLetter() | ReviveDeadLetter() | DropDeadLetter():
                self._apply_letter(bot, write)
            case BeginAttempt(thread, attempt):
                self._undo.put(self.attempts, (bot, thread), rows.encode_attempt(thread, attempt))
            case EndAttempt(thread):
                self._undo.drop(self.attempts, (bot, codec.text(thread, "EndAttempt.thread")))
            case SaveThread(record):
                self._save_thread(bot, record)
            case MarkSeen() | MoveBase() | LeaveThread() | EnterThread() | BeginStay() | OweReceipt() | SettleReceipt():
                self._apply_to_thread(bot, write)
            case _:
                self.conversations.apply(bot, write)

    def _apply_letter(self, bot: str, write: SaveDeadLetter | ReviveDeadLetter | DropDeadLetter) -> None:
        match write:
            case SaveDeadLetter(letter):
                row = rows.encode_letter(letter)
                self._undo.put(self.letters, (bot, row.id), row)
            case ReviveDeadLetter(id):
                at = (bot, codec.text(id, "ReviveDeadLetter.id"))
                if at in self.letters:
                    self._undo.put(self.letters, at, self.letters[at]._replace(is_revived=1))
            case DropDeadLetter(id):
                self._undo.drop(self.letters, (bot, codec.text(id, "DropDeadLetter.id")))

    def _apply_to_thread(
        self,
        bot: str,
        write: MoveBase | MarkSeen | LeaveThread | EnterThread | BeginStay | OweReceipt | SettleReceipt,
    ) -> None:
        match write:
            case MarkSeen(thread, seen):
                for id, version in rows.encode_seen(seen, "MarkSeen.seen"):
                    self._undo.put(self._seen_of(bot, thread), id, version)
            case MoveBase(thread, base, below):
                self._move_base(bot, thread, codec.integer(base, "MoveBase.base"), below)
            case LeaveThread(thread, left_ms):
                self._change_thread(bot, thread, is_left=1, left_ms=codec.integer(left_ms, "LeaveThread.left_ms"))
            case EnterThread(thread):
                self._change_thread(bot, thread, is_left=0)
            case BeginStay(thread, arrived):
                known = self._thread(bot, thread).arrived
                stay = known if arrived is None else codec.integer(arrived, "BeginStay.arrived")
                self._change_thread(bot, thread, left_ms=None, arrived=stay)
            case OweReceipt(thread, message):
                number = codec.number(message, "OweReceipt.message")
                due = self._thread(bot, thread).receipt_due
                self._change_thread(bot, thread, receipt_due=max(number, due or 0))
            case SettleReceipt(thread, message):
                number = codec.number(message, "SettleReceipt.message")
                sent = self._thread(bot, thread).receipt_sent
                self._change_thread(bot, thread, receipt_sent=max(number, sent or 0))

    def _save_thread(self, bot: str, record: ThreadRecord) -> None:
        row = rows.encode_thread(record)
        seen = dict(rows.encode_seen(record.seen, "ThreadRecord.seen"))
        self._undo.put(self.threads, (bot, row.id), row)
        self._undo.put(self.seen, (bot, row.id), seen)

    def _move_base(self, bot: str, thread: ThreadId, base: int, below: int) -> None:
        self._change_thread(bot, thread, base=max(base, self._thread(bot, thread).base))
        limit = codec.integer(below, "MoveBase.below")
        seen = self._seen_of(bot, thread)
        for id in [id for id, version in seen.items() if id <= limit and version <= limit]:
            self._undo.drop(seen, id)

    def _thread(self, bot: str, thread: ThreadId) -> rows.ThreadRow:
        row = self.threads.get((bot, thread))
        if row is None:
            raise rows.unknown_thread(thread)
        return row

    def _seen_of(self, bot: str, thread: ThreadId) -> dict[int, int]:
        self._thread(bot, thread)
        return self.seen[bot, thread]

    def _change_thread(self, bot: str, thread: ThreadId, **changes: Any) -> None:
        self._undo.put(self.threads, (bot, thread), self._thread(bot, thread)._replace(**changes))

    def _enqueue(self, bot: str, row: rows.ActionRow) -> None:
        if (bot, row.key) not in self.wishes:
            self._undo.put(self.wishes, (bot, row.key), (self._next_position(), row))

    def _settle_row(self, bot: str, write: SettleRow) -> None:
        self._settle(
            (bot, codec.text(write.key, "SettleRow.key")),
            status=RowStatus(write.status).value,
            message=codec.optional_text(write.message, "SettleRow.message"),
            reason=codec.diagnostic(write.reason),
        )

    def _settle(self, at: Key, **changes: Any) -> None:
        position, row = self.wishes.get(at, (0, None))
        if row is not None and row.status == RowStatus.PENDING:
            self._undo.put(self.wishes, at, (position, row._replace(**changes)))

    def _repoint(self, at: Key, message: str) -> None:
        position, row = self.wishes.get(at, (0, None))
        if row is not None and row.status == RowStatus.DONE:
            self._undo.put(self.wishes, at, (position, row._replace(message=message)))

    def _reopen(self, at: Key, created_ms: int | None) -> None:
        _, row = self.wishes.get(at, (0, None))
        if row is not None and row.status == RowStatus.FAILED:
            pending = row._replace(
                status=RowStatus.PENDING.value,
                reason=None,
                created_ms=row.created_ms if created_ms is None else created_ms,
            )
            self._undo.put(self.wishes, at, (self._next_position(), pending))

    def _prune(self, bot: str, before_ms: int) -> None:
        own = [(at, row) for at, (_, row) in self.wishes.items() if at[0] == bot]
        waiting = {row.thread for _, row in own if row.status == RowStatus.PENDING}
        for at, row in own:
            is_old = row.created_ms < before_ms and (row.created_ms > 0 or row.after < before_ms)
            explains = row.message is not None and row.thread in waiting
            if is_old and row.status != RowStatus.PENDING and not explains:
                self._undo.drop(self.wishes, at)
        self.conversations.prune(bot, before_ms)

    def _next_position(self) -> int:
        self._position += 1
        return self._position


class _Undo:
    """What the tables held before the commit in hand touched them."""

    def __init__(self) -> None:
        self._before: list[tuple[dict[Any, Any], Any, Any]] = []

    def put(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        self._before.append((table, key, table.get(key)))
        table[key] = value

    def drop(self, table: dict[Any, Any], key: Any) -> None:
        if key in table:
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


class Undo(Protocol):
    """Changes tables so that the change can be taken back."""

    def put(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        """Set a row."""
        ...

    def drop(self, table: dict[Any, Any], key: Any) -> None:
        """Delete a row, if it is there."""
        ...


class ConversationTables:
    """What a store in memory knows of conversations, each row under its bot's user and its own key."""

    def __init__(self, undo: Undo) -> None:
        self.states: dict[tuple[str, StateKeyRow], StateRow] = {}
        self.dialogs: dict[Key, DialogRow] = {}
        self.timers: dict[Key, TimerRow] = {}
        self.results: dict[Key, ResultRow] = {}
        self._undo = undo

    def apply(self, bot: str, write: ConversationWrite) -> None:
        """Make one change."""
        match write:
            case SaveState():
                self._save_state(bot, write)
            case SaveDialog(record):
                row = rows.encode_dialog(record)
                self._undo.put(self.dialogs, (bot, row.id), row)
            case DropDialog(id):
                self._undo.drop(self.dialogs, (bot, codec.text(id, "DropDialog.id")))
            case SetTimer(timer):
                due = rows.encode_timer(timer)
                self._undo.put(self.timers, (bot, due.id), due)
            case DropTimer(id):
                self._undo.drop(self.timers, (bot, codec.text(id, "DropTimer.id")))
            case SaveResult():
                result = rows.encode_result(write)
                if (bot, result.key) not in self.results:
                    self._undo.put(self.results, (bot, result.key), result)

    def state(self, bot: UserId, key: StateKey) -> StateRow | None:
        """The row of a state."""
        return self.states.get((bot, rows.encode_state_key(key)))

    def prune(self, bot: str, before_ms: int) -> None:
        """Forget old results, and dialogs that came to rest long ago."""
        for at in [at for at, row in self.results.items() if at[0] == bot and row.created_ms < before_ms]:
            self._undo.drop(self.results, at)
        for at, row in list(self.dialogs.items()):
            if at[0] == bot and not row.is_waiting and row.changed_ms < before_ms:
                self._undo.drop(self.dialogs, at)

    def forget(self, user: UserId) -> int:
        """Erase a person; how many rows held something of them."""
        changed = 0
        for key, row in list(self.states.items()):
            erased = erasure.erase_state(key[1], row, user)
            if erased is None:
                del self.states[key]
            else:
                self.states[key] = erased
            changed += erased != row
        for named, result in list(self.results.items()):
            self.results[named] = result._replace(
                value=erasure.erase_result(result.value, result.caused_by, user),
                caused_by="" if result.caused_by == user else result.caused_by,
            )
            changed += self.results[named] != result
        dialogs = [at for at, row in self.dialogs.items() if erasure.holds_dialog(row, user)]
        timers = [at for at, row in self.timers.items() if erasure.holds_timer(row, user)]
        for at in dialogs:
            del self.dialogs[at]
        for at in timers:
            del self.timers[at]
        return changed + len(dialogs) + len(timers)

    def _save_state(self, bot: str, write: SaveState) -> None:
        at = (bot, rows.encode_state_key(write.key))
        row = rows.encode_state(write)
        found = self.states.get(at)
        if (None if found is None else found.version) != write.expected:
            raise conflict(write)
        if row is None:
            self._undo.drop(self.states, at)
        else:
            self._undo.put(self.states, at, row)


def conflict(write: SaveState) -> StoreConflict:
    """The error of saving a state that somebody else has saved since."""
    return StoreConflict(f"the state {write.key.name} was changed meanwhile; read it again, and do it over")
