"""The status server and `chatbot status`, over a real daemon."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from chatbot.cli import main
from tests.cli.conftest import Chat, Running, copy_of_the_clone

FAILING = """
import time
from pathlib import Path
from chatbot import Context, Plugin, Retry

plugin = Plugin("failing")

@plugin.command("fail", retry=Retry(1))
async def fail(ctx: Context) -> None:
    raise ValueError("a secret of Ann's")

@plugin.command("block")
async def block(ctx: Context) -> None:
    while not Path(__file__).with_name("go").exists():
        time.sleep(0.05)
"""


class Site(Running):
    """A daemon with a status server."""

    directory: Path

    def get(self, path: str) -> tuple[int, str]:
        """A page."""
        try:
            with urllib.request.urlopen(f"{self.event('status.served')['address']}{path}", timeout=120) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


PATIENCE_SECONDS = 20


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = copy_of_the_clone(tmp_path_factory.mktemp("status"))
    (directory / "failing.py").write_text(FAILING)
    text = (directory / "bots.yaml").read_text()
    text = text.replace("      - plugins.help ", "      - failing\n      - plugins.help ")
    (directory / "bots.yaml").write_text(f"{text}\nserver: {{listen: '127.0.0.1:0'}}\n")
    running = Site(directory, home=tmp_path_factory.mktemp("home_of_status"))
    running.directory = directory
    running.event("daemon.started")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while running.get("/readyz")[0] != 200 and time.monotonic() < deadline:
        time.sleep(0.05)  # no line of the log says that a bot's loops run
    yield running
    running.close()


def test_a_running_daemon_is_healthy_and_ready_and_says_that_it_is_the_emulator(site: Site) -> None:
    assert site.get("/healthz") == (200, '{"is_healthy":true,"missed":{}}')
    assert site.get("/readyz") == (200, '{"is_ready":true,"unready":[],"is_emulator":true}')
    assert site.event("status.served")["address"].startswith("http://127.0.0.1:")


def test_status_and_metrics_show_a_failure_without_its_text(site: Site, chat: Chat) -> None:
    chat(site.directory, "--as", "Ann", "--wait", "1s", typed="hello\n/fail\n")
    site.event("event.dead_lettered")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while '"dead_letters":1' not in site.get("/status")[1] and time.monotonic() < deadline:
        time.sleep(0.05)  # it is said before it is committed

    code, text = site.get("/status")
    _, metrics = site.get("/metrics")

    bots = {bot["name"]: bot for bot in json.loads(text)["bots"]}
    assert code == 200
    assert [one["error"] for one in bots["helpdesk"]["last_failures"]] == ["ValueError"]
    assert bots["helpdesk"]["dead_letters"] == 1
    assert bots["echo"]["threads"] == 1
    assert "secret" not in text + metrics
    assert 'chatbot_dead_letters{bot="helpdesk"} 1.0' in metrics
    assert 'chatbot_handler_seconds_count{bot="helpdesk",handler="failing.fail",outcome="failed"} 1.0' in metrics
    assert 'chatbot_service_calls_total{bot="echo",operation="send_message",outcome="ok"}' in metrics
    assert "process_resident_memory_bytes" in metrics


def test_the_command_shows_the_same_to_people_and_programs(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(site.directory / "bots.yaml")

    assert main(["status", file]) == 0
    shown = capsys.readouterr().out
    assert main(["status", file, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)

    assert f"process {site.process.pid}" in shown
    assert "healthy, ready" in shown
    assert "on the emulator" in shown
    assert [line.split()[0] for line in shown.splitlines() if line.startswith(("echo", "helpdesk"))][:2] == [
        "echo",
        "helpdesk",
    ]
    assert found["pid"] == site.process.pid


def test_where_nothing_runs_status_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path / "bots.yaml")]) == 69

    assert f"no bots run in {tmp_path}; start them with `chatbot run`" in capsys.readouterr().err


def test_a_taken_port_ends_the_start_with_its_place(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "small.py").write_text("from chatbot import Plugin\nplugin = Plugin('small')\n")
    port = site.event("status.served")["address"].rpartition(":")[2]
    (tmp_path / "bots.yaml").write_text(
        f"version: 1\nservice: emulator\nbots: {{small: {{plugins: [small]}}}}\nserver: {{listen: {port}}}\n"
    )

    assert main(["run", "--log-format", "json"]) == 69

    (problem,) = [
        line["problem"] for line in map(json.loads, capsys.readouterr().err.splitlines()) if "problem" in line
    ]
    assert problem.startswith(f"bots.yaml:4:18: server.listen: nobody can listen at 127.0.0.1:{port}: ")


def test_silent_connections_take_no_page_away(site: Site) -> None:
    port = int(site.event("status.served")["address"].rpartition(":")[2])
    with ExitStack() as held:
        for _ in range(70):
            held.enter_context(socket.create_connection(("127.0.0.1", port)))

        assert [site.get(page)[0] for page in ("/healthz", "/readyz", "/metrics", "/status")] == [200] * 4


def test_a_handler_that_blocks_the_event_loop_is_named_by_its_line(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(site.directory / "bots.yaml")
    command = [sys.executable, "-m", "chatbot", "chat", file, "--as", "Ann", "--wait", "1s"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as talk:
        assert talk.stdin is not None
        talk.stdin.write(b"/block\n")
        talk.stdin.close()
        try:
            place = site.event("loop.blocked")["at"]
            code, said = main(["status", file]), capsys.readouterr().err
            pages = {page: site.get(page) for page in ("/healthz", "/readyz", "/status", "/metrics")}
        finally:
            (site.directory / "go").touch()

    assert place.startswith("time.sleep in failing.py:15 (block)")
    assert code == 69, said
    assert "the process does not answer: its event loop is blocked by time.sleep in failing.py:15 (block)" in said
    assert pages["/healthz"] == (200, '{"is_healthy":true,"missed":{}}')
    assert [pages[page][0] for page in ("/readyz", "/status", "/metrics")] == [503] * 3
    assert all(place in pages[page][1] for page in ("/readyz", "/status", "/metrics"))
    site.event("loop.unblocked")
    assert main(["status", file]) == 0
