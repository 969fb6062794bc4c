from chatbot.cli.output import MAX_CELL_WIDTH, have_all_done, others, table
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


def test_of_other_processes_those_that_have_done_it_share_a_line_and_each_other_one_has_its_own() -> None:
    there = {"name": "x", "host": "one", "version": "1", "pid": 7}
    outcomes = ("done", "refused", "busy", "unknown", None, "done")
    answer = {"replicas": [{**there, "pid": pid, "outcome": outcome} for pid, outcome in enumerate(outcomes)]}

    assert list(others(answer, "Reloaded, too")) == [
        "Reloaded, too: one, pid 0; one, pid 5",
        "one, pid 1 has refused: see its log",
        "one, pid 2 has a handler that still runs",
        "one, pid 3 does not know the request: run all in the same version",
        "one, pid 4 has not answered: it may be busy, disconnected, or just ended",
    ]
    assert not have_all_done(answer)
    assert have_all_done({"replicas": [{**there, "outcome": "done"}]})
    assert have_all_done({})
