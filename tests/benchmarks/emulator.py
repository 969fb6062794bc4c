"""How many idle list_messages the emulator answers per second of a core.

The client is another process with twenty connections kept alive; what is counted is the processor time of the server's
process, so that the client, and whatever else the machine does, does not count.
"""

from __future__ import annotations

import asyncio
import ssl
import statistics
import sys
import tempfile
import time
from pathlib import Path

from chatbot.emulator import Emulator, serve
from tests.benchmarks.frame import Frame, Report, Row, ratio

TITLE = "The emulator: idle list_messages per second of a core"

CONNECTIONS = 20
REQUESTS = 3000


async def load(host: str, port: int, request: bytes, ca_file: str, requests: int) -> None:
    """Send the request again and again over every connection."""
    context = ssl.create_default_context(cafile=ca_file) if ca_file else None

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        for _ in range(requests // CONNECTIONS):
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert b" 200 " in head.splitlines()[0], head
            length = head.partition(b"content-length:")[2].partition(b"\r")[0]
            await reader.readexactly(int(length))
        writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))


async def measure(*, tls: bool, quotas: bool = False, requests: int = REQUESTS) -> float:
    """Return requests per second of the server's processor time."""
    emulator = Emulator(quotas=quotas)
    user = emulator.create_user()
    thread = emulator.create_thread(user)
    path = f"/chat/threads/{thread}/messages?startTime=2999-01-01T00%3A00%3A00Z&maxPageSize=100&api-version=2024-03-07"
    with tempfile.TemporaryDirectory() as directory:
        async with serve(emulator, tls=tls, certificates=Path(directory)) as running:
            host, _, port = running.endpoint.partition("://")[2].partition(":")
            token = emulator.issue_token(user).text
            head = (
                f"GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {token}\r\n"
                "accept: application/json\r\nx-ms-client-request-id: 8a5e3ae1-0c9b-4c4a-9b0e-6e5f6d1c2b3a\r\n"
                "user-agent: azsdk-python-communication-chat/1.3.0 Python/3.11\r\n\r\n"
            )
            arguments = [host, port, head, str(running.ca_file or ""), str(requests)]
            begun = time.process_time()
            client = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.benchmarks.emulator", *arguments)
            code = await client.wait()
            used = time.process_time() - begun
    if code:
        raise SystemExit(code)
    return len(emulator.calls) / used


def run(frame: Frame) -> Report:
    """Measure http and https."""
    requests = CONNECTIONS * 5 if frame.quick else REQUESTS
    rates = frame.interleaved(
        {
            "http": lambda: asyncio.run(measure(tls=False, requests=requests)),
            "https": lambda: asyncio.run(measure(tls=True, requests=requests)),
        }
    )
    plain, secured = (statistics.median(rates[name]) for name in ("http", "https"))
    return Report([Row("http", plain, "/s", "https", secured, ratio(rates["http"], rates["https"]))])


if __name__ == "__main__":  # the client
    host, port, request, ca_file, requests = sys.argv[1:]
    asyncio.run(load(host, int(port), request.encode(), ca_file, int(requests)))
