"""Every kind of store, for the tests of what all of them promise: `reopen` is what a restart is."""

import pytest

from chatbot.stores.memory import MemoryStore
from chatbot.stores.sqlite import SqliteStore
from tests.contracts.records import Open


@pytest.fixture(params=["memory", "sqlite"])
def reopen(request, tmp_path) -> Open:
    """Opens the one store of the test, whenever it is called."""
    memory = MemoryStore()
    return {"memory": lambda: memory, "sqlite": lambda: SqliteStore(tmp_path / "bot.db")}[request.param]
