"""The tables of conversations in memory, and what each write does to them; see `tables`."""

from __future__ import annotations

from typing import Any, Protocol

from chatbot.errors import StoreConflict
from chatbot.model import UserId
from chatbot.stores import codec, conversation_rows, erasure
from chatbot.stores.conversation import (
    ConversationWrite,
    DropDialog,
    DropTimer,
    SaveDialog,
    SaveResult,
    SaveState,
    SetTimer,
    StateKey,
)
from chatbot.stores.conversation_rows import DialogRow, ResultRow, StateKeyRow, StateRow, TimerRow

Key = tuple[str, str]


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
                row = conversation_rows.encode_dialog(record)
                self._undo.put(self.dialogs, (bot, row.id), row)
            case DropDialog(id):
                self._undo.drop(self.dialogs, (bot, codec.text(id, "DropDialog.id")))
            case SetTimer(timer):
                due = conversation_rows.encode_timer(timer)
                self._undo.put(self.timers, (bot, due.id), due)
            case DropTimer(id):
                self._undo.drop(self.timers, (bot, codec.text(id, "DropTimer.id")))
            case SaveResult():
                result = conversation_rows.encode_result(write)
                if (bot, result.key) not in self.results:
                    self._undo.put(self.results, (bot, result.key), result)

    def state(self, bot: UserId, key: StateKey) -> StateRow | None:
        """The row of a state."""
        return self.states.get((bot, conversation_rows.encode_state_key(key)))

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
        at = (bot, conversation_rows.encode_state_key(write.key))
        row = conversation_rows.encode_state(write)
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
