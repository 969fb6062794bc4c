"""A bot's memory as it is open to the handlers of one event: what they read, and what they leave to be committed.

Nothing is written here. What was left goes into the event's own commit, or nowhere if a handler fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from chatbot.conversation.kind import Kind, person_of
from chatbot.conversation.state import Remembered
from chatbot.errors import StateError
from chatbot.events import Event, ThreadEvent
from chatbot.model import UserId
from chatbot.stores.base import Write
from chatbot.stores.conversation import SaveState, StateKey, StoredState


class Reads(Protocol):
    """What is read of a store."""

    async def state(self, bot: UserId, key: StateKey) -> StoredState | None:
        """A state as it was last committed."""
        ...


@dataclass(slots=True)
class _Opened:
    """A state that a handler has asked for, and as what it was found."""

    kind: Kind
    handle: Remembered[Any]
    found: StoredState | None


class Memory:
    """What the handlers of one event remember.

    Args:
        event: which.
        store: what is remembered; None for handlers that are run without a bot.
        now_ms: the time, epoch ms.
    """

    def __init__(self, event: Event, store: Reads | None = None, *, now_ms: int = 0) -> None:
        self._event = event
        self._store = store
        self._now_ms = now_ms
        self._opened: dict[StateKey, _Opened] = {}

    async def state(self, kind: Kind) -> Remembered[Any]:
        """The state that a handler asks for; all handlers of one event share it.

        Raises:
            StateError: the event is nobody's doing, or what is stored cannot be read.
        """
        if self._store is None:
            msg = f"there is no memory here to hold a {kind.handle.__name__}: use chat() or EventStream"
            raise StateError(msg)
        key = self._key(kind)
        if key not in self._opened:
            found = await self._store.state(self._event.bot, key)
            value = kind.load(None if found is None else found.value)
            self._opened[key] = _Opened(kind, kind.handle(value), found)
        return self._opened[key].handle

    def writes(self) -> list[Write]:
        """What is to be committed.

        Raises:
            CannotStore: a handler left a value that cannot be stored; names the field.
        """
        return [write for key, opened in self._opened.items() if (write := self._save(key, opened)) is not None]

    def _save(self, key: StateKey, opened: _Opened) -> SaveState | None:
        value, found = opened.kind.dump(opened.handle.peek()), opened.found
        before = opened.kind.dump(opened.kind.load(None)) if found is None else found.value
        if value == before:
            return None
        version = max(self._now_ms, found.version + 1 if found else 1)
        return SaveState(key, value, found.version if found else None, version)

    def _key(self, kind: Kind) -> StateKey:
        event, user = self._event, None
        thread = event.thread if kind.handle.per_thread and isinstance(event, ThreadEvent) else None
        if kind.handle.per_user:
            user = person_of(event)
            if user is None:
                msg = f"this {type(event).__name__} names nobody whose {kind.handle.__name__} it could be; use State"
                raise StateError(msg)
        return StateKey(kind.name, thread, user)
