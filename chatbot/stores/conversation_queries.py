"""What is read of conversations from a SQLite store, and forgetting a person in them; see `queries`."""

from __future__ import annotations

import sqlite3
from typing import Final

from chatbot.model import UserId
from chatbot.stores import conversation_rows, erasure
from chatbot.stores.conversation import DialogRecord, StateKey, StoredState, TimerRecord
from chatbot.stores.conversation_rows import DialogRow, StateKeyRow, StateRow, TimerRow

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
    row = connection.execute(STATE, (bot, *conversation_rows.encode_state_key(key))).fetchone()
    return None if row is None else conversation_rows.decode_state(StateRow._make(row))


def dialogs(connection: sqlite3.Connection, bot: str) -> list[DialogRecord]:
    """All dialogs of a bot, in the order in which they were last changed."""
    return [conversation_rows.decode_dialog(DialogRow._make(row)) for row in connection.execute(DIALOGS, (bot,))]


def timers(connection: sqlite3.Connection, bot: str) -> list[TimerRecord]:
    """All timers of a bot, the earliest first."""
    return [conversation_rows.decode_timer(TimerRow._make(row)) for row in connection.execute(TIMERS, (bot,))]


def result(connection: sqlite3.Connection, bot: str, key: str) -> str | None:
    """What came of something that was done once."""
    row = connection.execute(RESULT, (bot, key)).fetchone()
    return None if row is None else str(row[0])


def forget(connection: sqlite3.Connection, user: UserId, pattern: str) -> int:
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
