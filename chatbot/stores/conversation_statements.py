"""Writes of conversations as SQL; see `statements`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from chatbot.stores import codec
from chatbot.stores.conversation import (
    ConversationWrite,
    DropDialog,
    DropTimer,
    SaveDialog,
    SaveResult,
    SaveState,
    SetTimer,
)
from chatbot.stores.conversation_rows import (
    encode_dialog,
    encode_result,
    encode_state,
    encode_state_key,
    encode_timer,
)
from chatbot.stores.conversation_tables import conflict
from chatbot.stores.statement import Statement

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

PRUNE: Final = (
    "DELETE FROM result WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND created_ms < ?",
    """
    DELETE FROM dialog
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND changed_ms < ? AND is_waiting = 0""",
)
"""What else is pruned; each takes the bot and the time."""


def conversation_statements(bot: str, write: ConversationWrite) -> Iterator[Statement]:
    """What makes this write.

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
    """What else is pruned."""
    yield from (Statement(sql, (bot, before_ms)) for sql in PRUNE)


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
