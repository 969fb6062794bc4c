"""`python -m tests.soak`: kill a real daemon for some minutes, under load and faults, and count what came of it.

`--seeds 10 --loops asyncio,uvloop` runs it with ten dice on each event loop, and again with those that have found
something before.

`--replicas 4` runs several daemons on one PostgreSQL: the server of `--store`, or its own, which is restarted and
then replaced by its synchronous standby. The daemons are killed, paused for longer than their shards are kept for them,
and cut off from the store or the service.

Everything runs on this machine, on 127.0.0.1, in processes of its own that end with it. Exit code 0:
nothing was lost, doubled or out of order; 1: something was, and the directory with log, store and threads is kept.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import structlog
from rich.console import Console
from rich.table import Table

from chatbot.model import UserId
from chatbot.runtime import event_loop
from tests.chaos.processes import Daemon, Service, running_service
from tests.soak.memory import MemoryRecord
from tests.soak.replicas import ReplicaSoak, describe, set_up
from tests.soak.soak import SETTLE_SECONDS, STALE_SECONDS, Findings, Plan, Soak, size_of
from tests.support.postgres import running_server, standby_of, synchronous

PAST: Final = (("uvloop", 1),)
"""Event loops and seeds that have found something before, for `--seeds` and `--past`:

* uvloop, 1: a double that was deleted and forgotten was taken for a later reply, which was never sent.
"""

SHOWN_WRONG: Final = 20
PROGRESS_SECONDS = 15
"""For 250 threads; looking at more takes longer, and is done less often."""


def main() -> int:
    """Run the soak with the options of the command line."""
    options = _arguments()
    logging.basicConfig(level=logging.ERROR)
    structlog.configure(logger_factory=structlog.stdlib.LoggerFactory(), processors=[structlog.stdlib.filter_by_level])
    runs = _runs(options)
    found = [(loop, seed) for loop, seed in runs if not _run(options, loop, seed)]
    if len(runs) > 1:
        print(f"{len(runs)} runs, {len(found)} of them not clean{''.join(f'; {loop}, {seed}' for loop, seed in found)}")
    return 1 if found else 0


def _runs(options: argparse.Namespace) -> list[tuple[str, int]]:
    """Event loops and seeds to run with, each once."""
    seeds = range(options.seed, options.seed + options.seeds)
    runs = [(loop, seed) for seed in seeds for loop in options.loops]
    past = PAST if options.past or options.seeds > 1 else ()
    return list(dict.fromkeys([*past, *runs]))


def _run(options: argparse.Namespace, loop: str, seed: int) -> bool:
    plan = Plan(options.minutes * 60, options.threads, options.kills, seed, options.pause, options.hostile)
    directory = Path(tempfile.mkdtemp(prefix="chatbot-soak-"))
    is_clean = False
    try:
        is_clean = anyio.run(_soak, plan, options, loop, directory)
    finally:
        if is_clean and not options.keep:
            shutil.rmtree(directory)
        else:
            print(f"log, store and threads are in {directory}", file=sys.stderr)
    return is_clean


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description="Kill a real daemon again and again, and count what is lost."
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="how long people talk (%(default)s)")
    parser.add_argument("--threads", type=int, default=200, help="threads, each with a person (%(default)s)")
    parser.add_argument("--kills", type=int, default=24, help="how often to kill -9 the daemon (%(default)s)")
    parser.add_argument("--pause", type=float, default=12.0, help="seconds between a person's outbursts (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of everything random (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from this one on (%(default)s)")
    parser.add_argument("--hostile", action="store_true", help="also run handlers that try to harm their bot")
    parser.add_argument("--past", action="store_true", help="also run the seeds that found something before")
    parser.add_argument(
        "--loops",
        type=lambda text: text.split(","),
        default=[event_loop.chosen(os.environ)],
        help="asyncio, uvloop, or both with a comma between them (%(default)s)",
    )
    parser.add_argument("--replicas", type=int, default=1, help="daemons that share a PostgreSQL (%(default)s)")
    parser.add_argument(
        "--store", help="postgresql:// URL for --replicas; its schema must be empty. By default a server is started"
    )
    parser.add_argument("--data", action="store_true", help="also let the emulator keep its state in a file")
    parser.add_argument(
        "--quirk",
        action="append",
        default=[],
        help="NAME=VALUE: how the emulator reads what is unknown of the service; `chatbot emulator --list-quirks`",
    )
    parser.add_argument("--keep", action="store_true", help="keep log, store and threads of a clean run as well")
    options = parser.parse_args()
    if options.store and options.replicas < 2:
        parser.error("--store is for --replicas 2 or more")
    return options


async def _soak(plan: Plan, options: argparse.Namespace, loop: str, directory: Path) -> bool:
    begun = anyio.current_time()
    data = directory / "emulator.db" if options.data else None
    findings: Findings | None = None
    async with AsyncExitStack() as exits:
        service = await exits.enter_async_context(running_service(seed=plan.seed, data=data, quirks=options.quirk))
        soak = await exits.enter_async_context(_prepared(plan, options, loop, directory, service))
        async with anyio.create_task_group() as group:
            group.start_soon(_end_when_asked, group.cancel_scope)
            group.start_soon(_show_progress, soak, begun)
            with anyio.move_on_after(plan.seconds * 2 + 2 * SETTLE_SECONDS + STALE_SECONDS):
                findings = await soak.run()
            if findings is None or options.keep or not findings.is_clean:
                await soak.keep_evidence(directory / "threads.json")
            group.cancel_scope.cancel()
    if findings is None:
        print("ended before it was done", file=sys.stderr)
        return False
    _report(soak, findings, loop, anyio.current_time() - begun)
    return findings.is_clean


@asynccontextmanager
async def _prepared(
    plan: Plan, options: argparse.Namespace, loop: str, directory: Path, service: Service
) -> AsyncIterator[Soak]:
    """Prepare one daemon with a status server, or several that share a store."""
    if options.replicas == 1:
        daemon = Daemon.set_up(
            directory, service.connection_string, interval="2s", idle="10s", loop=loop, has_status_server=True
        )
        yield Soak(plan, service, daemon)
        return

    def configure(here: Path, connection_string: str, store: str, user: UserId) -> Daemon:
        return Daemon.set_up(here, connection_string, interval="1s", idle="30s", loop=loop, store=store, user=user)

    with ExitStack() as exits:
        server = standby = None
        if not options.store:
            server = exits.enter_context(running_server())
            standby = exits.enter_context(standby_of(server))
            synchronous(server, "second")
        url = options.store if server is None else server.url
        async with set_up(options.replicas, directory, service, url, configure) as replicas:
            yield ReplicaSoak(plan, service, replicas, url, server, standby)


async def _end_when_asked(everything: anyio.CancelScope) -> None:
    """Ended from outside, we end our processes, too."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await anext(signals)
        everything.cancel()


async def _show_progress(soak: Soak, begun: float) -> None:
    while True:
        await anyio.sleep(PROGRESS_SECONDS * max(1.0, len(soak.people) / 250))
        seen = await soak.judge()
        print(
            f"{anyio.current_time() - begun:4.0f} s: {seen.sent} sent, {seen.visible} replies, {seen.missing} missing, "
            f"{seen.doubled} double at the moment, {soak.kills} kills, {soak.memory:.0f} MiB",
            flush=True,
        )


def _report(soak: Soak, findings: Findings, loop: str, seconds: float) -> None:
    seen, plan = findings.verdict, soak.plan
    rows: list[tuple[str, object]] = [
        ("threads, each with a person", plan.threads),
        ("messages sent", seen.sent),
        ("messages handled", seen.sent - seen.buried - seen.unanswered + findings.dead),
        ("replies expected", seen.expected),
        ("replies visible", seen.visible),
        ("replies missing", seen.missing),
        ("replies doubled", seen.doubled),
        ("replies nobody asked for", seen.unexpected),
        ("replies out of order", seen.disordered),
        ("slowest reply, seconds, kills included", round(findings.wait)),
        ("buried by bad luck, revived by command", findings.revived),
        ("dead letters: deserved", findings.dead),
        ("dead letters: undeserved, missing", f"{findings.buried_alive}, {findings.forgotten}"),
        ("sends found done by reading", soak.said("send.confirmed_by_reading")),
        ("doubles healed on the way", soak.said("double.healed")),
        ("kills -9", soak.kills),
        ("deaths by a handler", soak.codes.count(9)),
        ("stops asked for, the last one included", findings.terms + 1),
        ("exit code of the last one", findings.exit_code),
        ("processes that could not start, or stopped uncleanly", sum(code not in (0, 9, -9) for code in soak.codes)),
        ("turns that failed unforeseen, bots that died", f"{soak.said('turn.failed')}, {soak.said('bot.crashed')}"),
        ("asked for its health, degraded, wrong answers", _health(findings)),
        ("daemon's memory: first, last begun, last ended", _mib(findings.memory)),
        (f"its memory, by minutes, with {plan.threads} threads", _mib(findings.memory_over_time.by_minute)),
        ("later half in relation to the earlier one", _growth(findings.memory_over_time)),
        *_of_replicas(soak),
        ("emulator's memory, which keeps all: start, end", _mib(findings.service_memory)),
        ("sends people were in doubt of", findings.doubts),
        ("seconds", round(seconds)),
    ]
    table = Table(
        title=f"soak, seed {plan.seed}, {loop}: {'clean' if findings.is_clean else 'NOT CLEAN'}",
        show_header=False,
    )
    for name, value in rows:
        table.add_row(name, str(value))
    Console().print(table)
    for sentence in findings.health.wrong[:SHOWN_WRONG]:
        print(sentence)


def _of_replicas(soak: Soak) -> list[tuple[str, object]]:
    """Return what is reported of one daemon's store, or of several replicas."""
    if not isinstance(soak, ReplicaSoak):
        return [("store's size", _mib([size_of(soak.store)]))]
    takeovers = soak.takeovers
    return [
        ("done to replicas", ", ".join(f"{way}: {count}" for way, count in sorted(soak.disturbances.items()))),
        ("a replica's kill to the first poll by another: median, 95 %, longest", describe(takeovers.kills)),
        ("the same for each of its threads", describe(takeovers.threads)),
        ("a pause or partition to the first poll by another", describe(takeovers.pauses)),
        ("a join to its share of the shards", describe(takeovers.joins)),
        ("a shard without owner", describe(takeovers.shards)),
    ]


def _health(findings: Findings) -> str:
    return f"{findings.health.looks}, {findings.health.degraded}, {len(findings.health.wrong)}"


def _mib(values: list[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values) + " MiB" if values else "not long enough to tell"


def _growth(record: MemoryRecord) -> str:
    if record.growth is None:
        return "not long enough to tell"
    return f"{record.growth:.3f}, over {record.seconds:.0f} s: {'flat' if record.is_flat else 'IT GROWS'}"


if __name__ == "__main__":
    sys.exit(main())
