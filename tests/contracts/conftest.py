"""Every kind of store, for the tests of what all of them promise: `reopen` is what a restart is."""

import pytest

from chatbot.stores.memory import MemoryStore
from chatbot.stores.postgres import PostgresStore
from chatbot.stores.sqlite import SqliteStore
from tests.contracts.records import Open


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def reopen(request, tmp_path) -> Open:
    """Opens the one store of the test, whenever it is called."""
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        return lambda: PostgresStore(url)
    memory = MemoryStore()
    return {"memory": lambda: memory, "sqlite": lambda: SqliteStore(tmp_path / "bot.db")}[request.param]
