"""One statement of SQL: a text, the values of its question marks, and whether it may change nothing."""

from __future__ import annotations

from typing import NamedTuple

from chatbot.errors import ChatbotError

Value = str | int | None


class Statement(NamedTuple):
    """One statement.

    Args:
        unless: the error of its changing nothing; None where that is fine.
    """

    sql: str
    values: tuple[Value, ...]
    unless: ChatbotError | None = None
