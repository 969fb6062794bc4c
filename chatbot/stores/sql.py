"""SQL as data: statements, and plans that read, decide and write within one transaction.

Statements and plans know no driver. A plan yields statements and receives the rows of each, so that the same plan runs
over a blocking connection (SQLite, by `run` and `execute` below) and over an asynchronous one. Placeholders are `?`,
numbered by their order. The texts are SQLite's; `postgres_dialect` translates them. What differs stands there, in this
file, in `schema` (the tables) or in the module that opens the connection (PRAGMAs):

* `JSON_LIST` and `NEXT_POSITION` have another text in PostgreSQL.
* `LIKE ... ESCAPE '!'` ignores the case of ASCII letters in SQLite only. It only selects candidates for erasure; the
  plans compare again, exactly.
* `outbox.position` and the `key` columns are SQLite's rowids: the database numbers them. PostgreSQL: identity columns.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

from chatbot.errors import ChatbotError

if TYPE_CHECKING:  # a bot that is only named needs no database
    import sqlite3

T = TypeVar("T")

Value: TypeAlias = str | int | None

JSON_LIST: Final = "SELECT value FROM json_each(?)"
"""The values of a JSON list."""

NEXT_POSITION: Final = "(SELECT MAX(position) + 1 FROM outbox)"
"""A position behind all others. In PostgreSQL, it would collide with the one that the identity column gives next."""

MADE: Final = f"""
    SELECT DISTINCT message FROM outbox
    WHERE owner = (SELECT key FROM owner WHERE user_id = ?) AND message IN ({JSON_LIST})"""  # noqa: S608
"""The messages of a JSON list that a bot's actions made."""


class Statement(NamedTuple):
    """One statement.

    Args:
        sql: the text.
        values: the values of its placeholders.
        unless: the error to raise if it changes no row; None where that is fine.
    """

    sql: str
    values: tuple[Value, ...] = ()
    unless: ChatbotError | None = None


Plan: TypeAlias = Generator[Statement, Iterable[Any], T]
"""Statements in turn, each chosen by the rows of those before; returns a value. A plan that writes must first read all
rows of the statement before, as a driver may still be fetching them."""


def run(connection: sqlite3.Connection, plan: Plan[T]) -> T:
    """Run a plan, and return what it returns. The caller owns the transaction."""
    try:
        statement = next(plan)
        while True:
            statement = plan.send(connection.execute(statement.sql, statement.values))
    except StopIteration as end:
        result: T = end.value
        return result


def execute(connection: sqlite3.Connection, statements: Sequence[Statement]) -> None:
    """Execute statements in their order. The caller owns the transaction.

    Raises:
        ChatbotError: the `unless` of a statement that changed nothing; the caller undoes the earlier ones.
    """
    for sql, values, unless in statements:
        cursor = connection.execute(sql, values)
        if unless is not None and cursor.rowcount == 0:
            raise unless
