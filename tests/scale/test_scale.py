"""The page of scale shows what the simulation computes, and the simulation is right where the answer is known."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

import pytest

from chatbot.polling.cadence import Cadence
from chatbot.service.budget import Window
from chatbot.stores.shards import SHARDS
from tests.scale.__main__ import PAGE, up_to_date
from tests.scale.cluster import Cluster, moves
from tests.scale.listing import busiest
from tests.scale.polling import simulate
from tests.scale.report import (
    TABLES,
    Installation,
    Row,
    list_table,
    machines_table,
    markdown,
    service_table,
    shards_table,
)

SOME = [Installation(1_000, 4), Installation(10_000, 1)]


NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def differing(page: str, tables: Iterable[Sequence[Row]]) -> list[str]:
    """Return the rows that the page does not have: with the same words, and figures that differ by a quarter at most.

    What is simulated is a sample. A change elsewhere shall not require to write the page for the sake of a second.
    """
    shown = defaultdict[str, list[list[float]]](list)
    for line in page.splitlines():
        shown[NUMBER.sub("#", line)].append(figures(line))
    rows = [row for table in tables for row in markdown(table).splitlines()]
    return [row for row in rows if not any(alike(figures(row), other) for other in shown[NUMBER.sub("#", row)])]


def figures(row: str) -> list[float]:
    return [float(text.replace(",", "")) for text in NUMBER.findall(row)]


def alike(some: Sequence[float], others: Sequence[float]) -> bool:
    return all(abs(one - other) <= max(0.25 * max(one, other), 0.2) for one, other in zip(some, others, strict=True))


def test_the_page_has_the_tables_as_they_are_now() -> None:
    """A few cheap rows of each table: a change of quotas, cadence or planner changes them, too."""
    page = PAGE.read_text("utf-8")
    tables = [service_table(SOME), list_table([3]), machines_table(SOME), shards_table([2, 4])]
    assert differing(page, tables) == [], "run: python -m tests.scale --write"


@pytest.mark.benchmark  # a million threads
def test_the_whole_page_is_up_to_date() -> None:
    page = PAGE.read_text("utf-8")
    assert differing(page, [table() for table in TABLES.values()]) == [], "run: python -m tests.scale --write"
    assert up_to_date(page).count("\n") == page.count("\n")


def test_a_page_with_other_figures_is_found() -> None:
    page = PAGE.read_text("utf-8")
    table = shards_table([4])
    assert differing(page.replace("| 4 | 64 |", "| 4 | 32 |"), [table])
    assert differing(page.replace("22 at most", "22"), [table])


def test_silent_threads_wait_for_their_share_of_the_rate() -> None:
    cadence = Cadence()
    polls = simulate(10 * int(cadence.idle * cadence.rate), 20, [0.2])
    assert polls.edits[-1] > 9 * cadence.idle
    assert polls.edits[-1] < 12 * cadence.idle
    assert polls.messages[-1] < 1


def test_the_planner_leaves_no_shard_without_an_owner_while_all_replicas_are_replaced() -> None:
    cluster = Cluster(4)
    for member in list(cluster.members):
        cluster.join()
        cluster.leave(member)
        assert len(cluster.owners) == SHARDS
        assert member not in cluster.owners.values()
    assert moves(4).taken == 22


def test_the_busiest_window_is_found() -> None:
    assert busiest([0, 1, 2, 30, 31], [Window(10, 5), Window(20, 60)]) == 0.3
    assert busiest([], [Window(10, 5)]) == 0
