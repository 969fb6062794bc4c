"""A server that gives every request for a list the same answer, in a process of its own: `running(messages)`.

It keeps the headers and the message shape of the recorded service, and costs so little that it is not what is waited
for. Every thread exists; a post is a message sent.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any

from tests.benchmarks.frame import ROOT

PERSON = "8:acs:dd9753c0-6e62-4f74-ab0f-c94f9723b4eb_0000001c-8f4e-af9f-2c8a-084822002b21"
BEGUN_MS = 1_700_528_984_299
_HEAD = (
    "HTTP/1.1 {status}\r\n"
    "Content-Type: application/json; charset=utf-8\r\n"
    "MS-CV: 1Mr7dKvQBUO0AAAAAAAAAA.0\r\n"
    "Strict-Transport-Security: max-age=2592000\r\n"
    "api-supported-versions: 2021-03-07, 2021-09-07, 2023-11-07, 2024-03-07\r\n"
    "X-Cache: CONFIG_NOCACHE\r\n"
    "X-Processing-Time: 57ms\r\n"
    "Date: {date}\r\n"
    "Content-Length: {length}\r\n\r\n"
)


def message(number: int) -> dict[str, Any]:
    """Make a text message as it is on the wire."""
    id = str(BEGUN_MS + number * 1000)
    return {
        "id": id,
        "type": "text",
        "sequenceId": str(number + 3),
        "version": id,
        "content": {"message": f"This is message {number}, and it says as much as people say.", "attachments": []},
        "senderDisplayName": "Ann",
        "createdOn": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(id) // 1000)),
        "senderCommunicationIdentifier": {"rawId": PERSON, "communicationUser": {"id": PERSON}},
        "metadata": {"tags": "sometag"},
    }


class _Connection(asyncio.Protocol):
    def __init__(self, messages: int) -> None:
        page = {"value": [message(number) for number in reversed(range(messages))]}
        self._messages = json.dumps(page, separators=(",", ":")).encode()
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r")[0] or 0)
            if len(self._received) < end + 4 + length:
                return
            self._received = self._received[end + 4 + length :]
            self._transport.write(self._answer(head))

    def _answer(self, head: bytes) -> bytes:
        status, body = "200 OK", b'{"value":[]}'
        if head.startswith(b"post"):
            status, body = "201 Created", b'{"id":"1700526858304"}'
        elif b"/messages?" in head:
            body = self._messages
        date = formatdate(usegmt=True)
        return _HEAD.format(status=status, date=date, length=len(body)).encode() + body


async def _serve(messages: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(messages), "127.0.0.1", backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()  # the end of whoever started us is our end


@contextmanager
def running(messages: int) -> Iterator[str]:
    """Serve pages of so many messages while the block runs; gives the endpoint."""
    command = [sys.executable, "-m", "tests.benchmarks.canned", str(messages)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
