import json
import math
import socket
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path

import pytest

from tests.benchmarks import documents, latency, registry, results
from tests.benchmarks.delaying import delayed
from tests.benchmarks.drawing import draw
from tests.benchmarks.frame import ChildFailed, Frame, Plot, Report, Row, child, ratio


@pytest.mark.benchmark
@pytest.mark.parametrize("name", registry.found())
def test_a_benchmark_runs_and_finds_figures(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks", name, "--quick", "--out", str(tmp_path)]
    subprocess.run(command, capture_output=True, text=True, timeout=250, check=True)

    rows = json.loads((tmp_path / "results.json").read_text())[name]["rows"]

    measured = [row["value"] for row in rows if row["value"] is not None]
    assert measured
    assert all(math.isfinite(value) and value >= 0 for value in measured), rows
    assert all(row["note"] for row in rows if row["value"] is None), "what was not measured says why"


def test_contenders_take_turns_in_every_round(tmp_path: Path) -> None:
    calls: list[str] = []
    frame = Frame(quick=False, workdir=tmp_path)

    def call(name: str) -> int:
        calls.append(name)
        return len(calls)

    found = frame.interleaved({name: partial(call, name) for name in "abc"}, rounds=4)

    assert [sorted(calls[start : start + 3]) for start in range(0, 12, 3)] == [["a", "b", "c"]] * 4
    assert sorted(number for numbers in found.values() for number in numbers) == list(range(1, 13))


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    assert ratio([1, 2, 30], [2, 2, 10]) == 1


def test_a_child_gives_its_last_line_or_says_what_went_wrong() -> None:
    assert child("-c", "print('noise'); print('[1, 2]')") == [1, 2]
    with pytest.raises(ChildFailed, match="no luck"):
        child("-c", "raise SystemExit('no luck')")
    with pytest.raises(ChildFailed, match=r"took more than"):
        child("-c", "while True: pass", seconds=0.5)


def test_results_of_benchmarks_that_were_not_run_stay(tmp_path: Path) -> None:
    plot = Plot("growth", "Growth", "threads", "µs", {"ours": [(10, 1.5), (10_000, 1.6)]}, is_x_log=True)
    results.write(tmp_path, {"first": ("First", Report([Row("a|b", 12_345.6, "µs", "SDK", None, note="not there")]))})
    results.write(tmp_path, {"second": ("Second", Report([Row("c", 0.5, "s", target="≤ 1")], [plot]))})

    page = (tmp_path / "results.md").read_text()

    assert "| a/b | 12,346 µs | SDK | – |  |  | not there |" in page
    assert "| c | 0.50 s |  |  |  | ≤ 1 |  |" in page
    assert "![Growth](growth.svg)" in page
    ElementTree.parse(tmp_path / "growth.svg")


def test_a_plot_draws_every_line_inside_its_frame() -> None:
    lines = {"a <b>": [(1, 0.0), (5, 9.9)], "b": [(1, 3.0), (5, 4.0)]}

    picture = ElementTree.fromstring(draw(Plot("p", "A & B", "x", "y", lines)))

    space = "{http://www.w3.org/2000/svg}"
    dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in picture.iter(f"{space}circle")]
    assert len(dots) == 4
    assert all(70 <= x <= 700 and 40 <= y <= 340 for x, y in dots)
    assert {"A & B", "a <b>", "b"} <= {text.text for text in picture.iter(f"{space}text")}


@pytest.mark.benchmark
def test_a_delay_passes_everything_on_and_counts_round_trips() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, delayed(server.getsockname()[1], 0.001) as delay:
        assert delay.round_trips() == 0
        with socket.create_connection(("127.0.0.1", delay.port)) as client:
            there, _ = server.accept()
            with there, there.makefile("rwb") as remote, client.makefile("rwb") as local:
                for number in range(3):
                    for asking, answering in ((local, remote), (remote, local)):
                        asking.write(b"%d\n" % number)
                        asking.flush()
                        assert answering.readline() == b"%d\n" % number
                assert delay.round_trips() == 3
                client.shutdown(socket.SHUT_WR)
                assert remote.readline() == b""
        assert delay.round_trips() == 0


def test_documents_have_the_figures_of_the_results() -> None:
    figures = documents.figures()
    pages = documents.documents()

    assert {page.name for page in pages} >= {"README.md", "performance.md", "polling.md"}
    for page in pages:
        text = page.read_text("utf-8")
        assert documents.with_figures(text, figures) == text, "run python -m tests.benchmarks.documents"


def test_a_figure_replaces_the_paragraph_or_table_behind_its_comment() -> None:
    text = "Before.\n\n<!-- figures: a -->\n| 1 |\n| 2 |\n\nBetween.\n\n<!-- figures: b -->\nOld\nwords.\n\nAfter.\n"

    shown = documents.with_figures(text, {"a": "| 3 |", "b": "New."})

    assert shown == "Before.\n\n<!-- figures: a -->\n| 3 |\n\nBetween.\n\n<!-- figures: b -->\nNew.\n\nAfter.\n"
    assert documents.with_figures(shown, {"a": "| 3 |", "b": "New."}) == shown
    with pytest.raises(KeyError, match="nonsense"):
        documents.with_figures("<!-- figures: nonsense -->\n", {})


def test_a_part_that_was_not_run_keeps_its_figures(tmp_path: Path) -> None:
    kept = Row("100 threads on loopback: talking: noticed, median", 0.1, "s")
    old = Row("5 threads at a pace that is no more: talking: noticed, median", 0.2, "s")

    report = latency.run(Frame(True, tmp_path, parts=frozenset({"none"}), before=[kept, old]))

    assert report.rows == []  # a quick run has other sizes
    report = latency.run(Frame(False, tmp_path, parts=frozenset({"none"}), before=[old, kept]))
    assert report.rows == [kept]
    assert [plot.lines["talking, measured"] for plot in report.plots] == [[(33, 0.1)]]
