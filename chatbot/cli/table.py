"""A table for people: columns below each other, whatever is in them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from chatbot.config.place import cells, printable

WIDEST: Final = 90
"""Columns of the terminal that one cell may take; what is longer ends in an ellipsis."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table.

    Args:
        head: the titles.
        rows: one text a column; control characters are escaped.
    """
    lines = [tuple(head), *(tuple(shortened(cell, WIDEST) for cell in row) for row in rows)]
    widths = [max(cells(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        filled = (text + " " * (width - cells(text)) for text, width in zip(line, widths, strict=True))
        yield "  ".join(filled).rstrip()


def shortened(text: str, widest: int) -> str:
    """The text on one line with its control characters escaped; what is wider ends in an ellipsis.

    Args:
        widest: columns of the terminal.
    """
    shown = printable(text)
    if cells(shown) <= widest:
        return shown
    end = 0
    while cells(shown[: end + 1]) < widest:
        end += 1
    return shown[:end] + "…"
