"""A real daemon exports its traces to a collector, which is one of the test's on loopback."""

from __future__ import annotations

import gzip
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE, Chat, Run, copy_of_the_clone

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed: pip install 'chatbot-acs[otel]'")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """Takes OTLP over http."""

    def __init__(self) -> None:
        self.requests: queue.Queue[tuple[str, bytes]] = queue.Queue()
        received = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                is_packed = self.headers.get("Content-Encoding") == "gzip"
                received.put((self.path, gzip.decompress(body) if is_packed else body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    opened = Collector()
    yield opened
    opened.close()


def test_a_daemon_exports_its_traces_where_the_environment_says(
    collector: Collector, tmp_path: Path, run: Run, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "helpdesk-bots")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    bots = run(copy_of_the_clone(tmp_path))
    bots.event("daemon.started")
    assert chat(tmp_path, "--as", "Ann", typed="hello\n").code == 0
    assert bots.stop() == 0

    names: set[str] = set()
    while not names >= {"MessageReceived", "poll", "plugins.echo.echo", "commit", "SendMessage", "receipt"}:
        path, body = collector.requests.get(timeout=PATIENCE)
        assert path == "/v1/traces"
        assert b"hello" not in body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            values = {one.key: one.value.string_value for one in resource.resource.attributes}
            assert values["service.name"] == "helpdesk-bots"
            names |= {span.name for scope in resource.scope_spans for span in scope.spans}


def test_a_collector_that_is_away_holds_up_neither_the_bots_nor_their_stop(
    tmp_path: Path, run: Run, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    bots = run(copy_of_the_clone(tmp_path))
    bots.event("daemon.started")

    assert chat(tmp_path, "--as", "Ann", typed="hello\n").code == 0
    assert bots.stop() == 0
