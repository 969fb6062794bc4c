"""The same statements on the same tables, but a transaction for every event: with sqlite3 itself, or with aiosqlite.

`python each.py DATABASE TRANSACTIONS.json sqlite3|aiosqlite TASKS` prints seconds, seconds of processor time and the
latencies in ms as JSON. The journal and its syncing are those of chatbot's store: WAL and FULL.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from typing import Any

Transaction = list[tuple[str, list[Any]]]

PRAGMAS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA wal_autocheckpoint = 8000")


def plain(path: str, transactions: list[Transaction]) -> list[float]:
    """Commit one after the other, on the calling thread: nobody else can be as quick alone."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in PRAGMAS:
        connection.execute(pragma)
    latencies = []
    for transaction in transactions:
        begun = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        for sql, values in transaction:
            connection.execute(sql, values)
        connection.execute("COMMIT")
        latencies.append(time.perf_counter() - begun)
    connection.close()
    return latencies


async def awaited(path: str, transactions: list[Transaction], tasks: int) -> list[float]:
    """Commit from so many tasks at once over one aiosqlite connection; a lock keeps their transactions apart."""
    import aiosqlite

    latencies: list[float] = []
    lock = asyncio.Lock()
    async with aiosqlite.connect(path, isolation_level=None) as connection:
        for pragma in PRAGMAS:
            await connection.execute(pragma)

        async def commit(waiting: Iterator[Transaction]) -> None:
            for transaction in waiting:
                begun = time.perf_counter()
                async with lock:
                    await connection.execute("BEGIN IMMEDIATE")
                    for sql, values in transaction:
                        await connection.execute(sql, values)
                    await connection.execute("COMMIT")
                latencies.append(time.perf_counter() - begun)

        waiting = iter(transactions)
        await asyncio.gather(*(commit(waiting) for _ in range(tasks)))
    return latencies


def main() -> None:
    path, file, library, tasks = sys.argv[1:]
    with open(file, encoding="utf-8") as opened:
        transactions: list[Transaction] = json.load(opened)
    begun, used = time.perf_counter(), time.process_time()
    if library == "sqlite3":
        latencies = plain(path, transactions)
    else:
        latencies = asyncio.run(awaited(path, transactions, int(tasks)))
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    print(json.dumps({"seconds": seconds, "cpu": cpu, "latencies": [one * 1e3 for one in latencies]}))


main()
