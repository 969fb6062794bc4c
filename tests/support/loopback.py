"""A real http(s) server of this machine, in a thread of its own: answers as a test says, keeps what was asked."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True)
class Answered:
    """One answer."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    date: str | None = None


@dataclass
class Site:
    """The server.

    Args:
        url: `scheme://127.0.0.1:PORT`.
        requests: what was asked, in order.
    """

    url: str
    requests: list[Asked] = field(default_factory=list)


@contextmanager
def site(answer: Callable[[Asked], Answered], *, tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """Serve while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            asked = Asked(self.command, url.path, query, self.headers, body)
            here.requests.append(asked)
            given = answer(asked)
            content = b"" if given.body is None else json.dumps(given.body).encode()
            self.send_response_only(given.status)
            self.send_header("Date", given.date or self.date_time_string())
            for name, value in {"Content-Type": "application/json", **given.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_DELETE = do_PATCH = do_GET  # noqa: N815 - the library's own names

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    here = Site(f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}")
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up, or does not trust us, is what some tests are about."""
