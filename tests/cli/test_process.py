"""The daemon under a supervisor, and as one run of many: systemd, cron, CI."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from chatbot.cli import main
from tests.cli.conftest import PATIENCE, Demo, Run, copy_of_the_clone
from tests.cli.person import heard, say, service_of


@pytest.fixture
def ear(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket of a supervisor, as systemd has it, in the environment of what is started now."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path_factory.mktemp("run") / "notify"))
        listening.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", listening.getsockname())
        yield listening


def heard_from(ear: socket.socket, *ignored: bytes) -> list[str]:
    """The next datagram, by lines, that is none of these."""
    while (heard := ear.recv(1000)) in ignored:
        pass
    return heard.decode().splitlines()


def test_systemd_is_notified_of_ready_then_watchdog_then_stopping(
    ear: socket.socket, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    bots = run(copy_of_the_clone(tmp_path))

    assert ear.recv(1000) == b"READY=1\nSTATUS=Running 2 bots"
    assert [ear.recv(1000) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    bots.process.send_signal(signal.SIGTERM)

    assert heard_from(ear, b"WATCHDOG=1")[0] == "STOPPING=1"
    assert bots.ended() == 0


def test_systemd_is_notified_of_the_begin_and_end_of_each_reload_also_if_it_was_refused(
    ear: socket.socket, tmp_path: Path, run: Run
) -> None:
    bots = run(copy_of_the_clone(tmp_path))
    assert heard_from(ear)[0] == "READY=1"
    file = tmp_path / "bots.yaml"
    right = file.read_text()

    told = []
    for text in (right.replace("  echo:", "  parrot:"), "version: 2\n"):
        file.write_text(text)
        asked_usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        bots.process.send_signal(signal.SIGHUP)
        reloading, monotonic, _status = heard_from(ear)
        told += [reloading, *heard_from(ear)]
        name, _, usec = monotonic.partition("=")
        assert (name, int(usec) >= asked_usec) == ("MONOTONIC_USEC", True)

    assert told == [
        "RELOADING=1",
        "READY=1",
        "STATUS=Running 2 bots; reloaded",
        "RELOADING=1",
        "READY=1",
        "STATUS=Running 2 bots; the last reload was refused: see the log",
    ]
    assert bots.stop() == 0
    assert heard_from(ear)[0] == "STOPPING=1"


def test_once_ends_by_itself_and_is_not_reloaded(demo: Demo, tmp_path: Path, run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # so that it does not end yet
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        (tmp_path / "flaky.py").write_text(FLAKY)
        (tmp_path / "bots.yaml").write_text(
            f"version: 1\nservice: endpoint={endpoint};accesskey=c2VjcmV0\nbots: {{one: {{plugins: [flaky]}}}}\n"
        )
        bots = run(tmp_path, "--once")
        silent.settimeout(PATIENCE)
        connection, _ = silent.accept()
        with connection:
            bots.process.send_signal(signal.SIGHUP)
            assert bots.event("reload.ignored")["signal"] == "SIGHUP"
            assert bots.stop() == 0


FLAKY = """
from chatbot import Context, Plugin, Retry

plugin = Plugin("flaky")
tries = 0

@plugin.message(retry=Retry(3))
async def answer(ctx: Context) -> str:
    global tries
    tries += 1
    if tries == 1:
        raise ValueError("not yet")
    return f"{ctx.text}, at try {tries}"
"""


def test_once_handles_what_is_waiting_second_tries_included_and_ends_by_itself(
    demo: Demo, tmp_path: Path, run: Run
) -> None:
    service = service_of(demo)
    (tmp_path / "flaky.py").write_text(FLAKY)
    (tmp_path / "bots.yaml").write_text(f"version: 1\nservice: {service}\nbots: {{one: {{plugins: [flaky]}}}}\n")

    first = run(tmp_path, "--once")
    bot = first.event("bot.started")["user_id"]
    assert first.ended() == 0
    thread = anyio.run(say, service, bot, "hello", "again")
    second = run(tmp_path, "--once")

    assert second.ended() == 0
    assert anyio.run(heard, service, bot, thread) == ["hello, at try 2", "again, at try 3"]
    assert {json.loads(line)["event"] for line in second.lines} >= {"handler.failed", "daemon.finished", "bot.stopped"}


def test_a_terminal_that_is_gone_before_the_greeting_does_not_end_the_bots(tmp_path: Path) -> None:
    copy_of_the_clone(tmp_path)
    terminal, inner = pty.openpty()
    os.close(terminal)
    command = [sys.executable, "-m", "chatbot", "run", "--once", "--log-format", "console"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=inner, stderr=subprocess.PIPE, text=True) as bots:
        os.close(inner)
        _, log = bots.communicate(timeout=PATIENCE)

    assert bots.returncode == 0, log
    assert "daemon.finished" in log


def test_a_canary_is_refused_where_no_other_process_can_share_the_store_and_where_a_run_ends_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copy_of_the_clone(tmp_path))

    assert main(["run", "--canary", "5%"]) == 78
    assert "store: --canary needs a store on PostgreSQL" in capsys.readouterr().err
    monkeypatch.setenv("CHATBOT_STORE", "postgresql://127.0.0.1:1/bots")
    assert main(["run", "--canary", "5%", "--once"]) == 78
    assert "--once ends as soon as it can; leave out one of them" in capsys.readouterr().err
    assert main(["run", "--canary", "5"]) == 2
    assert "'5' is not a percentage between 0% and 100%, such as 5%" in capsys.readouterr().err
    assert not (tmp_path / ".chatbot").exists()


def test_require_azure_refuses_the_emulator_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copy_of_the_clone(tmp_path))

    assert main(["run", "--require-azure"]) == 78

    said = capsys.readouterr().err
    assert "bots.yaml:9:10: service: this is the emulator, which --require-azure refuses" in said
    assert not (tmp_path / ".chatbot").exists()
