"""What is read from a SQLite store, and the changes that must read first: holding it, and forgetting a person.

Functions of an open connection; they block, and run in worker threads.

What is read of conversations from a SQLite store, and forgetting a person in them; see `queries`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from typing import Final, NamedTuple

from chatbot.model import MessageId, ThreadId, UserId
from chatbot.stores import codec, erasure, queries, rows
from chatbot.stores.records import (
    Attempt,
    BotRecord,
    DeadLetter,
    DialogRecord,
    OutboxRow,
    StateKey,
    StoredState,
    ThreadRecord,
    TimerRecord,
)
from chatbot.stores.rows import DialogRow, StateKeyRow, StateRow, TimerRow

FIND_BOT: Final = """
    SELECT name, resource, user_id, first_started_ms FROM bot WHERE name = ? AND resource = ?"""

BOTS: Final = """
    SELECT name, resource, user_id, first_started_ms FROM bot ORDER BY name, resource"""

HORIZON: Final = """
    SELECT horizon_ms FROM owner WHERE user_id = ?"""

THREADS: Final = """
    SELECT key, id, floor, base, is_left, receipt_due, receipt_sent, left_ms, arrived FROM thread
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) ORDER BY key"""

SEEN: Final = """
    SELECT seen.thread, seen.message, seen.version FROM thread JOIN seen ON seen.thread = thread.key
    WHERE thread.owner = (SELECT key FROM owner WHERE user_id = ?)"""

PENDING: Final = """
    SELECT position, key, thread, action, after, created_ms, status, message, reason, caused_by, after_failure
    FROM outbox
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND status = 'pending' ORDER BY position"""

ROW: Final = """
    SELECT position, key, thread, action, after, created_ms, status, message, reason, caused_by, after_failure
    FROM outbox
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND key = ?"""

WISHES_ABOUT: Final = """
    SELECT position, key, thread, action, after, created_ms, status, message, reason, caused_by, after_failure
    FROM outbox
    WHERE caused_by = ? OR action LIKE ? ESCAPE '!' OR reason LIKE ? ESCAPE '!' ORDER BY position"""

MADE: Final = """
    SELECT DISTINCT message FROM outbox
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND message IN (SELECT value FROM json_each(?))"""

ATTEMPTS: Final = """
    SELECT thread, event_key, tries, cuts, progress, handler FROM attempt
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?)"""

DEAD_LETTERS: Final = """
    SELECT id, event, handler, error, attempts, died_ms, is_revived, caused_by FROM dead_letter
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) ORDER BY died_ms, id"""

LETTERS_ABOUT: Final = """
    SELECT owner, id, event, handler, error, attempts, died_ms, is_revived, caused_by FROM dead_letter
    WHERE event LIKE ? ESCAPE '!' OR error LIKE ? ESCAPE '!' OR caused_by = ?
    OR event LIKE '%"kind":"action_failed"%'"""

DROP_LETTER: Final = """
    DELETE FROM dead_letter WHERE owner = ? AND id = ?"""

REWRITE: Final = """
    UPDATE outbox SET action = ?, status = ?, reason = ?, caused_by = ? WHERE position = ?"""


class LastHolder(NamedTuple):
    """How the last process that held the store ended."""

    was_killed: bool = False
    """It did not let go of the store."""

    was_stopping: bool = False
    """Nor did it, but it had been told to stop."""


def hold(connection: sqlite3.Connection, pid: int) -> LastHolder:
    """Note who holds the store, and return how its last holder ended."""
    connection.execute("BEGIN IMMEDIATE")
    held = connection.execute("SELECT is_stopping FROM holder").fetchall()
    connection.execute("DELETE FROM holder")
    connection.execute("INSERT INTO holder (pid) VALUES (?)", (pid,))
    connection.execute("COMMIT")
    return LastHolder(was_killed=bool(held), was_stopping=any(row[0] for row in held))


def mark_stopping(connection: sqlite3.Connection) -> None:
    """Note that whoever holds the store was told to stop."""
    connection.execute("UPDATE holder SET is_stopping = 1")


def let_go(connection: sqlite3.Connection) -> None:
    """Note that nobody holds the store."""
    connection.execute("DELETE FROM holder")


def find_bot(connection: sqlite3.Connection, name: str, resource: str) -> BotRecord | None:
    """The identity remembered for this name at this resource."""
    row = connection.execute(FIND_BOT, (name, resource)).fetchone()
    return None if row is None else rows.decode_bot(rows.BotRow._make(row))


def bots(connection: sqlite3.Connection) -> list[BotRecord]:
    """All identities, by name."""
    return [rows.decode_bot(rows.BotRow._make(row)) for row in connection.execute(BOTS)]


def horizon(connection: sqlite3.Connection, bot: str) -> int | None:
    """The time before which everything of a bot is settled."""
    found = connection.execute(HORIZON, (bot,)).fetchone()
    return None if found is None or found[0] is None else int(found[0])


def threads(connection: sqlite3.Connection, bot: str) -> list[ThreadRecord]:
    """All threads of a bot with their seen-sets, in two passes."""
    seen = rows.group_seen(connection.execute(SEEN, (bot,)))
    return [
        rows.decode_thread(rows.ThreadRow._make(row), seen.get(key, {}))
        for key, *row in connection.execute(THREADS, (bot,))
    ]


def pending(connection: sqlite3.Connection, bot: str) -> list[OutboxRow]:
    """All wishes of a bot that are still to be done, oldest first."""
    return [_wish(row) for row in connection.execute(PENDING, (bot,))]


def row(connection: sqlite3.Connection, bot: str, key: str) -> OutboxRow | None:
    """The wish of this key."""
    found = connection.execute(ROW, (bot, key)).fetchone()
    return None if found is None else _wish(found)


def made(connection: sqlite3.Connection, bot: str, messages: Collection[MessageId]) -> frozenset[MessageId]:
    """Those of these messages that a wish has made, changed or deleted; reads all wishes, so ask seldom."""
    known = connection.execute(MADE, (bot, json.dumps(list(messages))))
    return frozenset(MessageId(message) for (message,) in known)


def attempts(connection: sqlite3.Connection, bot: str) -> dict[ThreadId, Attempt]:
    """The handlers that were noted as about to run, by their threads."""
    return rows.decode_attempts(map(rows.AttemptRow._make, connection.execute(ATTEMPTS, (bot,))))


def dead_letters(connection: sqlite3.Connection, bot: str) -> list[DeadLetter]:
    """All dead letters of a bot, oldest first."""
    return [rows.decode_letter(rows.LetterRow._make(row)) for row in connection.execute(DEAD_LETTERS, (bot,))]


def forget(connection: sqlite3.Connection, user: UserId) -> int:
    """Erase a person from the records of every bot; how many held something of them."""
    in_action, in_event = codec.as_stored(user)
    changed = _drop_letters(connection, user, in_event)  # first, while the wishes still say whose they are
    changed += _erase_wishes(connection, user, in_action)
    return changed + queries.forget_conversations(connection, user, _with(in_event))


def _erase_wishes(connection: sqlite3.Connection, user: UserId, in_action: str) -> int:
    changed = 0
    for found in connection.execute(WISHES_ABOUT, (user, _with(in_action), _with(user))).fetchall():
        wish = _wish(found)
        erased = erasure.erase(wish, user)
        if erased is not wish:
            new = rows.encode_wish(erased)
            connection.execute(REWRITE, (new.action, new.status, new.reason, new.caused_by, wish.position))
            changed += 1
    return changed


def _drop_letters(connection: sqlite3.Connection, user: UserId, in_event: str) -> int:
    dropped = 0
    theirs = {key for (key,) in connection.execute("SELECT key FROM outbox WHERE caused_by = ?", (user,))}
    for owner, *row in connection.execute(LETTERS_ABOUT, (_with(in_event), _with(user), user)).fetchall():
        letter = rows.decode_letter(rows.LetterRow._make(row))
        if erasure.holds(letter, user, theirs):
            connection.execute(DROP_LETTER, (owner, letter.id))
            dropped += 1
    return dropped


def _wish(row: tuple[int, ...]) -> OutboxRow:
    position, *columns = row
    return rows.decode_wish(rows.ActionRow._make(columns), position)


def _with(text: str) -> str:
    """The pattern of LIKE that fits whatever has this text in it."""
    return "%" + text.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%"


STATE: Final = """
    SELECT value, version FROM state
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND thread = ? AND person = ? AND name = ?"""

DIALOGS: Final = """
    SELECT id, thread, person, handler, event, journal, event_key, is_waiting, deadline_ms, changed_ms FROM dialog
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) ORDER BY changed_ms, id"""

TIMERS: Final = """
    SELECT id, handler, due_ms, thread, payload, caused_by FROM timer
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) ORDER BY due_ms, id"""

RESULT: Final = """
    SELECT value FROM result WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND key = ?"""

STATES_ABOUT: Final = """
    SELECT owner, thread, person, name, value, version FROM state WHERE person = ? OR value LIKE ? ESCAPE '!'"""

ERASE_STATE: Final = """
    UPDATE state SET value = ?, version = ? WHERE owner = ? AND thread = ? AND person = ? AND name = ?"""

DROP_STATE: Final = """
    DELETE FROM state WHERE owner = ? AND thread = ? AND person = ? AND name = ?"""

DIALOGS_ABOUT: Final = """
    SELECT owner, id, thread, person, handler, event, journal, event_key, is_waiting, deadline_ms, changed_ms
    FROM dialog WHERE person = ? OR event LIKE ? ESCAPE '!' OR journal LIKE ? ESCAPE '!'"""

TIMERS_ABOUT: Final = """
    SELECT owner, id, handler, due_ms, thread, payload, caused_by FROM timer
    WHERE caused_by = ? OR payload LIKE ? ESCAPE '!'"""

RESULTS_ABOUT: Final = """
    SELECT owner, key, value, caused_by FROM result WHERE caused_by = ? OR value LIKE ? ESCAPE '!'"""


ERASE_RESULT: Final = """
    UPDATE result SET value = ?, caused_by = ? WHERE owner = ? AND key = ?"""


def state(connection: sqlite3.Connection, bot: str, key: StateKey) -> StoredState | None:
    """A state as it was last committed."""
    row = connection.execute(STATE, (bot, *rows.encode_state_key(key))).fetchone()
    return None if row is None else rows.decode_state(StateRow._make(row))


def dialogs(connection: sqlite3.Connection, bot: str) -> list[DialogRecord]:
    """All dialogs of a bot, in the order in which they were last changed."""
    return [rows.decode_dialog(DialogRow._make(row)) for row in connection.execute(DIALOGS, (bot,))]


def timers(connection: sqlite3.Connection, bot: str) -> list[TimerRecord]:
    """All timers of a bot, the earliest first."""
    return [rows.decode_timer(TimerRow._make(row)) for row in connection.execute(TIMERS, (bot,))]


def result(connection: sqlite3.Connection, bot: str, key: str) -> str | None:
    """What came of something that was done once."""
    row = connection.execute(RESULT, (bot, key)).fetchone()
    return None if row is None else str(row[0])


def forget_conversations(connection: sqlite3.Connection, user: UserId, pattern: str) -> int:
    """Erase a person from the conversations of every bot; how many rows held something of them.

    Args:
        pattern: what LIKE finds their id with.
    """
    changed = _erase_states(connection, user, pattern) + _erase_results(connection, user, pattern)
    for owner, *row in connection.execute(DIALOGS_ABOUT, (user, pattern, pattern)).fetchall():
        dialog = DialogRow._make(row)
        if erasure.holds_dialog(dialog, user):
            connection.execute("DELETE FROM dialog WHERE owner = ? AND id = ?", (owner, dialog.id))
            changed += 1
    for owner, *row in connection.execute(TIMERS_ABOUT, (user, pattern)).fetchall():
        timer = TimerRow._make(row)
        if erasure.holds_timer(timer, user):
            connection.execute("DELETE FROM timer WHERE owner = ? AND id = ?", (owner, timer.id))
            changed += 1
    return changed


def _erase_states(connection: sqlite3.Connection, user: UserId, pattern: str) -> int:
    changed = 0
    for owner, thread, person, name, *row in connection.execute(STATES_ABOUT, (user, pattern)).fetchall():
        key, found = StateKeyRow(thread, person, name), StateRow._make(row)
        erased = erasure.erase_state(key, found, user)
        if erased is None:
            connection.execute(DROP_STATE, (owner, *key))
        elif erased != found:
            connection.execute(ERASE_STATE, (*erased, owner, *key))
        changed += erased != found
    return changed


def _erase_results(connection: sqlite3.Connection, user: UserId, pattern: str) -> int:
    changed = 0
    for owner, key, value, caused_by in connection.execute(RESULTS_ABOUT, (user, pattern)).fetchall():
        erased = erasure.erase_result(value, caused_by, user)
        if erased != value:
            kept = "" if caused_by == user else caused_by
            connection.execute(ERASE_RESULT, (erased, kept, owner, key))
            changed += 1
    return changed
