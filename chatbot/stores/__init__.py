"""Where a bot's records live: the protocol (`base`), its stores (`memory`, `sqlite`, `postgres`), and what they share.

All stores run the statements of `statements` and the plans of `queries` on the tables of `schema`. The stores are
loaded when they are first named, so that bots and tests pay only for the one they use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatbot.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from chatbot.stores.memory import MemoryStore as MemoryStore
    from chatbot.stores.postgres import PostgresStore as PostgresStore
    from chatbot.stores.sqlite import SqliteStore as SqliteStore
    from chatbot.stores.url import open_between_runs as open_between_runs
    from chatbot.stores.url import open_store as open_store

__all__ = ["MemoryStore", "PostgresStore", "SqliteStore", "open_between_runs", "open_store"]

if not TYPE_CHECKING:  # type checkers know the names from above, and flag those that do not exist
    __getattr__ = lazy_exports(
        __name__,
        {
            "MemoryStore": "chatbot.stores.memory",
            "PostgresStore": "chatbot.stores.postgres",
            "SqliteStore": "chatbot.stores.sqlite",
            "open_store": "chatbot.stores.url",
            "open_between_runs": "chatbot.stores.url",
        },
    )
