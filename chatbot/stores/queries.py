"""What is read from a SQLite store, and the one change that must read first: forgetting a person.

Functions of an open connection; they block, and run in worker threads, each in a transaction of its own.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from chatbot.model import UserId
from chatbot.stores import codec, erasure, rows
from chatbot.stores.base import BotRecord, OutboxRow, ThreadRecord

FIND_BOT: Final = """
    SELECT name, resource, user_id, first_started_ms FROM bot WHERE name = ? AND resource = ?"""

THREADS: Final = """
    SELECT key, id, floor, base, is_left, receipt_due, receipt_sent FROM thread
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) ORDER BY key"""

SEEN: Final = """
    SELECT seen.thread, seen.message, seen.version FROM thread JOIN seen ON seen.thread = thread.key
    WHERE thread.owner = (SELECT key FROM owner WHERE user_id = ?)"""

PENDING: Final = """
    SELECT position, key, thread, action, after, created_ms, status, message, reason, caused_by FROM outbox
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND status = 'pending' ORDER BY position"""

ROW: Final = """
    SELECT position, key, thread, action, after, created_ms, status, message, reason, caused_by FROM outbox
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND key = ?"""

ABOUT: Final = """
    SELECT position, key, thread, action, after, created_ms, status, message, reason, caused_by FROM outbox
    WHERE caused_by = ? OR action LIKE ? ESCAPE '!' OR reason LIKE ? ESCAPE '!' ORDER BY position"""

REWRITE: Final = """
    UPDATE outbox SET action = ?, status = ?, reason = ?, caused_by = ? WHERE position = ?"""


def find_bot(connection: sqlite3.Connection, name: str, resource: str) -> BotRecord | None:
    """The identity remembered for this name at this resource."""
    row = connection.execute(FIND_BOT, (name, resource)).fetchone()
    return None if row is None else rows.decode_bot(rows.BotRow._make(row))


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


def forget(connection: sqlite3.Connection, user: UserId) -> int:
    """Erase a person from the wishes of every bot; how many rows held something of them."""
    in_action = f"%{_literally(codec.as_stored(user))}%"
    in_reason = f"%{_literally(user)}%"
    changed = 0
    for found in connection.execute(ABOUT, (user, in_action, in_reason)).fetchall():
        wish = _wish(found)
        erased = erasure.erase(wish, user)
        if erased is not wish:
            new = rows.encode_wish(erased)
            connection.execute(REWRITE, (new.action, new.status, new.reason, new.caused_by, wish.position))
            changed += 1
    return changed


def _wish(row: tuple[int, ...]) -> OutboxRow:
    position, *columns = row
    return rows.decode_wish(rows.WishRow._make(columns), position)


def _literally(text: str) -> str:
    """A text as the pattern of LIKE that only it fits."""
    return text.replace("!", "!!").replace("%", "!%").replace("_", "!_")
