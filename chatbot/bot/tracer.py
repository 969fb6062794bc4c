"""What goes along with a bot's work, piece by piece, for the log and for traces. It never changes the work."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

from chatbot.events import Event
from chatbot.model import MessageId, ThreadId
from chatbot.stores.base import OutboxRow

Block = AbstractContextManager[object]
"""Entered when a piece of work begins, left when it ends; an exception that passes says that it failed."""


class Tracer(Protocol):
    """Goes along; each call is quick and never raises, because it is made in the middle of the work."""

    def looked(self, thread: ThreadId, seconds: float) -> None:
        """A look has shown messages in a thread; it began so many seconds ago."""
        ...

    def attempt(self, event: Event, number: int) -> Block:
        """An event is handled and what comes of it is committed, for the so-manieth time, from 1."""
        ...

    def handler(self, name: str) -> Block:
        """A handler runs."""
        ...

    def commit(self) -> Block:
        """Something is written to the store."""
        ...

    def journalled(self, rows: Sequence[OutboxRow]) -> None:
        """The event in hand has made these wishes."""
        ...

    def action(self, row: OutboxRow) -> Block:
        """A wish is carried out."""
        ...

    def receipt(self, thread: ThreadId, message: MessageId) -> Block:
        """A read receipt is sent."""
        ...


_NOTHING: Final = nullcontext()


class Untraced:
    """Nobody goes along."""

    def looked(self, thread: ThreadId, seconds: float) -> None:
        """Let it pass."""

    def attempt(self, event: Event, number: int) -> Block:
        """Do nothing."""
        return _NOTHING

    def handler(self, name: str) -> Block:
        """Do nothing."""
        return _NOTHING

    def commit(self) -> Block:
        """Do nothing."""
        return _NOTHING

    def journalled(self, rows: Sequence[OutboxRow]) -> None:
        """Let it pass."""

    def action(self, row: OutboxRow) -> Block:
        """Do nothing."""
        return _NOTHING

    def receipt(self, thread: ThreadId, message: MessageId) -> Block:
        """Do nothing."""
        return _NOTHING
