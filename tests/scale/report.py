"""The figures of an installation, and the tables that show them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from chatbot.cluster.notes import ListedThread, ThreadsListed, encode
from chatbot.model import ThreadId, UserId
from chatbot.polling.thread_list import PAGE_SIZE
from chatbot.service.budget import QUOTAS, Operation
from chatbot.stores.postgres import READERS
from tests.scale import assumptions as assumed
from tests.scale import cluster, listing, polling
from tests.scale.listing import Listing, quantile

THREADS: Final = (1, 1_000, 10_000, 100_000, 1_000_000)
REPLICAS: Final = (1, 4, 20, 100)
GROUPS: Final = (2, 4, 10, 30, 100)
RATES: Final = (3, 30, 50, 100, 150, 200, 300)
NOTES_A_MESSAGE: Final = 2
"""How often the list shows a thread for a message: the message itself, and its reply."""


@dataclass(frozen=True, slots=True)
class Installation:
    """What is simulated.

    Args:
        threads: all threads.
        replicas: processes.
        bots: bots, among which the threads are divided.
        an_hour: messages of people in each thread, an hour.
    """

    threads: int
    replicas: int
    bots: int = 1
    an_hour: float = assumed.MESSAGES_AN_HOUR


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of it. Rates are of a second, and of the whole installation."""

    fullest: int
    messages: float
    list_requests: float
    polls: float
    list_keeps_up: bool
    message_waits: Sequence[float]
    edit_waits: Sequence[float]
    used: dict[Operation, float]
    walk_seconds: float
    transactions: float
    notes: float
    connections: int
    cores: float
    megabytes: float
    takeover_seconds: float

    @property
    def requests(self) -> float:
        """Requests to the service a second: the list, polls, replies and receipts."""
        return self.list_requests + self.polls + 2 * self.messages


@cache
def simulate(installation: Installation) -> Figures:
    """Return the figures of an installation."""
    threads, replicas, bots = installation.threads, installation.replicas, installation.bots
    messages = threads * installation.an_hour / 3600
    fullest = cluster.fullest(threads, replicas)
    listed = _listing(math.ceil(threads / bots), messages / bots)
    in_replica = max(1, fullest // bots)
    polls = polling.simulate(
        in_replica,
        in_replica * installation.an_hour / 3600,
        listed.waits,
        wake=assumed.WAKE_SECONDS if replicas > 1 else 0.0,
    )
    notes = bots * _notes(listed.requests, NOTES_A_MESSAGE * messages / bots * (1 - 1 / replicas))
    here = messages * fullest / threads
    return Figures(
        fullest=fullest,
        messages=messages,
        list_requests=bots * listed.requests,
        polls=polls.rate * bots * threads / fullest,
        list_keeps_up=listed.keeps_up,
        message_waits=polls.messages,
        edit_waits=polls.edits,
        used={Operation.LIST_THREADS: listed.used, **polls.used},
        walk_seconds=threads / bots / _pages_a_second() / PAGE_SIZE,
        # A commit for each message. What can wait is committed once a second by each bot that has some.
        transactions=messages + bots * replicas * -math.expm1(-messages / bots / replicas) + notes,
        notes=notes,
        connections=replicas * (READERS + assumed.CONNECTIONS_BESIDE_READERS),
        cores=(polls.rate * bots * assumed.POLL_MS + here * assumed.MESSAGE_MS) / 1000,
        megabytes=assumed.PROCESS_MB + (fullest * assumed.THREAD_KB * 1e3 + threads * assumed.LISTED_BYTES) / 1e6,
        takeover_seconds=_taken_over(threads, replicas) * assumed.TAKEN_OVER_US / 1e6,
    )


@cache
def _listing(threads: int, rate: float) -> Listing:
    return listing.simulate(threads, rate)


def _notes(reads: float, shown: float) -> float:
    """Return how many notes a second tell other replicas of so many threads, which so many reads of the list show."""
    if not shown:
        return 0.0
    each = ThreadId(f"19:acsV1_{'a' * 43}1@thread.v2")
    in_a_read = min(PAGE_SIZE, max(1, round(shown / reads)))
    listed = ThreadsListed(UserId(f"8:acs:{'a' * 73}"), 10**12, (ListedThread(each, 10**12),) * in_a_read)
    return reads * -math.expm1(-shown / reads) * len(encode(listed))


def _pages_a_second() -> float:
    window = QUOTAS[Operation.WALK_THREADS][-1]
    return window.limit / window.seconds


def _taken_over(threads: int, replicas: int) -> float:
    """Return how many threads one survivor takes over, at most, when a replica dies; a restart reads all."""
    return threads if replicas == 1 else cluster.moves(replicas).taken * threads / cluster.SHARDS


# ── tables ────────────────────────────────────────────────────────────────────────────────────────────────────────

Row = Sequence[str]


def service_table(installations: Iterable[Installation]) -> list[Row]:
    """Return what the service sees, and how long people wait."""
    head = ["Threads", "Bots", "Replicas", "Messages/s", "Requests/s", "To the handler: median, 99 %"]
    head += ["An edit in a silent thread: median, worst", "Whole list read in", "Binds first"]
    return [head, *(_service_row(one, simulate(one)) for one in installations)]


def _service_row(one: Installation, figures: Figures) -> Row:
    waits = ", ".join(duration(quantile(figures.message_waits, part)) for part in (0.5, 0.99))
    return [
        f"{one.threads:,}",
        f"{one.bots}",
        f"{one.replicas}",
        number(figures.messages),
        number(figures.requests),
        waits if figures.list_keeps_up else "longer and longer",
        f"{duration(quantile(figures.edit_waits, 0.5))}, {duration(figures.edit_waits[-1])}",
        duration(figures.walk_seconds),
        _binding(figures),
    ]


def _binding(figures: Figures) -> str:
    if not figures.list_keeps_up:
        return "the thread list of a user"
    names = {Operation.WRITE_MESSAGE: "sends in a thread", Operation.LIST_MESSAGES: "polls of a thread"}
    used, operation = max((figures.used[operation], operation.name) for operation in names)
    return f"{names[Operation[operation]]} ({used:.0%} used)"


def machines_table(installations: Iterable[Installation]) -> list[Row]:
    """Return what the database and the machines see."""
    head = ["Threads", "Bots", "Replicas", "Transactions/s", "NOTIFY/s (delivered)", "Connections"]
    head += ["Fullest replica: threads", "its cores", "its memory", "Reading threads after a death"]
    return [head, *(_machines_row(one, simulate(one)) for one in installations)]


def _machines_row(one: Installation, figures: Figures) -> Row:
    delivered = figures.notes * one.replicas
    return [
        f"{one.threads:,}",
        f"{one.bots}",
        f"{one.replicas}",
        number(figures.transactions),
        f"{number(figures.notes)} ({number(delivered)})" if one.replicas > 1 else "0",
        f"{figures.connections}",
        f"{figures.fullest:,}",
        f"{figures.cores:.2f}",
        f"{figures.megabytes:,.0f} MB",
        duration(figures.takeover_seconds),
    ]


def list_table(rates: Iterable[float]) -> list[Row]:
    """Return how fast the list of one bot shows messages, while its end is being read."""
    head = ["Messages/s of one bot", "List requests/s", "Shown after: median, 99 %", "Keeps up"]
    return [head, *(_list_row(rate, _listing(1_000_000, rate)) for rate in rates)]


def _list_row(rate: float, shown: Listing) -> Row:
    waits = ", ".join(duration(quantile(shown.waits, part)) for part in (0.5, 0.99))
    return [number(rate), f"{shown.requests:.1f}", waits if shown.keeps_up else "–", "yes" if shown.keeps_up else "no"]


def shards_table(groups: Iterable[int]) -> list[Row]:
    """Return what the planner makes of replicas that come and go."""
    head = ["Replicas", "Shards of each", "One dies: each survivor takes", "One joins: shards that move"]
    return [[*head, "All replaced: moves of a shard"], *(_shards_row(count) for count in groups)]


def _shards_row(replicas: int) -> Row:
    moves = cluster.moves(replicas)
    each = f"{moves.smallest}" if moves.smallest == moves.largest else f"{moves.smallest} or {moves.largest}"
    return [f"{replicas}", each, f"{moves.taken} at most", f"{moves.joined}", f"{moves.rolled:.1f}"]


def grid(threads: Iterable[int], replicas: Sequence[int]) -> list[Installation]:
    """Return all combinations; more than one replica only where there is more than one thread."""
    return [Installation(size, count) for size in threads for count in (replicas if size > 1 else replicas[:1])]


INSTALLATIONS: Final = [
    *grid(THREADS, REPLICAS),
    Installation(1_000_000, 20, bots=5),
    Installation(1_000_000, 100, bots=20),
]

TABLES: Final[dict[str, Callable[[], list[Row]]]] = {
    "service": lambda: service_table(INSTALLATIONS),
    "list": lambda: list_table(RATES),
    "machines": lambda: machines_table(INSTALLATIONS),
    "shards": lambda: shards_table(GROUPS),
}
"""The tables of the page, by name."""


def markdown(rows: Sequence[Row]) -> str:
    """Return a table in Markdown; the first row is its head."""
    head, *others = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *others])


def number(value: float) -> str:
    """Return a number with two significant digits, or all before the point."""
    if value >= 10 or not value:
        return f"{value:,.0f}"
    return f"{value:.{max(1, 1 - math.floor(math.log10(value)))}f}" if value >= 0.01 else "< 0.01"


def duration(seconds: float) -> str:
    """Return a time with about two digits."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}" if seconds < 10 * length else f"{seconds / length:.0f} {unit}"
    if seconds < 0.1:
        return "< 0.1 s"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
