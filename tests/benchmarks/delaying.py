"""A TCP proxy in a process of its own that delays what passes, and counts round trips.

`python -m tests.benchmarks.delaying PORT SECONDS` prints the port at which it serves, and for each line that it reads
how many round trips there were since the last one. Each direction has two threads, which sleep more precisely than an
event loop waits: bytes are read as they come, and written when they are due.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue

from tests.benchmarks.frame import ROOT

_Piece = tuple[float, bytes]


@dataclass(frozen=True)
class Delay:
    """The proxy, as others see it.

    Args:
        port: where it serves.
        process: its process.
    """

    port: int
    process: subprocess.Popen[str]

    def round_trips(self) -> int:
        """Return how often clients spoke after the server had, since the last call."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(json.loads(self.process.stdout.readline()))


@contextmanager
def delayed(port: int, seconds: float) -> Iterator[Delay]:
    """Serve in front of a server of this machine until the block ends; each direction takes so many seconds longer."""
    command = [sys.executable, "-m", "tests.benchmarks.delaying", str(port), str(seconds)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Delay(int(json.loads(process.stdout.readline())), process)
        finally:
            process.kill()


class _Connection:
    """A client's connection and ours to the server."""

    def __init__(self, client: socket.socket, server: socket.socket, seconds: float) -> None:
        self.round_trips = 0
        self._server_spoke = True
        self._seconds = seconds
        for source, target, is_client in ((client, server, True), (server, client, False)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pieces: SimpleQueue[_Piece] = SimpleQueue()
            threading.Thread(target=self._read, args=(source, pieces, is_client), daemon=True).start()
            threading.Thread(target=self._write, args=(target, pieces), daemon=True).start()

    def _read(self, source: socket.socket, pieces: SimpleQueue[_Piece], is_client: bool) -> None:
        data = b"more"
        while data:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            pieces.put((time.monotonic() + self._seconds, data))
            if is_client and data:
                self.round_trips += self._server_spoke
            self._server_spoke = not is_client

    def _write(self, target: socket.socket, pieces: SimpleQueue[_Piece]) -> None:
        with suppress(OSError):
            while True:
                due, data = pieces.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)


def _serve(listening: socket.socket, port: int, seconds: float, connections: list[_Connection]) -> None:
    while True:
        client, _ = listening.accept()
        connections.append(_Connection(client, socket.create_connection(("127.0.0.1", port)), seconds))


def main() -> None:
    """Serve until the input ends."""
    port, seconds = int(sys.argv[1]), float(sys.argv[2])
    connections: list[_Connection] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        threading.Thread(target=_serve, args=(listening, port, seconds, connections), daemon=True).start()
        told = 0
        for _ in sys.stdin:
            count = sum(connection.round_trips for connection in connections)
            print(count - told, flush=True)
            told = count


if __name__ == "__main__":
    main()
