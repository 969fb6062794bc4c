"""Tools to test bots: the real pipeline against the emulator in this process, on virtual time.

`chat` runs whole bots with people who talk to them; `EventStream` calls the handlers alone. Names are loaded on first
use, because pytest imports this package whenever it starts, for the plugin.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from chatbot.dispatch.access import Rate
    from chatbot.stores.memory import MemoryStore
    from chatbot.stores.records import DeadLetter
    from chatbot.stores.sqlite import SqliteStore
    from chatbot.testing.event_stream import Author, EventStream, Handled, context
    from chatbot.testing.harness import chat
    from chatbot.testing.process import Failure
    from chatbot.testing.room import Person, Room
    from chatbot.testing.virtual_time import Stuck, VirtualClock

_HOMES: Final = {
    "Author": "event_stream",
    "DeadLetter": "chatbot.stores.records",
    "EventStream": "event_stream",
    "Failure": "process",
    "Handled": "event_stream",
    "MemoryStore": "chatbot.stores.memory",
    "Person": "room",
    "Rate": "chatbot.dispatch.access",
    "Room": "room",
    "SqliteStore": "chatbot.stores.sqlite",
    "Stuck": "virtual_time",
    "VirtualClock": "virtual_time",
    "chat": "harness",
    "context": "event_stream",
}

__all__ = [
    "Author",
    "DeadLetter",
    "EventStream",
    "Failure",
    "Handled",
    "MemoryStore",
    "Person",
    "Rate",
    "Room",
    "SqliteStore",
    "Stuck",
    "VirtualClock",
    "chat",
    "context",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    home = _HOMES[name]
    return getattr(import_module(home if "." in home else f"{__name__}.{home}"), name)
