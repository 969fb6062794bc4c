"""What is read from a SQLite store, and the changes that must read first: holding it, and forgetting a person.

Functions of an open connection; they block, and run in worker threads.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from typing import Final, NamedTuple

from chatbot.model import MessageId, ThreadId, UserId
from chatbot.stores import codec, conversation_queries, erasure, rows
from chatbot.stores.base import Attempt, BotRecord, DeadLetter, OutboxRow, ThreadRecord

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
    return changed + conversation_queries.forget(connection, user, _with(in_event))


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
    return rows.decode_wish(rows.WishRow._make(columns), position)


def _with(text: str) -> str:
    """The pattern of LIKE that fits whatever has this text in it."""
    return "%" + text.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%"
