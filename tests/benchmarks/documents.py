"""Figures in documents, taken from `results.json`: `python -m tests.benchmarks.documents` writes them anew.

A figure is a paragraph or a table behind a comment that names it, `<!-- figures: latency -->`. What `tests.benchmarks`
measures for `docs/benchmarks` gets there at once; a test sees that documents and results agree.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tests.benchmarks import client, dispatch, end_to_end, results, silence
from tests.benchmarks.frame import ROOT, Row
from tests.benchmarks.latency import BOTS, COST, LOOPBACK, RECORDED, SIZES
from tests.benchmarks.playground import FORK_ENDS, LINES

DIRECTORY = ROOT / "docs" / "benchmarks"
WIDTH = 118
MISSING = "–"

_FIGURE = re.compile(r"(?<=<!-- figures: )([\w-]+)( -->\n)(?:(?!<!--).+\n)*")

_REPLICAS = re.compile(r"replicas: \d+: answered")

_PACES = {RECORDED: "0.06 to 0.36 s, as recorded of the service", LOOPBACK: "about 1 ms, on loopback"}


def documents() -> list[Path]:
    """Return the documents that have figures."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in pages if _FIGURE.search(page.read_text("utf-8"))]


def with_figures(text: str, figures: Mapping[str, str]) -> str:
    """Return a document with these figures; a document that names another one is a `KeyError`."""
    return _FIGURE.sub(lambda found: f"{found[1]}{found[2]}{figures[found[1]]}\n", text)


def figures(directory: Path = DIRECTORY) -> dict[str, str]:
    """Return all figures, by name, from the results in a directory."""
    return {name: make(results.rows(directory, benchmark)) for name, (benchmark, make) in _FIGURES.items()}


def write() -> None:
    """Put the figures of the latest results into all documents."""
    found = figures()
    for page in documents():
        page.write_text(with_figures(page.read_text("utf-8"), found), "utf-8")


# ── latency ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _latency(rows: Sequence[Row]) -> str:
    values = _values(rows)
    head = ["Requests take", "Threads", "Noticed: talking", "silent", "Reply visible: talking", "silent"]
    lines = []
    for pace, name in _PACES.items():
        for size in SIZES:
            waits = [
                _wait(values, f"{_where(size, pace)}: {kind}: {what}")
                for what in ("noticed", "reply visible")
                for kind in ("talking", "silent")
            ]
            lines.append([name if size == SIZES[0] else "", f"{size:,}", *waits])
    return _table(head, lines)


def _late(rows: Sequence[Row]) -> str:
    values = _values(rows)
    lines = [
        [f"{size:,}", *(_seconds(values.get(f"{_where(size, RECORDED)}: {kind}, noticed at worst"), 0)
                        for kind in ("edited", "deleted", "left"))]
        for size in SIZES[1:]
    ]  # fmt: skip
    return _table(["Threads", "Edit", "Deletion", "Removal of the bot"], lines)


def _summary(rows: Sequence[Row]) -> str:
    """Say what people feel: first at the pace of the service."""
    values = _values(rows)

    def spread(pace: str, kind: str, what: str) -> str:
        names = [f"{_where(size, pace)}: {kind}: {what}, median" for size in SIZES]
        found = [value for name in names if (value := values.get(name)) is not None]
        if not found:
            return MISSING
        low, high = f"{min(found):.2f}", f"{max(found):.2f}"
        return f"{low} s" if low == high else f"{low} to {high} s"

    def sentence(pace: str) -> str:
        return (
            f"a word is noticed after {spread(pace, 'talking', 'noticed')} in the median, and its reply is visible "
            f"after {spread(pace, 'talking', 'reply visible')}; in a thread that was silent, after "
            f"{spread(pace, 'silent', 'noticed')} and {spread(pace, 'silent', 'reply visible')}"
        )

    text = (
        f"With 1 to 10,000 threads, and requests as slow as recorded of the service (0.06 to 0.36 s each), "
        f"{sentence(RECORDED)}. On loopback, where a request takes about 1 ms, {sentence(LOOPBACK)}."
    )
    return _paragraph(text)


def _refused(rows: Sequence[Row]) -> str:
    refused = [row.value or 0 for row in rows if row.name.endswith("requests refused (429)")]
    polls = _values(rows).get(f"{_where(100, RECORDED)}: talking, polls for each word")
    text = (
        f"The emulator refused {sum(refused):.0f} requests in all {len(refused)} runs. A thread in which people talk "
        f"is polled {MISSING if polls is None else f'{polls:.0f}'} times for each word (100 threads, recorded pace)."
    )
    return _paragraph(text)


def _cost(rows: Sequence[Row]) -> str:
    values = _values(rows)
    shares = [values.get(f"{COST}: {name}, processor time") for name in ("1 bot", "1 bot, interval 1s", f"{BOTS} bots")]
    one, slow, many = (MISSING if share is None else f"{share:.1f} %" for share in shares)
    text = (
        f"While nobody says anything in 100 threads, one bot takes {one} of a core ({slow} with `interval: 1s`), and "
        f"{BOTS} bots take {many}."
    )
    return _paragraph(text)


def _client(rows: Sequence[Row]) -> str:
    row = next((row for row in rows if row.name.endswith("reply seen, median")), None)
    if row is None or row.value is None or row.rival_value is None:
        return "A JavaScript client has not confirmed it on this machine."
    text = (
        f"A client of the official JavaScript SDK in a process of its own, which polls without quotas, has seen the "
        f"replies {row.value - row.rival_value:.2f} s later than the service's milliseconds say ({row.value:.2f} s "
        f"after the word in the median)."
    )
    return _paragraph(text)


def _where(size: int, pace: str) -> str:
    return f"{size:,} thread{'' if size == 1 else 's'} {pace}"


def _wait(values: Mapping[str, float | None], name: str) -> str:
    median, late = values.get(f"{name}, median"), values.get(f"{name}, p99")
    return MISSING if median is None else f"{_seconds(median)} ({_seconds(late)})"


# ── a daemon ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _daemon(rows: Sequence[Row]) -> str:
    lines = [
        [row.name.removesuffix(": private memory"), f"{row.value:.0f} MB", row.note.removeprefix("resident ")]
        for row in rows
        if row.unit == "MB" and row.value is not None
    ]
    lines += [["the libraries alone", f"{row.rival_value:.0f} MB", ""] for row in rows[:1] if row.rival_value]
    return _table(["", "Private memory", "Resident"], lines)


def _start(rows: Sequence[Row]) -> str:
    found = next((row.value for row in rows if row.name.startswith("chatbot run:")), None)
    return _paragraph(f"`chatbot run` takes {_seconds(found)} of processor time until its first poll.")


# ── silence ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _silence(rows: Sequence[Row]) -> str:
    found = {row.name: row for row in rows}
    lines = []
    for size in silence.SIZES:
        name = f"{size:,} silent threads"
        start, share, memory = (
            found.get(f"{name}: {what}") for what in ("start to the first answer", "processor time", "memory of each")
        )
        lines.append(
            [
                f"{size:,}",
                MISSING if share is None or share.value is None else f"{share.value:.1f}",
                MISSING if share is None else share.note.partition(" ")[0],
                MISSING if memory is None or memory.value is None else f"{memory.value:.1f}",
                MISSING if start is None else f"{start.note.partition(' ')[0]} s",
                _seconds(start and start.value, 1),
            ]
        )
    head = [
        "Silent threads",
        "% of a core",
        "Polls a second",
        "KB each",
        "To the first answer: processor",
        "on the clock",
    ]
    return _table(head, lines)


# ── PostgreSQL ────────────────────────────────────────────────────────────────────────────────────────────────────


def _postgres_commits(rows: Sequence[Row]) -> str:
    found = {row.name: row for row in rows}
    near, far = (f"commits: {place}, " for place in ("on this machine", "2 ms away"))
    lines = []
    for title, name in (
        ("one at a time: median", "one at a time: p50"),
        ("99th percentile", "one at a time: p99"),
        ("commits a second", "one at a time"),
        ("1,000 at once: commits a second", "1,000 at once"),
    ):
        here, there = (found.get(f"{place}{name}") for place in (near, far))
        values = (here and here.rival_value, here and here.value, there and there.value)
        is_rate = here is not None and here.unit == "/s"
        lines.append([title, *(_number(value) if is_rate else _milliseconds(value) for value in values)])
    return _table(["A commit", "SQLite", "PostgreSQL on the same machine", "2 ms away"], lines)


def _postgres_cost(rows: Sequence[Row]) -> str:
    found = {row.name: row for row in rows}
    bot = found.get("commits: processor time of the bot for each of them")
    values = _values(rows)
    alone = values.get("commits: round trips, one at a time")
    text = (
        f"With 1,000 at once, a commit takes {_number(bot and bot.value)} µs of the bot's processor time "
        f"({_number(bot and bot.rival_value)} on SQLite), and "
        f"{_number(values.get('commits: processor time of the server for each of them'))} µs of the server's. One "
        f"commit alone takes {MISSING if alone is None else f'{alone:.2f}'} round trips; with 1,000 at once, "
        f"{_number(values.get('commits: in one round trip, 1,000 at once'))} commits share one."
    )
    return _paragraph(text)


def _postgres_messages(rows: Sequence[Row]) -> str:
    found = {row.name: row for row in rows}
    bot, both = (found.get(f"messages: {name}") for name in ("processor time of the bot", "both together"))
    server = _values(rows).get("messages: processor time of the server")
    ratios = [MISSING if row is None or row.ratio is None else f"{row.ratio:.2f}" for row in (bot, both)]
    text = (
        f"A message with its reply takes {_number(bot and bot.value)} µs of the bot's processor time "
        f"({_number(bot and bot.rival_value)} on SQLite, {ratios[0]} times that) and {_number(server)} µs of the "
        f"server's, {ratios[1]} times SQLite's together."
    )
    return _paragraph(text)


def _postgres_replicas(rows: Sequence[Row]) -> str:
    values = _values(rows)
    what = {
        "answered": "Answers a second",
        "answered, by the processor time of the busiest replica": "with a core for each",
        "processor time of all replicas for a message": "A message: replicas, µs",
        "processor time of the server for a message": "server, µs",
        "polls for each message": "polls",
        "a second of silence, processor time of all replicas": "A second of silence: replicas, ms",
    }
    counts = [row.name.split(": ")[1] for row in rows if _REPLICAS.fullmatch(row.name)]
    lines = []
    for count in counts:
        found = {name: values.get(f"replicas: {count}: {name}") for name in what}
        polls = found["polls for each message"]
        cells = {name: _number(value) for name, value in found.items()}
        cells["polls for each message"] = MISSING if polls is None else f"{polls:.1f}"
        lines.append([count, *cells.values()])
    return _table(["Replicas", *what.values()], lines)


def _postgres_failover(rows: Sequence[Row]) -> str:
    values = _values(rows)

    def both(name: str) -> str:
        median, worst = (values.get(f"failover: {name}, {which}") for which in ("median", "worst"))
        return f"{_seconds(median)} in the median and {_seconds(worst)} at worst"

    text = (
        f"After `kill -9` of one of three replicas, another polls the first of its threads after "
        f"{both('a kill to the first poll by another')}, and each of them after "
        f"{both('a kill to the poll of each of its threads')}. A replica that joins has its share of the threads after "
        f"{both('a join to its share of the threads')}."
    )
    return _paragraph(text)


def _postgres_move(rows: Sequence[Row]) -> str:
    values = _values(rows)

    def step(name: str) -> str:
        return _seconds(values.get(f"move: 10,000 threads: {name}"), 1)

    text = (
        f"A running installation with 10,000 threads is without bots for {step('without bots')}: "
        f"{step('stop in order')} to stop, {step('chatbot store copy, with its check')} for `chatbot store copy` with "
        f"its check, and {step('start to the first answer')} from the start to the first answer."
    )
    return _paragraph(text)


# ── a fork ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _fork(rows: Sequence[Row]) -> str:
    clock, cost = (next((row.value for row in rows if row.name.endswith(end)), None) for end in FORK_ENDS)
    text = (
        f"A fork of {LINES} lines takes {_seconds(clock)} from the start of its two processes to the compared answers, "
        f"on a machine with two cores. Each run takes {_seconds(cost)} of processor time."
    )
    return _paragraph(text)


# ── a call, and a whole message ───────────────────────────────────────────────────────────────────────────────────


def _calls(rows: Sequence[Row]) -> str:
    found = {row.name: row for row in rows}
    head = [
        "",
        "our client, µs",
        "ours / quickstart",
        "our whole bot / quickstart",
        "aiohttp + json / quickstart",
    ]
    lines = [
        [title, _digits(found.get(f"{title}: {client.OURS}"))]
        + [_ratio(found.get(f"{title}: {who}")) for who in (client.OURS, client.BOT, client.RAW)]
        for title in client.TITLES.values()
    ]
    return _table(head, lines)


def _message(rows: Sequence[Row]) -> str:
    found = {row.rival: row for row in rows if row.name == end_to_end.MESSAGE}
    sdk, own = (found.get(rival) for rival in end_to_end.RIVALS.values())
    polls = MISSING if own is None else own.note.partition(" ")[0]
    text = (
        f"A message takes {_ratio(sdk)} times the processor time of the SDK making the same three calls (poll, reply, "
        f"receipt) as its quickstart shows them, and {_ratio(own)} times that of chatbot's own client, in a loop that "
        f"does nothing else. The bot polled {polls} times for each message."
    )
    return _paragraph(text)


def _digits(row: Row | None) -> str:
    return MISSING if row is None or row.value is None else f"{row.value:,.0f}"


def _ratio(row: Row | None) -> str:
    return MISSING if row is None or row.ratio is None else f"{row.ratio:.2f}"


# ── dispatch, and a burst ─────────────────────────────────────────────────────────────────────────────────────────


def _dispatch(rows: Sequence[Row]) -> str:
    text, command = ({row.rival: row for row in rows if row.name == title} for title in dispatch.KINDS.values())
    own = [MISSING if not found else _microseconds(next(iter(found.values())).value) for found in (text, command)]
    lines = [["**chatbot**", own[0], "", own[1], ""]]
    for rival in sorted({**text, **command}, key=lambda name: (name != dispatch.BARE, name.lower())):
        cells: list[str] = []
        for found in (text.get(rival), command.get(rival)):
            if found is None or found.ratio is None:
                cells += [MISSING, MISSING]
            else:
                cells += [_microseconds(found.rival_value), f"{found.ratio:.2g}"]
        lines.append([rival, *cells])
    return _table(["", "text, µs", "ours / theirs", "command, µs", "ours / theirs"], lines)


def _burst(rows: Sequence[Row]) -> str:
    values = _values(rows)
    share = next((row.ratio for row in rows if row.rival == "the quotas' optimum"), None)
    polls = values.get("polls for each answer")
    text = (
        f"In a burst, {_number(values.get('answered, from the first poll to the last reply'))} words a second are "
        f"answered by the clock, {_number(values.get('answered, by the processor time of the bot'))} for each second "
        f"of the bot's core, with {MISSING if polls is None else f'{polls:.1f}'} polls for each answer. In the minute "
        f"that follows, {MISSING if share is None else f'{share:.2f}'} of what the quotas allow are answered."
    )
    return _paragraph(text)


def _microseconds(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.3g}" if value < 1_000 else f"{value:,.0f}"


# ── texts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _values(rows: Iterable[Row]) -> dict[str, float | None]:
    return {row.name: row.value for row in rows}


def _seconds(value: float | None, digits: int = 2) -> str:
    return MISSING if value is None else f"{value:.{digits}f} s"


def _milliseconds(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f} ms"


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in (head, ["---"] * len(head), *lines))


def _paragraph(text: str) -> str:
    whole = _UNIT.sub("\u00a0", text)  # a number stays with its unit
    return textwrap.fill(whole, WIDTH, break_long_words=False, break_on_hyphens=False).replace("\u00a0", " ")


_UNIT = re.compile(r"(?<=\d) (?=(?:s|ms|%|MB|µs)\b|%)")

_FIGURES: Mapping[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
    "latency": ("latency", _latency),
    "latency-late": ("latency", _late),
    "latency-summary": ("latency", _summary),
    "latency-refused": ("latency", _refused),
    "latency-cost": ("latency", _cost),
    "latency-client": ("latency", _client),
    "daemon": ("daemon", _daemon),
    "daemon-start": ("daemon", _start),
    "silence": ("silence", _silence),
    "fork": ("playground", _fork),
    "calls": ("client", _calls),
    "dispatch": ("dispatch", _dispatch),
    "burst": ("burst", _burst),
    "message": ("end_to_end", _message),
    "postgres-commits": ("postgres", _postgres_commits),
    "postgres-cost": ("postgres", _postgres_cost),
    "postgres-messages": ("postgres", _postgres_messages),
    "postgres-replicas": ("postgres", _postgres_replicas),
    "postgres-failover": ("postgres", _postgres_failover),
    "postgres-move": ("postgres", _postgres_move),
}

if __name__ == "__main__":
    write()
