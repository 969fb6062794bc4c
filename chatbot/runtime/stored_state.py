"""List, show and export what bots have stored, and end dialogs and timers, for `chatbot state`.

Lists contain no values and no texts of people; only the details of one entry and an export do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import structlog
from msgspec import Struct

from chatbot.bot import Bot
from chatbot.cluster.notes import DialogsDropped, TimersDropped, encode
from chatbot.cluster.requests import Requests
from chatbot.errors import StateError, UnknownName
from chatbot.model import UserId
from chatbot.runtime import replicas
from chatbot.runtime.observe.story import StoryStore
from chatbot.stores.base import Store
from chatbot.stores.codec import EVENTS
from chatbot.stores.records import BotRecord, DialogRecord, StateKey, StoredState, TimerRecord
from chatbot.stores.writes import DropDialog, DropTimer

MOST_LISTED: Final = 1000
_JSON_COLUMNS: Final = frozenset({"value", "event", "journal", "payload", "action"})


class _Entry(Struct, frozen=True):
    """One stored state, dialog or timer, and the bot that stores it."""

    owner: BotRecord
    kind: str
    stored: tuple[StateKey, StoredState] | DialogRecord | TimerRecord

    @property
    def id(self) -> str:
        """A short id to type; it stays the same as long as the entry exists."""
        match self.stored:
            case (key, _):
                parts = [key.name, key.thread or "", key.user or ""]
            case record:
                parts = [record.id]
        text = "\n".join((self.kind, self.owner.user, *parts))
        return hashlib.blake2b(text.encode(errors="replace"), digest_size=5).hexdigest()

    def summary(self) -> dict[str, Any]:
        """Return the entry without its values."""
        facts: dict[str, Any] = {"id": self.id, "bot": self.owner.name, "kind": self.kind}
        match self.stored:
            case DialogRecord() as dialog:
                facts |= {"name": dialog.handler, "thread": dialog.thread, "user": dialog.user}
                facts |= {"changed_ms": dialog.changed_ms, "deadline_ms": dialog.deadline_ms}
            case TimerRecord() as timer:
                facts |= {"name": timer.handler, "thread": timer.thread, "user": timer.caused_by}
                facts |= {"due_ms": timer.due_ms}
            case (key, state):
                facts |= {"name": key.name, "thread": key.thread, "user": key.user}
                facts |= {"version": state.version, "characters": len(state.value)}
        return facts

    def details(self) -> dict[str, Any]:
        """Return the entry with its values, which may quote people."""
        facts = {**self.summary(), "bot_user": self.owner.user, "resource": self.owner.resource}
        match self.stored:
            case DialogRecord() as dialog:
                return {
                    **facts,
                    "is_waiting": dialog.is_waiting,
                    "event": EVENTS.encode(dialog.event, "event"),
                    "journal": _parsed(dialog.journal),
                }
            case TimerRecord() as timer:
                return {**facts, "payload": _parsed(timer.payload)}
            case (_, state):
                return {**facts, "value": _parsed(state.value)}


class StateAdmin:
    """Manages the states, dialogs and timers in a store, and in the bots that run on it.

    Args:
        store: opened by the caller.
        running: the bots that run on it, by user.
        requests: asks the other processes that share the store; None if there are none.
    """

    def __init__(self, store: Store, running: Mapping[UserId, Bot], requests: Requests | None = None) -> None:
        self._store = store
        self._requests = requests
        self._running = running
        self._log = structlog.get_logger()

    async def list(self, *, bot: str | None, user: str | None, thread: str | None) -> Mapping[str, Any]:
        """List entries without their values.

        Args:
            bot: only those of the bot with this name.
            user: only those of this person.
            thread: only those of this thread.

        Raises:
            UnknownName: the store does not know the bot.
        """
        entries = [entry.summary() for entry in await self._entries(bot)]
        found = [
            entry
            for entry in entries
            if (user is None or entry["user"] == user) and (thread is None or entry["thread"] == thread)
        ]
        return {"entries": found[:MOST_LISTED], "left_out": max(0, len(found) - MOST_LISTED)}

    async def show(self, id: str) -> Mapping[str, Any]:
        """Return one entry with its values.

        Raises:
            UnknownName: there is none of this id.
        """
        return {"entry": (await self._find(id)).details()}

    async def export(self, user: str) -> Mapping[str, Any]:
        """Return everything that is stored about a person: what `chatbot state forget` would erase."""
        names = {record.user: record.name for record in await self._store.bots()}
        records = await self._store.about(UserId(user))
        shown = [
            {
                "bot": names.get(record.bot, record.bot),
                "kind": record.kind,
                **{name: _column(name, value) for name, value in record.columns.items()},
            }
            for record in records
        ]
        self._log.info("person.exported", records=len(shown))
        return {"user": user, "records": shown}

    async def results(self, users: Iterable[str]) -> Mapping[str, Any]:
        """Return what calls of `once` and `talk.run` have returned, for a replay.

        Args:
            users: the people for whom they were made.

        Returns:
            Lists of a bot's user, a key or the id of a dialog, and the stored text. Of dialogs that have ended, only
            those of which the playground has kept the stories.
        """
        results: dict[tuple[UserId, str], str] = {}
        journals: dict[tuple[UserId, str], str] = {}
        for bot in self._running.values():
            if isinstance(bot.context.store, StoryStore):
                kept = bot.context.store.kept()
                results.update(kept[0])
                journals.update(kept[1])
        for user in users:
            for record in await self._store.about(UserId(user)):
                columns = record.columns
                if record.kind == "result":
                    results[record.bot, str(columns["key"])] = str(columns["value"])
                elif record.kind == "dialog":
                    journals[record.bot, str(columns["id"])] = str(columns["journal"])
        return {
            "results": [[*key, text] for key, text in results.items()],
            "journals": [[*key, text] for key, text in journals.items()],
        }

    async def end_dialog(self, id: str) -> Mapping[str, Any]:
        """End a dialog without a reply: the person's next message is handled as if nothing had been asked.

        Raises:
            UnknownName: there is no dialog of this id.
            StoreError: it could not be deleted.
        """
        entry = await self._find(id, "dialog")
        assert isinstance(entry.stored, DialogRecord)
        await self._drop(entry, DropDialog(entry.stored.id))
        self._log.info("dialog.ended_by_operator", bot=entry.owner.name, handler=entry.stored.handler)
        return {"entry": entry.summary()}

    async def cancel_timer(self, id: str) -> Mapping[str, Any]:
        """Delete a timer before it is due.

        Raises:
            UnknownName: there is no timer of this id.
            StateError: it is the next run of a schedule, which the code asks for.
            StoreError: it could not be deleted.
        """
        entry = await self._find(id, "timer")
        assert isinstance(entry.stored, TimerRecord)
        if entry.stored.thread is None:
            message = f"{id} is the next run of the schedule {entry.stored.handler}: remove the schedule from the code"
            raise StateError(message)
        await self._drop(entry, DropTimer(entry.stored.id))
        self._log.info("timer.canceled_by_operator", bot=entry.owner.name, handler=entry.stored.handler)
        return {"entry": entry.summary()}

    async def _drop(self, entry: _Entry, write: DropDialog | DropTimer) -> None:
        user, bot = entry.owner.user, self._running.get(entry.owner.user)
        note = (DialogsDropped if isinstance(write, DropDialog) else TimersDropped)(user, (write.id,))
        if bot is None:
            await self._store.commit(user, [write], notes=encode(note))
            return
        await bot.context.commit([write])
        bot.context.ownership.tell(note)
        # A handler that runs now began before this, and its commit may store the entry again.
        thread = getattr(entry.stored, "thread", None)
        if thread is None or bot.context.owns(thread):
            await bot.wait_for_turns(timeout=replicas.TURN_SECONDS)
        else:
            await replicas.ask_others(self._requests, replicas.WAIT, user, seconds=replicas.ANSWER_SECONDS)
        await bot.context.commit([write])
        bot.context.ownership.tell(note)

    async def _entries(self, name: str | None) -> Sequence[_Entry]:
        owners = await self._store.bots()
        if name is not None and name not in {owner.name for owner in owners}:
            known = ", ".join(sorted({owner.name for owner in owners})) or "none"
            message = f"the store knows no bot {name!r}; it knows: {known}"
            raise UnknownName(message)
        entries: list[_Entry] = []
        for owner in owners:
            if name in (None, owner.name):
                entries += [_Entry(owner, "state", state) for state in await self._store.every_state(owner.user)]
                entries += [_Entry(owner, "dialog", dialog) for dialog in await self._store.dialogs(owner.user)]
                entries += [_Entry(owner, "timer", timer) for timer in await self._store.timers(owner.user)]
        return entries

    async def _find(self, id: str, kind: str | None = None) -> _Entry:
        for entry in await self._entries(None):
            if entry.id == id and kind in (None, entry.kind):
                return entry
        what = kind or "state, dialog or timer"
        message = f"there is no {what} {id!r}; `chatbot state list` shows all"
        raise UnknownName(message)


def _column(name: str, value: object) -> object:
    return _parsed(value) if name in _JSON_COLUMNS and isinstance(value, str) else value


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:  # erased, or stored by a bot in its own form
        return text
