"""An emulator of silent threads for the benchmark `threads`: `python -m tests.benchmarks.quiet DIRECTORY COUNT`.

Prints where it serves, then "polled" when the messages of every thread were listed, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from chatbot.emulator import Emulator, serve
from chatbot.model import ThreadId, UserId
from chatbot.stores import SqliteStore
from chatbot.stores.records import ThreadRecord
from chatbot.stores.writes import SaveThread


async def main(workdir: str, count: int) -> None:
    emulator = Emulator(quotas=False)
    person, bot = emulator.create_user(), UserId(emulator.create_user())
    threads = [ThreadId(emulator.create_thread(person, f"{number}", [bot])) for number in range(count)]
    directory = Path(tempfile.mkdtemp(dir=workdir))
    now = int(time.time() * 1000) + 1000
    async with SqliteStore(directory / "bots.db") as store:
        await store.commit(bot, [SaveThread(ThreadRecord(thread, floor=now, base=now)) for thread in threads])
    await asyncio.to_thread((directory / "threads.json").write_text, json.dumps(threads))
    async with serve(emulator, tls=False, certificates=directory) as running:
        place = {
            "directory": str(directory),
            "service": f"endpoint={running.http_endpoint};accesskey={emulator.access_key}",
            "endpoint": running.http_endpoint,
            "user": bot,
            "token": emulator.issue_token(bot).text,
        }
        print(json.dumps(place), flush=True)
        asked: set[str] = set()
        while len(asked) < count:
            await asyncio.sleep(0.2)
            asked |= {call.target.split("/")[3] for call in emulator.calls if call.operation == "list_messages"}
            emulator.calls.clear()
        print("polled", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
