"""SQL statements of a commit. Performs no I/O; the texts are the same for all databases (see `sql`).

All values are checked and encoded here, before a transaction begins. Inside the transaction only three things can fail:
a change of a thread that is not stored, a state that another commit has changed, and the database itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from chatbot.errors import StoreConflict
from chatbot.model import ThreadId, UserId
from chatbot.stores import codec, rows
from chatbot.stores.records import RowStatus, ThreadRecord
from chatbot.stores.rows import (
    encode_dialog,
    encode_result,
    encode_state,
    encode_state_key,
    encode_timer,
)
from chatbot.stores.sql import NEXT_POSITION, Statement, Value
from chatbot.stores.writes import (
    BeginAttempt,
    ConversationWrite,
    DropDeadLetter,
    DropDialog,
    DropTimer,
    EndAttempt,
    Enqueue,
    EnterThread,
    LeaveThread,
    MarkJoined,
    MarkReceiptDue,
    MarkSeen,
    MoveBase,
    MoveHorizon,
    PauseBot,
    Prune,
    RenameBot,
    ReplaceRowMessage,
    RequestRetry,
    ResumeBot,
    RetireBots,
    RetryRow,
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

BotWrite = SaveBot | RenameBot | RetireBots | PauseBot | ResumeBot
FailureWrite = SaveDeadLetter | RequestRetry | DropDeadLetter | BeginAttempt | EndAttempt
ThreadWrite = SaveThread | MoveBase | MarkSeen | LeaveThread | EnterThread | MarkJoined | MarkReceiptDue | SettleReceipt

SAVE_BOT: Final = """
    INSERT INTO bot (name, resource, user_id, first_started_ms) VALUES (?, ?, ?, ?)
    ON CONFLICT (name, resource) DO UPDATE
    SET user_id = excluded.user_id, first_started_ms = excluded.first_started_ms"""

DROP_BOT: Final = "DELETE FROM bot WHERE name = ? AND resource = ? AND name <> ?"

RENAME_BOT: Final = "UPDATE bot SET name = ?, is_retired = 0 WHERE name = ? AND resource = ?"

RETIRE_BOTS: Final = "UPDATE bot SET is_retired = 1 WHERE resource = ?"

KEEP_BOT: Final = "UPDATE bot SET is_retired = 0 WHERE name = ? AND resource = ?"

PAUSE_BOT: Final = """
    UPDATE bot SET paused_ms = COALESCE(paused_ms, CAST(? AS BIGINT)), is_skipping = 0
    WHERE name = ? AND resource = ?"""

RESUME_BOT: Final = """
    UPDATE bot SET paused_ms = NULL, is_skipping = ? WHERE name = ? AND resource = ?"""

SAVE_OWNER: Final = """
    INSERT INTO owner (user_id) VALUES (?) ON CONFLICT (user_id) DO NOTHING"""

SAVE_THREAD: Final = """
    INSERT INTO thread (owner, id, floor, base, is_left, receipt_due, receipt_sent, left_ms, arrived)
    VALUES ((SELECT key FROM owner WHERE user_id = ?), ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (owner, id) DO UPDATE
    SET floor = excluded.floor, base = excluded.base, is_left = excluded.is_left,
        receipt_due = excluded.receipt_due, receipt_sent = excluded.receipt_sent,
        left_ms = excluded.left_ms, arrived = excluded.arrived"""

FORGET_SEEN: Final = """
    DELETE FROM seen
    WHERE thread = (SELECT key FROM thread WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND id = ?)"""

MOVE_HORIZON: Final = """
    UPDATE owner SET horizon_ms = ? WHERE user_id = ?"""

MARK_SEEN: Final = """
    INSERT INTO seen (thread, message, version)
    SELECT key, CAST(? AS BIGINT), CAST(? AS BIGINT) FROM thread
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND id = ?
    ON CONFLICT (thread, message) DO UPDATE SET version = excluded.version"""

MOVE_BASE: Final = """
    UPDATE thread SET base = CASE WHEN base > ? THEN base ELSE ? END
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND id = ?"""

FORGET_SETTLED: Final = """
    DELETE FROM seen
    WHERE thread = (SELECT key FROM thread WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND id = ?)
    AND message <= ? AND version <= ?"""

LEAVE_THREAD: Final = """
    UPDATE thread SET is_left = 1, left_ms = ?
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND id = ?"""

ENTER_THREAD: Final = """
    UPDATE thread SET is_left = 0 WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND id = ?"""

MARK_JOINED: Final = """
    UPDATE thread SET left_ms = NULL, arrived = COALESCE(?, arrived)
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND id = ?"""

MARK_RECEIPT_DUE: Final = """
    UPDATE thread SET receipt_due = CASE WHEN receipt_due > ? THEN receipt_due ELSE ? END
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND id = ?"""

SETTLE_RECEIPT: Final = """
    UPDATE thread SET receipt_sent = CASE WHEN receipt_sent > ? THEN receipt_sent ELSE ? END
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND id = ?"""

ENQUEUE: Final = """
    INSERT INTO outbox (
        owner, key, thread, action, after, created_ms, status, message, reason, caused_by, after_failure
    )
    VALUES ((SELECT key FROM owner WHERE user_id = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (owner, key) DO NOTHING"""

SETTLE_ROW: Final = """
    UPDATE outbox SET status = ?, message = ?, reason = ?
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND key = ? AND status = 'pending'"""

REPLACE_ROW_MESSAGE: Final = """
    UPDATE outbox SET message = ?
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND key = ? AND status = 'done'"""

RETRY_ROW: Final = f"""
    UPDATE outbox
    SET status = 'pending', reason = NULL, created_ms = COALESCE(CAST(? AS BIGINT), created_ms),
        position = {NEXT_POSITION}
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND key = ? AND status = 'failed'"""  # noqa: S608

SAVE_DEAD_LETTER: Final = """
    INSERT INTO dead_letter (owner, id, event, handler, error, attempts, died_ms, is_revived, caused_by)
    VALUES ((SELECT key FROM owner WHERE user_id = ?), ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (owner, id) DO UPDATE
    SET event = excluded.event, handler = excluded.handler, error = excluded.error, attempts = excluded.attempts,
        died_ms = excluded.died_ms, is_revived = excluded.is_revived, caused_by = excluded.caused_by"""

REQUEST_RETRY: Final = """
    UPDATE dead_letter SET is_revived = 1
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND id = ?"""

DROP_DEAD_LETTER: Final = """
    DELETE FROM dead_letter WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND id = ?"""

BEGIN_ATTEMPT: Final = """
    INSERT INTO attempt (owner, thread, event_key, tries, cuts, progress, handler)
    VALUES ((SELECT key FROM owner WHERE user_id = ?), ?, ?, ?, ?, ?, ?)
    ON CONFLICT (owner, thread) DO UPDATE
    SET event_key = excluded.event_key, tries = excluded.tries, cuts = excluded.cuts, progress = excluded.progress,
        handler = excluded.handler"""

END_ATTEMPT: Final = """
    DELETE FROM attempt WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND thread = ?"""

PRUNE: Final = """
    DELETE FROM outbox
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND created_ms < ? AND status <> 'pending'
    AND (created_ms > 0 OR after < ?)
    AND (message IS NULL OR thread NOT IN (
        SELECT thread FROM outbox WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND status = 'pending'
    ))"""


def statements(bot: UserId, writes: Sequence[Write]) -> list[Statement]:
    """Return the statements of these writes, in order.

    Raises:
        CannotStore: a value has no stored form; the text names its place.
    """
    owner = codec.text(bot, "bot")
    found: list[Statement] = []
    for write in writes:
        found += _statements(owner, write)
    return found


def _statements(bot: str, write: Write) -> Iterable[Statement]:
    # SAVE_OWNER comes first wherever a row is inserted: the rows refer to the owner by its number, and a bot's first
    # write may be any of them.
    match write:
        case MarkSeen() | MarkReceiptDue() | SettleReceipt() | MoveBase():  # nearly always
            return _thread_statements(bot, write)
        case Enqueue(row):
            return Statement(SAVE_OWNER, (bot,)), Statement(ENQUEUE, (bot, *rows.encode_action_row(row)))
        case SettleRow():
            return (_settle_row(bot, write),)
        case SaveDeadLetter() | RequestRetry() | DropDeadLetter() | BeginAttempt() | EndAttempt():
            return _failure_statements(bot, write)
        case SaveBot() | RenameBot() | RetireBots() | PauseBot() | ResumeBot():
            return _bot_statements(write)
        case SaveState() | SaveDialog() | DropDialog() | SetTimer() | DropTimer() | SaveResult():
            return Statement(SAVE_OWNER, (bot,)), *conversation_statements(bot, write)
        case MoveHorizon() | ReplaceRowMessage() | RetryRow() | Prune():
            return _rare_statements(bot, write)
        case _:
            return _thread_statements(bot, write)


def _rare_statements(bot: str, write: MoveHorizon | ReplaceRowMessage | RetryRow | Prune) -> Iterator[Statement]:
    match write:
        case MoveHorizon(horizon_ms):
            yield Statement(SAVE_OWNER, (bot,))
            yield Statement(MOVE_HORIZON, (codec.integer(horizon_ms, "MoveHorizon.horizon_ms"), bot))
        case ReplaceRowMessage(key, message):
            yield Statement(
                REPLACE_ROW_MESSAGE,
                (codec.text(message, "ReplaceRowMessage.message"), bot, codec.text(key, "ReplaceRowMessage.key")),
            )
        case RetryRow(key, created_ms):
            reopened = None if created_ms is None else codec.integer(created_ms, "RetryRow.created_ms")
            yield Statement(RETRY_ROW, (reopened, bot, codec.text(key, "RetryRow.key")))
        case Prune(before_ms):
            limit = codec.integer(before_ms, "Prune.before_ms")
            yield Statement(PRUNE, (bot, limit, limit, bot))
            yield from prune_statements(bot, limit)


def _failure_statements(bot: str, write: FailureWrite) -> Iterator[Statement]:
    match write:
        case SaveDeadLetter(letter):
            yield Statement(SAVE_OWNER, (bot,))
            yield Statement(SAVE_DEAD_LETTER, (bot, *rows.encode_letter(letter)))
        case RequestRetry(id):
            yield Statement(REQUEST_RETRY, (bot, codec.text(id, "RequestRetry.id")))
        case DropDeadLetter(id):
            yield Statement(DROP_DEAD_LETTER, (bot, codec.text(id, "DropDeadLetter.id")))
        case BeginAttempt(thread, attempt):
            yield Statement(SAVE_OWNER, (bot,))
            yield Statement(BEGIN_ATTEMPT, (bot, *rows.encode_attempt(thread, attempt)))
        case EndAttempt(thread):
            yield Statement(END_ATTEMPT, (bot, codec.text(thread, "EndAttempt.thread")))


def _bot_statements(write: BotWrite) -> Iterator[Statement]:
    match write:
        case SaveBot(record):
            yield Statement(SAVE_BOT, rows.encode_bot(record))
        case RenameBot(old, new, resource):
            place = codec.text(resource, "RenameBot.resource")
            was, name = codec.text(old, "RenameBot.old"), codec.text(new, "RenameBot.new")
            yield Statement(DROP_BOT, (name, place, was))
            yield Statement(RENAME_BOT, (name, was, place))
        case RetireBots(resource, kept):
            place = codec.text(resource, "RetireBots.resource")
            yield Statement(RETIRE_BOTS, (place,))
            yield from (Statement(KEEP_BOT, (codec.text(name, "RetireBots.kept"), place)) for name in kept)
        case PauseBot(name, resource, paused_ms):
            at = codec.integer(paused_ms, "PauseBot.paused_ms")
            yield Statement(
                PAUSE_BOT, (at, codec.text(name, "PauseBot.name"), codec.text(resource, "PauseBot.resource"))
            )
        case ResumeBot(name, resource, is_skipping):
            names = codec.text(name, "ResumeBot.name"), codec.text(resource, "ResumeBot.resource")
            yield Statement(RESUME_BOT, (int(is_skipping), *names))


def _thread_statements(bot: str, write: ThreadWrite) -> Iterator[Statement]:
    match write:
        case SaveThread(record):
            yield from _save_thread(bot, record)
        case MoveBase(thread, base, below):
            to, limit = codec.integer(base, "MoveBase.base"), codec.integer(below, "MoveBase.below")
            yield _change(thread, MOVE_BASE, to, to, bot, thread)
            yield Statement(FORGET_SETTLED, (bot, thread, limit, limit))
        case MarkSeen(thread, seen):
            yield from _mark_seen(bot, thread, rows.encode_seen(seen, "MarkSeen.seen"))
        case LeaveThread(thread, left_ms):
            yield _change(thread, LEAVE_THREAD, codec.integer(left_ms, "LeaveThread.left_ms"), bot, thread)
        case EnterThread(thread):
            yield _change(thread, ENTER_THREAD, bot, thread)
        case MarkJoined(thread, arrived):
            known = None if arrived is None else codec.integer(arrived, "MarkJoined.arrived")
            yield _change(thread, MARK_JOINED, known, bot, thread)
        case MarkReceiptDue(thread, message):
            number = codec.number(message, "MarkReceiptDue.message")
            yield _change(thread, MARK_RECEIPT_DUE, number, number, bot, thread)
        case SettleReceipt(thread, message):
            number = codec.number(message, "SettleReceipt.message")
            yield _change(thread, SETTLE_RECEIPT, number, number, bot, thread)


def _save_thread(bot: str, record: ThreadRecord) -> Iterator[Statement]:
    row = rows.encode_thread(record)
    yield Statement(SAVE_OWNER, (bot,))
    yield Statement(SAVE_THREAD, (bot, *row))
    yield Statement(FORGET_SEEN, (bot, row.id))
    yield from _mark_seen(bot, record.thread, rows.encode_seen(record.seen, "ThreadRecord.seen"))


def _mark_seen(bot: str, thread: ThreadId, seen: list[tuple[int, int]]) -> Iterator[Statement]:
    for id, version in seen:
        yield _change(thread, MARK_SEEN, id, version, bot, thread)


def _settle_row(bot: str, write: SettleRow) -> Statement:
    message = codec.optional_text(write.message, "SettleRow.message")
    status, reason = RowStatus(write.status).value, codec.diagnostic(write.reason)
    return Statement(SETTLE_ROW, (status, message, reason, bot, codec.text(write.key, "SettleRow.key")))


def _change(thread: ThreadId, sql: str, *values: Value) -> Statement:
    return Statement(sql, values, rows.unknown_thread(codec.text(thread, "thread")))


BEGIN_STATE: Final = """
    INSERT INTO state (owner, thread, person, name, value, version)
    VALUES ((SELECT key FROM owner WHERE user_id = ?), ?, ?, ?, ?, ?)
    ON CONFLICT (owner, thread, person, name) DO NOTHING"""

CHANGE_STATE: Final = """
    UPDATE state SET value = ?, version = ?
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND thread = ? AND person = ? AND name = ?
    AND version = ?"""

END_STATE: Final = """
    DELETE FROM state
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND thread = ? AND person = ? AND name = ?
    AND version = ?"""

SAVE_DIALOG: Final = """
    INSERT INTO dialog
    (owner, id, thread, person, handler, event, journal, event_key, is_waiting, deadline_ms, changed_ms)
    VALUES ((SELECT key FROM owner WHERE user_id = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (owner, id) DO UPDATE
    SET thread = excluded.thread, person = excluded.person, handler = excluded.handler, event = excluded.event,
        journal = excluded.journal, event_key = excluded.event_key, is_waiting = excluded.is_waiting,
        deadline_ms = excluded.deadline_ms, changed_ms = excluded.changed_ms"""

DROP_DIALOG: Final = """
    DELETE FROM dialog WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND id = ?"""

SET_TIMER: Final = """
    INSERT INTO timer (owner, id, handler, due_ms, thread, payload, caused_by)
    VALUES ((SELECT key FROM owner WHERE user_id = ?), ?, ?, ?, ?, ?, ?)
    ON CONFLICT (owner, id) DO UPDATE
    SET handler = excluded.handler, due_ms = excluded.due_ms, thread = excluded.thread,
        payload = excluded.payload, caused_by = excluded.caused_by"""

DROP_TIMER: Final = """
    DELETE FROM timer WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND id = ?"""

SAVE_RESULT: Final = """
    INSERT INTO result (owner, key, value, created_ms, caused_by)
    VALUES ((SELECT key FROM owner WHERE user_id = ?), ?, ?, ?, ?)
    ON CONFLICT (owner, key) DO NOTHING"""

PRUNE_CONVERSATIONS: Final = (
    "DELETE FROM result WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND created_ms < ?",
    """
    DELETE FROM dialog
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND changed_ms < ? AND is_waiting = 0""",
)
"""Further deletions of a prune; each takes the bot and the time."""


TEXTS: Final = (
    SAVE_BOT,
    DROP_BOT,
    RENAME_BOT,
    RETIRE_BOTS,
    KEEP_BOT,
    PAUSE_BOT,
    RESUME_BOT,
    SAVE_OWNER,
    SAVE_THREAD,
    FORGET_SEEN,
    MOVE_HORIZON,
    MARK_SEEN,
    MOVE_BASE,
    FORGET_SETTLED,
    LEAVE_THREAD,
    ENTER_THREAD,
    MARK_JOINED,
    MARK_RECEIPT_DUE,
    SETTLE_RECEIPT,
    ENQUEUE,
    SETTLE_ROW,
    REPLACE_ROW_MESSAGE,
    RETRY_ROW,
    SAVE_DEAD_LETTER,
    REQUEST_RETRY,
    DROP_DEAD_LETTER,
    BEGIN_ATTEMPT,
    END_ATTEMPT,
    PRUNE,
    BEGIN_STATE,
    CHANGE_STATE,
    END_STATE,
    SAVE_DIALOG,
    DROP_DIALOG,
    SET_TIMER,
    DROP_TIMER,
    SAVE_RESULT,
    *PRUNE_CONVERSATIONS,
)
"""All texts of this module: a database may prepare them together."""


def conversation_statements(bot: str, write: ConversationWrite) -> Iterator[Statement]:
    """Yield the statements of a write of the conversation tables.

    Raises:
        CannotStore: a value has no stored form; the text names its place.
    """
    match write:
        case SaveState():
            yield from _save_state(bot, write)
        case SaveDialog(record):
            yield Statement(SAVE_DIALOG, (bot, *encode_dialog(record)))
        case DropDialog(id):
            yield Statement(DROP_DIALOG, (bot, codec.text(id, "DropDialog.id")))
        case SetTimer(timer):
            yield Statement(SET_TIMER, (bot, *encode_timer(timer)))
        case DropTimer(id):
            yield Statement(DROP_TIMER, (bot, codec.text(id, "DropTimer.id")))
        case SaveResult():
            yield Statement(SAVE_RESULT, (bot, *encode_result(write)))


def prune_statements(bot: str, before_ms: int) -> Iterator[Statement]:
    """Yield the further deletions of a prune."""
    yield from (Statement(sql, (bot, before_ms)) for sql in PRUNE_CONVERSATIONS)


def _save_state(bot: str, write: SaveState) -> Iterator[Statement]:
    key, row = encode_state_key(write.key), encode_state(write)
    if write.expected is not None:
        expected = codec.integer(write.expected, "SaveState.expected")
        if row is None:
            yield Statement(END_STATE, (bot, *key, expected), conflict(write))
        else:
            yield Statement(CHANGE_STATE, (*row, bot, *key, expected), conflict(write))
    elif row is not None:
        yield Statement(BEGIN_STATE, (bot, *key, *row), conflict(write))


def conflict(write: SaveState) -> StoreConflict:
    """Return the error for a state that another commit has changed since it was read."""
    return StoreConflict(f"the state {write.key.name} was changed by another commit; read it again and retry")
