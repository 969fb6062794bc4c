"""Queries of a store, and the changes that must read first: who holds the store, and erasing a person.

These are plans (see `sql`): they do not depend on a driver, and each runs in one transaction.
`SqlStore` has a method for each of them that only reads.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from chatbot.actions import ActionKey
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.stores import codec, erasure, rows
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
from chatbot.stores.sql import MADE, Plan, Statement, Value

FIND_BOT: Final = """
    SELECT name, resource, user_id, first_started_ms, paused_ms, is_skipping, is_retired FROM bot
    WHERE name = ? AND resource = ?"""

BOTS: Final = """
    SELECT name, resource, user_id, first_started_ms, paused_ms, is_skipping, is_retired FROM bot
    ORDER BY name, resource"""

HORIZON: Final = "SELECT horizon_ms FROM owner WHERE user_id = ?"

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

ATTEMPTS: Final = """
    SELECT thread, event_key, tries, cuts, progress, handler FROM attempt
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?)"""

DEAD_LETTERS: Final = """
    SELECT id, event, handler, error, attempts, died_ms, is_revived, caused_by FROM dead_letter
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) ORDER BY died_ms, id"""

STATE: Final = """
    SELECT value, version FROM state
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND thread = ? AND person = ? AND name = ?"""

STATES: Final = """
    SELECT thread, person, name, value, version FROM state
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND name = ? ORDER BY thread, person"""

EVERY_STATE: Final = """
    SELECT thread, person, name, value, version FROM state
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) ORDER BY name, thread, person"""

DIALOGS: Final = """
    SELECT id, thread, person, handler, event, journal, event_key, is_waiting, deadline_ms, changed_ms FROM dialog
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) ORDER BY changed_ms, id"""

TIMERS: Final = """
    SELECT id, handler, due_ms, thread, payload, caused_by FROM timer
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) ORDER BY due_ms, id"""

RESULT: Final = "SELECT value FROM result WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND key = ?"


# ── the holder ────────────────────────────────────────────────────────────────────────────────────────────────────


class LastHolder(NamedTuple):
    """How the last process that held the store ended."""

    was_killed: bool = False
    """It did not close the store."""

    was_stopping: bool = False
    """It did not close the store, but it had been asked to stop."""


MARK_STOPPING: Final = Statement("UPDATE holder SET is_stopping = 1")
"""Record that the holder was asked to stop."""

MARK_CLOSED: Final = Statement("DELETE FROM holder")
"""Record that no process holds the store. It must be the last write: a holder found at the next opening was killed."""


def mark_open(pid: int) -> Plan[LastHolder]:
    """Record the process that holds the store, and return how its last holder ended."""
    held = list((yield Statement("SELECT is_stopping FROM holder")))
    yield MARK_CLOSED
    yield Statement("INSERT INTO holder (pid) VALUES (?)", (pid,))
    return LastHolder(was_killed=bool(held), was_stopping=any(is_stopping for (is_stopping,) in held))


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────


def find_bot(name: str, resource: str) -> Plan[BotRecord | None]:
    """Return the identity of a bot's name at a resource."""
    found = _first((yield Statement(FIND_BOT, (name, resource))))
    return None if found is None else rows.decode_bot(rows.BotRow._make(found))


def bots() -> Plan[list[BotRecord]]:
    """All identities, by name."""
    found = yield Statement(BOTS)
    return [rows.decode_bot(rows.BotRow._make(row)) for row in found]


def horizon(bot: str) -> Plan[int | None]:
    """Return the time before which everything of a bot is settled."""
    found = _first((yield Statement(HORIZON, (bot,))))
    return None if found is None or found[0] is None else int(found[0])


def threads(bot: str) -> Plan[list[ThreadRecord]]:
    """Return all threads of a bot with their seen-sets, by two statements."""
    seen = rows.group_seen((yield Statement(SEEN, (bot,))))
    found = yield Statement(THREADS, (bot,))
    return [rows.decode_thread(rows.ThreadRow._make(row), seen.get(key, {})) for key, *row in found]


def pending(bot: str) -> Plan[list[OutboxRow]]:
    """All pending actions of a bot, oldest first."""
    found = yield Statement(PENDING, (bot,))
    return [_action(row) for row in found]


def row(bot: str, key: str) -> Plan[OutboxRow | None]:
    """The action of this key."""
    found = _first((yield Statement(ROW, (bot, key))))
    return None if found is None else _action(found)


def made(bot: str, messages: Collection[MessageId]) -> Plan[frozenset[MessageId]]:
    """Return those of these messages that an action created, edited or deleted. Reads all actions, so it is slow."""
    known = yield Statement(MADE, (bot, json.dumps(list(messages))))
    return frozenset(MessageId(message) for (message,) in known)


def attempts(bot: str) -> Plan[dict[ThreadId, Attempt]]:
    """Return the handlers that are recorded as running, by their threads."""
    found = yield Statement(ATTEMPTS, (bot,))
    return rows.decode_attempts(map(rows.AttemptRow._make, found))


def dead_letters(bot: str) -> Plan[list[DeadLetter]]:
    """All dead letters of a bot, oldest first."""
    found = yield Statement(DEAD_LETTERS, (bot,))
    return [rows.decode_letter(rows.LetterRow._make(row)) for row in found]


def state(bot: str, key: StateKey) -> Plan[StoredState | None]:
    """A state as it was last committed."""
    found = _first((yield Statement(STATE, (bot, *rows.encode_state_key(key)))))
    return None if found is None else rows.decode_state(rows.StateRow._make(found))


def states(bot: str, name: str) -> Plan[list[tuple[StateKey, StoredState]]]:
    """All states of this name, by thread and person."""
    found = yield Statement(STATES, (bot, name))
    return [
        (rows.decode_state_key(rows.StateKeyRow(*key)), rows.decode_state(rows.StateRow(value, version)))
        for *key, value, version in found
    ]


def every_state(bot: str) -> Plan[list[tuple[StateKey, StoredState]]]:
    """All states, by name, thread and person."""
    found = yield Statement(EVERY_STATE, (bot,))
    return [
        (rows.decode_state_key(rows.StateKeyRow(*key)), rows.decode_state(rows.StateRow(value, version)))
        for *key, value, version in found
    ]


def dialogs(bot: str) -> Plan[list[DialogRecord]]:
    """All dialogs of a bot, in the order in which they were last changed."""
    found = yield Statement(DIALOGS, (bot,))
    return [rows.decode_dialog(rows.DialogRow._make(row)) for row in found]


def timers(bot: str) -> Plan[list[TimerRecord]]:
    """All timers of a bot, the earliest first."""
    found = yield Statement(TIMERS, (bot,))
    return [rows.decode_timer(rows.TimerRow._make(row)) for row in found]


def result(bot: str, key: str) -> Plan[str | None]:
    """Return the result of a call that is made once."""
    found = _first((yield Statement(RESULT, (bot, key))))
    return None if found is None else str(found[0])


# ── what a person may ask for ─────────────────────────────────────────────────────────────────────────────────────

OWNERS: Final = "SELECT key, user_id FROM owner"

OWNED_ACTIONS_ABOUT: Final = """
    SELECT owner, position, key, thread, action, after, created_ms, status, message, reason, caused_by, after_failure
    FROM outbox
    WHERE caused_by = ? OR action LIKE ? ESCAPE '!' OR reason LIKE ? ESCAPE '!' ORDER BY position"""


def about(user: UserId) -> Plan[list[PersonalRecord]]:
    """Return everything that is stored about a person: exactly what `forget` would change or delete."""
    in_action, in_event = (_containing(text) for text in codec.stored_texts(user))
    bots = {owner: UserId(str(bot)) for owner, bot in (yield Statement(OWNERS))}
    found: list[tuple[Value, str, dict[str, Value]]] = []
    for owner, thread, person, name, *columns in (yield Statement(STATES_ABOUT, (user, in_event))):
        key, state = rows.StateKeyRow(thread, person, name), rows.StateRow._make(columns)
        if erasure.erase_state(key, state, user) != state:
            found.append((owner, "state", {**key._asdict(), **state._asdict()}))
    for owner, *columns in (yield Statement(DIALOGS_ABOUT, (user, in_event, in_event))):
        dialog = rows.DialogRow._make(columns)
        if erasure.holds_dialog(dialog, user):
            found.append((owner, "dialog", dialog._asdict()))
    for owner, *columns in (yield Statement(TIMERS_ABOUT, (user, in_event))):
        timer = rows.TimerRow._make(columns)
        if erasure.holds_timer(timer, user):
            found.append((owner, "timer", timer._asdict()))
    for owner, *columns in (yield Statement(OWNED_ACTIONS_ABOUT, (user, in_action, _containing(user)))):
        action = _action(columns)
        if erasure.erase(action, user) is not action:
            found.append((owner, "action", rows.ActionRow._make(columns[1:])._asdict()))
    keys = {key for (key,) in (yield Statement(KEYS_OF, (user,)))}
    for owner, *columns in (yield Statement(LETTERS_ABOUT, (in_event, _containing(user), user))):
        letter = rows.LetterRow._make(columns)
        if erasure.holds(rows.decode_letter(letter), user, keys):
            found.append((owner, "dead letter", letter._asdict()))
    for owner, key, value, caused_by in (yield Statement(RESULTS_ABOUT, (user, in_event))):
        if erasure.erase_result(value, caused_by, user) != value:
            found.append((owner, "result", {"key": key, "value": value, "caused_by": caused_by}))
    return [PersonalRecord(bots[owner], kind, columns) for owner, kind, columns in found]


def _first(found: Iterable[tuple[Value, ...]]) -> tuple[Value, ...] | None:
    return next(iter(found), None)


def _action(found: Iterable[Value]) -> OutboxRow:
    position, *columns = found
    return rows.decode_action_row(rows.ActionRow._make(columns), int(position or 0))


# ── erasing a person ──────────────────────────────────────────────────────────────────────────────────────────────
# LIKE selects candidates by the person's id as it is stored: ASCII-escaped in events and journals, but not in actions.
# `erasure` then decides which candidates hold data of the person: an id may be the beginning of another id.

ACTIONS_ABOUT: Final = """
    SELECT position, key, thread, action, after, created_ms, status, message, reason, caused_by, after_failure
    FROM outbox
    WHERE caused_by = ? OR action LIKE ? ESCAPE '!' OR reason LIKE ? ESCAPE '!' ORDER BY position"""

REWRITE_ACTION: Final = "UPDATE outbox SET action = ?, status = ?, reason = ?, caused_by = ? WHERE position = ?"

KEYS_OF: Final = "SELECT key FROM outbox WHERE caused_by = ?"

LETTERS_ABOUT: Final = """
    SELECT owner, id, event, handler, error, attempts, died_ms, is_revived, caused_by FROM dead_letter
    WHERE event LIKE ? ESCAPE '!' OR error LIKE ? ESCAPE '!' OR caused_by = ?
    OR event LIKE '%"kind":"action_failed"%'"""

DROP_LETTER: Final = "DELETE FROM dead_letter WHERE owner = ? AND id = ?"

STATES_ABOUT: Final = """
    SELECT owner, thread, person, name, value, version FROM state WHERE person = ? OR value LIKE ? ESCAPE '!'"""

ERASE_STATE: Final = """
    UPDATE state SET value = ?, version = ? WHERE owner = ? AND thread = ? AND person = ? AND name = ?"""

DROP_STATE: Final = "DELETE FROM state WHERE owner = ? AND thread = ? AND person = ? AND name = ?"

RESULTS_ABOUT: Final = "SELECT owner, key, value, caused_by FROM result WHERE caused_by = ? OR value LIKE ? ESCAPE '!'"

ERASE_RESULT: Final = "UPDATE result SET value = ?, caused_by = ? WHERE owner = ? AND key = ?"

DIALOGS_ABOUT: Final = """
    SELECT owner, id, thread, person, handler, event, journal, event_key, is_waiting, deadline_ms, changed_ms
    FROM dialog
    WHERE person = ? OR event LIKE ? ESCAPE '!' OR journal LIKE ? ESCAPE '!'"""

DROP_DIALOG: Final = "DELETE FROM dialog WHERE owner = ? AND id = ?"

TIMERS_ABOUT: Final = """
    SELECT owner, id, handler, due_ms, thread, payload, caused_by FROM timer
    WHERE caused_by = ? OR payload LIKE ? ESCAPE '!'"""

DROP_TIMER: Final = "DELETE FROM timer WHERE owner = ? AND id = ?"


def forget(user: UserId) -> Plan[int]:
    """Erase a person from the records of every bot, and return how many records held something of them."""
    in_action, in_event = (_containing(text) for text in codec.stored_texts(user))
    # Dead letters first: the outbox says which failed actions the person caused, and it is erased next.
    changed = yield from _drop_letters(user, in_event)
    changed += yield from _erase_actions(user, in_action)
    changed += yield from _erase_states(user, in_event)
    changed += yield from _erase_results(user, in_event)
    changed += yield from _drop_dialogs(user, in_event)
    changed += yield from _drop_timers(user, in_event)
    return changed


def _drop_letters(user: UserId, pattern: str) -> Plan[int]:
    keys = {key for (key,) in (yield Statement(KEYS_OF, (user,)))}
    dropped = 0
    for owner, *found in list((yield Statement(LETTERS_ABOUT, (pattern, _containing(user), user)))):
        letter = rows.decode_letter(rows.LetterRow._make(found))
        if erasure.holds(letter, user, keys):
            yield Statement(DROP_LETTER, (owner, letter.id))
            dropped += 1
    return dropped


def _erase_actions(user: UserId, pattern: str) -> Plan[int]:
    changed = 0
    for found in list((yield Statement(ACTIONS_ABOUT, (user, pattern, _containing(user))))):
        action = _action(found)
        erased = erasure.erase(action, user)
        if erased is not action:
            new = rows.encode_action_row(erased)
            # The row keeps its key, so that a finished action is not done again.
            yield Statement(REWRITE_ACTION, (new.action, new.status, new.reason, new.caused_by, action.position))
            changed += 1
    return changed


def _erase_states(user: UserId, pattern: str) -> Plan[int]:
    changed = 0
    for owner, thread, person, name, *found in list((yield Statement(STATES_ABOUT, (user, pattern)))):
        key, state = rows.StateKeyRow(thread, person, name), rows.StateRow._make(found)
        erased = erasure.erase_state(key, state, user)
        if erased is None:
            yield Statement(DROP_STATE, (owner, *key))
        elif erased != state:
            yield Statement(ERASE_STATE, (*erased, owner, *key))
        changed += erased != state
    return changed


def _erase_results(user: UserId, pattern: str) -> Plan[int]:
    changed = 0
    for owner, key, value, caused_by in list((yield Statement(RESULTS_ABOUT, (user, pattern)))):
        erased = erasure.erase_result(value, caused_by, user)
        if erased != value:
            yield Statement(ERASE_RESULT, (erased, "" if caused_by == user else caused_by, owner, key))
            changed += 1
    return changed


def _drop_dialogs(user: UserId, pattern: str) -> Plan[int]:
    dropped = 0
    for owner, *found in list((yield Statement(DIALOGS_ABOUT, (user, pattern, pattern)))):
        dialog = rows.DialogRow._make(found)
        if erasure.holds_dialog(dialog, user):
            yield Statement(DROP_DIALOG, (owner, dialog.id))
            dropped += 1
    return dropped


def _drop_timers(user: UserId, pattern: str) -> Plan[int]:
    dropped = 0
    for owner, *found in list((yield Statement(TIMERS_ABOUT, (user, pattern)))):
        timer = rows.TimerRow._make(found)
        if erasure.holds_timer(timer, user):
            yield Statement(DROP_TIMER, (owner, timer.id))
            dropped += 1
    return dropped


def _containing(text: str) -> str:
    """Return the LIKE pattern for texts that contain this one."""
    return "%" + text.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%"


T = TypeVar("T")


class SqlStore(ABC):
    """The reading half of a store that keeps its records in SQL tables, whatever its database and driver."""

    _last: LastHolder
    """Who held the store before; known once it is open."""

    @property
    def was_killed(self) -> bool:
        """See `Store.was_killed`; also true for a copy of a file that was in use."""
        return self._last.was_killed

    @property
    def was_stopping(self) -> bool:
        """See `Store.was_stopping`."""
        return self._last.was_stopping

    @abstractmethod
    async def _read(self, plan: Plan[T], *, is_single: bool = True) -> T:
        """Run a plan that only reads, within one transaction.

        Args:
            plan: the plan.
            is_single: it has one statement, which sees one state of the database even without a transaction.

        Raises:
            StateError: the store is not open.
            StoreError: the database cannot be read.
        """

    async def find_bot(self, name: str, resource: str) -> BotRecord | None:
        """See `Store.find_bot`."""
        return await self._read(find_bot(name, resource))

    async def bots(self) -> Sequence[BotRecord]:
        """See `Store.bots`."""
        return await self._read(bots())

    async def horizon(self, bot: UserId) -> int | None:
        """See `Store.horizon`."""
        return await self._read(horizon(bot))

    async def threads(self, bot: UserId) -> Sequence[ThreadRecord]:
        """See `Store.threads`."""
        return await self._read(threads(bot), is_single=False)

    async def pending(self, bot: UserId) -> Sequence[OutboxRow]:
        """See `Store.pending`."""
        return await self._read(pending(bot))

    async def row(self, bot: UserId, key: ActionKey) -> OutboxRow | None:
        """See `Store.row`."""
        return await self._read(row(bot, key))

    async def made(self, bot: UserId, messages: Collection[MessageId]) -> frozenset[MessageId]:
        """See `Store.made`."""
        return await self._read(made(bot, messages))

    async def attempts(self, bot: UserId) -> Mapping[ThreadId, Attempt]:
        """See `Store.attempts`."""
        return await self._read(attempts(bot))

    async def dead_letters(self, bot: UserId) -> Sequence[DeadLetter]:
        """See `Store.dead_letters`."""
        return await self._read(dead_letters(bot))

    async def state(self, bot: UserId, key: StateKey) -> StoredState | None:
        """See `Store.state`."""
        return await self._read(state(bot, key))

    async def states(self, bot: UserId, name: str) -> Sequence[tuple[StateKey, StoredState]]:
        """See `Store.states`."""
        return await self._read(states(bot, name))

    async def every_state(self, bot: UserId) -> Sequence[tuple[StateKey, StoredState]]:
        """See `Store.every_state`."""
        return await self._read(every_state(bot))

    async def about(self, user: UserId) -> Sequence[PersonalRecord]:
        """See `Store.about`."""
        return await self._read(about(UserId(codec.text(user, "user"))), is_single=False)

    async def dialogs(self, bot: UserId) -> Sequence[DialogRecord]:
        """See `Store.dialogs`."""
        return await self._read(dialogs(bot))

    async def timers(self, bot: UserId) -> Sequence[TimerRecord]:
        """See `Store.timers`."""
        return await self._read(timers(bot))

    async def result(self, bot: UserId, key: str) -> str | None:
        """See `Store.result`."""
        return await self._read(result(bot, key))
