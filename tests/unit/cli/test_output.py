from chatbot.cli.output import MAX_CELL_WIDTH, table
from chatbot.config.source_location import cells


def test_columns_are_aligned_for_every_content() -> None:
    lines = list(table(("ID", "NAME"), [("1", "wide 日本"), ("22", "x")]))

    assert lines == ["ID  NAME", "1   wide 日本", "22  x"]


def test_nothing_in_a_cell_can_move_the_cursor_or_begin_a_line() -> None:
    lines = list(table(("A", "B"), [("\x1b[2J\r\nroot#", "\u202eevil")]))

    assert lines[1] == r"\x1b[2J\r\nroot#  \u202eevil"


def test_a_long_cell_ends_in_an_ellipsis() -> None:
    for long in ("x" * 1000, "日" * 1000, "é\u0301" * 1000):
        (cell,) = list(table(("A",), [(long,)]))[1:]

        assert cell.endswith("…")
        assert MAX_CELL_WIDTH - 1 <= cells(cell) <= MAX_CELL_WIDTH
