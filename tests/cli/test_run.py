"""The daemon as a process: what it logs, what it leaves behind, how it stops."""

import json
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from chatbot.cli import main
from chatbot.runtime.forced_exit import SAME_STOP_SECONDS
from tests.cli.conftest import PATIENCE, Chat, Demo, Run, Running, copy_of_the_clone

SLOW_PLUGIN = """
import anyio
from chatbot import Context, Plugin, ThreadJoined

plugin = Plugin("slow")

@plugin.on(ThreadJoined)
async def settle_in(ctx: Context[ThreadJoined]) -> str:
    ctx.log.info("handler.begun")
    await anyio.sleep(600)
    return "done"
"""
SLOW_BOTS = """\
version: 1
service: emulator
store: "memory:"
drain_timeout: {drain_timeout}
bots:
  slow: {{plugins: [slow], poll: {{interval: 300ms}}}}
"""


def test_the_first_start_creates_bots_and_lobby_and_says_so_line_by_line(demo: Demo) -> None:
    bots = demo.bots
    emulator = bots.event("emulator.started")
    users = {name: bots.event("bot.started", bot=name)["user_id"] for name in ("echo", "helpdesk")}
    control = demo.directory / ".chatbot"
    published = json.loads((control / "run.json").read_text())

    assert emulator["level"] == "warning"
    assert emulator["endpoint"].startswith("https://127.0.0.1:")
    assert published["connection_string"].startswith(f"endpoint={emulator['endpoint']}/;accesskey=")
    assert Path(emulator["ca_file"]).is_relative_to(demo.home)
    assert all(user.startswith("8:acs:") for user in users.values())
    assert published["pid"] == bots.process.pid
    assert published["endpoint"].startswith("http://127.0.0.1:")
    key = published["connection_string"].partition("accesskey=")[2]
    assert emulator["connection_string"] == f"endpoint={emulator['endpoint']}/;accesskey={key[:4]}…"
    assert key not in "".join(bots.lines)
    assert {bot["name"]: bot["user_id"] for bot in published["bots"]} == users
    assert published["lobby"].startswith("19:")
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (control, *control.glob("*.json"))} == {0}


def test_a_restarted_demo_goes_on_where_it_was_after_either_signal(tmp_path: Path, run: Run, chat: Chat) -> None:
    copy_of_the_clone(tmp_path)
    starts, talks = [], []
    for word, number in (("before", signal.SIGINT), ("after", signal.SIGTERM)):
        bots = run(tmp_path)
        bots.event("daemon.started")
        published = json.loads((tmp_path / ".chatbot" / "run.json").read_text())
        starts.append([published["connection_string"], bots.event("bot.started")["user_id"]])
        talks.append(chat(tmp_path, "--as", "Ann", typed=f"{word}\n").out)
        assert bots.stop(number) == 0
        assert all(isinstance(json.loads(line), dict) for line in bots.lines)

    assert {json.loads(line)["event"] for line in bots.lines}.isdisjoint({"bot.created", "lobby.created"})
    assert starts[0][0] == starts[1][0]
    assert starts[0][1] in {json.loads(line).get("user_id") for line in bots.lines}
    assert "Echo: before" in talks[0]
    assert [talks[1].count(f"Echo: {word}") for word in ("before", "after")] == [1, 1]
    assert not (tmp_path / ".chatbot" / "run.json").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop does not exist for Windows")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_bots_answer_and_stop_on_either_event_loop(
    loop: str, tmp_path: Path, run: Run, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATBOT_EVENT_LOOP", loop)
    bots = run(copy_of_the_clone(tmp_path))

    assert bots.event("daemon.started")["event_loop"] == loop
    assert "Echo: good day" in chat(tmp_path, typed="good day\n").out
    assert bots.stop() == 0


def test_with_the_variable_set_the_same_file_runs_on_a_real_endpoint(
    demo: Demo, tmp_path: Path, run: Run, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = demo.bots.event("emulator.started")
    published = json.loads((demo.directory / ".chatbot" / "run.json").read_text())
    monkeypatch.setenv("ACS_CONNECTION_STRING", published["connection_string"])
    with (copy_of_the_clone(tmp_path) / "bots.yaml").open("a") as file:
        file.write(f"\nca_file: {service['ca_file']}\n")

    bots = run(tmp_path)
    bots.event("daemon.started")
    talk = chat(tmp_path, "--as", "Ann", typed="hello\n").out

    assert bots.stop() == 0
    assert "Echo: hello" in talk
    assert "emulator.started" not in {json.loads(line)["event"] for line in bots.lines}
    assert not (tmp_path / ".chatbot" / "emulator.db").exists()


def test_bots_on_a_real_resource_have_no_playground(
    demo: Demo, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service = demo.bots.event("emulator.started")
    published = json.loads((demo.directory / ".chatbot" / "run.json").read_text())
    monkeypatch.setenv("ACS_CONNECTION_STRING", published["connection_string"])
    with (copy_of_the_clone(tmp_path) / "bots.yaml").open("a") as file:
        file.write(f"\nca_file: {service['ca_file']}\nemulator: {{playground: true}}\n")

    bots = run(tmp_path)
    bots.event("daemon.started")
    assert bots.stop() == 0

    assert "playground.served" not in {json.loads(line)["event"] for line in bots.lines}
    assert not (tmp_path / ".chatbot" / "playground.json").exists()
    assert main(["run", str(tmp_path / "bots.yaml"), "--playground"]) == 78
    assert "the playground belongs to the emulator; leave out --playground" in capsys.readouterr().err


def test_a_second_daemon_in_the_same_directory_is_refused(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(demo.directory)  # undone afterwards, which loading a plugin does not do

    assert main(["run", str(demo.directory / "bots.yaml"), "--log-format", "console"]) == 69

    sentence = f"process {demo.bots.process.pid} already runs the bots of this directory; stop it first"
    assert sentence in capsys.readouterr().err


@pytest.fixture
def slow(tmp_path: Path, run: Run) -> Callable[[str], Running]:
    """A daemon whose one handler is at work, and will be for a minute."""

    def start(drain_timeout: str) -> Running:
        (tmp_path / "slow.py").write_text(SLOW_PLUGIN)
        (tmp_path / "bots.yaml").write_text(SLOW_BOTS.format(drain_timeout=drain_timeout))
        bots = run(tmp_path)
        bots.event("handler.begun")
        return bots

    return start


def test_a_stop_waits_for_handlers_until_the_drain_timeout(slow: Callable[[str], Running]) -> None:
    bots = slow("500ms")

    assert bots.stop() == 0

    assert bots.event("bots.cut")["bots"] == ["slow"]


def test_a_second_signal_stops_now_and_says_that_it_was_not_in_order(slow: Callable[[str], Running]) -> None:
    bots = slow("1h")
    bots.process.send_signal(signal.SIGTERM)
    bots.event("daemon.stop_requested")

    assert stopped_by_further_signals(bots) == 1

    assert bots.event("daemon.cut")["signal"] == "SIGTERM"


def stopped_by_further_signals(bots: Running) -> int:
    """Send signals until one comes late enough not to be the first one's twin; returns the exit code."""
    while bots.process.poll() is None:
        bots.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            bots.process.wait(SAME_STOP_SECONDS)
    return bots.ended()


def test_two_signals_at_once_are_one_request(slow: Callable[[str], Running]) -> None:
    bots = slow("500ms")
    bots.process.send_signal(signal.SIGTERM)
    bots.process.send_signal(signal.SIGTERM)

    assert bots.ended() == 0

    assert "daemon.cut" not in {json.loads(line)["event"] for line in bots.lines}


STUBBORN_PLUGIN = """
import re, threading, time
import anyio
import structlog
from chatbot import Context, Plugin, ThreadJoined

plugin = Plugin("slow")

@plugin.on(ThreadJoined)
async def hang(ctx: Context[ThreadJoined]) -> str:
    ctx.log.info("handler.begun")
{body}
"""
STUBBORN = {
    "waits in a thread": "    await anyio.to_thread.run_sync(time.sleep, 600)",
    "blocks the event loop": "    time.sleep(600)",
    "holds the GIL": '    re.match(r"(a+)+$", "a" * 60 + "b")',
    "swallows its cancellation": (
        "    while True:\n        try:\n            await anyio.sleep(600)\n"
        "        except BaseException:\n            ctx.log.info('handler.swallowed')"
    ),
    "leaves a thread behind": "    threading.Thread(target=time.sleep, args=(600,)).start()",
    "leaves a task behind that cannot be cancelled": (
        "    async def orphan():\n        while True:\n            try:\n                await anyio.sleep(600)\n"
        "            except BaseException:\n                ctx.log.info('orphan.swallowed')\n"
        "    import asyncio\n    plugin.orphan = asyncio.get_running_loop().create_task(orphan())"
    ),
}


@pytest.mark.parametrize("body", STUBBORN.values(), ids=STUBBORN.keys())
def test_a_stop_ends_after_the_drain_timeout_whatever_a_handler_does(body: str, tmp_path: Path, run: Run) -> None:
    bots = hanging(body, "0s", tmp_path, run)

    assert bots.stop() == 1


@pytest.mark.parametrize("kind", ["blocks the event loop", "swallows its cancellation"])
def test_a_second_signal_ends_a_stop_whatever_a_handler_does(kind: str, tmp_path: Path, run: Run) -> None:
    bots = hanging(STUBBORN[kind], "1h", tmp_path, run)

    assert stopped_by_further_signals(bots) == 1


def hanging(body: str, drain_timeout: str, directory: Path, run: Run) -> Running:
    """A daemon with a handler that does not end."""
    (directory / "slow.py").write_text(STUBBORN_PLUGIN.format(body=body))
    (directory / "bots.yaml").write_text(SLOW_BOTS.format(drain_timeout=drain_timeout))
    bots = run(directory)
    bots.event("handler.begun")
    return bots


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_plugins_are_imported_ends_the_start(number: signal.Signals, tmp_path: Path, run: Run) -> None:
    (tmp_path / "slow.py").write_text(
        'import sys, time\nprint(\'{"event": "import.begun"}\', file=sys.stderr, flush=True)\nwhile True:\n'
        "    try:\n        time.sleep(600)\n    except BaseException:\n        pass\n"
    )
    (tmp_path / "bots.yaml").write_text(SLOW_BOTS.format(drain_timeout="1h"))
    bots = run(tmp_path)
    bots.event("import.begun")

    assert bots.stop(number) == 0

    assert bots.event("daemon.stop_requested")["signal"] == number.name


SMALL_PLUGIN = "from chatbot import Plugin\nplugin = Plugin('small')\n"


@pytest.fixture
def refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """Start a bot, in this process, whose settings cannot work out; returns the one problem that it logs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "small.py").write_text(SMALL_PLUGIN)

    def start(settings: str) -> str:
        (tmp_path / "bots.yaml").write_text(f"version: 1\nbots: {{small: {{plugins: [small]}}}}\n{settings}\n")
        assert main(["run", "--log-format", "json"]) == 69
        (line,) = map(json.loads, capsys.readouterr().err.splitlines())
        assert "exception" not in line
        problem: str = line["problem"]
        return problem

    return start


def test_a_port_that_is_taken_is_refused_where_it_is_asked_for(demo: Demo, refusal: Callable[[str], str]) -> None:
    port = demo.bots.event("emulator.started")["endpoint"].rpartition(":")[2]

    problem = refusal(f"service: emulator\nemulator: {{port: {port}}}")

    assert problem.startswith(
        f"bots.yaml:4:18: emulator.port: port {port} is in use; free it, or configure another one"
    )


def test_an_endpoint_that_nobody_answers_ends_the_start(refusal: Callable[[str], str]) -> None:
    problem = refusal("service: endpoint=https://localhost:1;accesskey=c2VjcmV0")

    assert problem.startswith("bots.yaml:3:10: service: cannot create a user: the service cannot be reached")
    assert "; check the endpoint, this machine's network and its proxy\n" in problem


def test_a_key_that_is_refused_ends_the_start_and_is_not_shown(demo: Demo, refusal: Callable[[str], str]) -> None:
    endpoint = json.loads((demo.directory / ".chatbot" / "run.json").read_text())["endpoint"]

    problem = refusal(f"service: endpoint={endpoint};accesskey=c2VjcmV0")

    assert problem.startswith("bots.yaml:3:10: service: cannot create a user: the service answered 401")
    assert "; copy the resource's connection string again, and check this machine's clock\n" in problem
    assert "c2VjcmV0" not in problem


def test_a_stop_ends_a_start_that_waits_for_a_silent_service(tmp_path: Path, run: Run) -> None:
    (tmp_path / "small.py").write_text(SMALL_PLUGIN)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        (tmp_path / "bots.yaml").write_text(
            f"version: 1\nbots: {{small: {{plugins: [small]}}}}\nservice: endpoint={endpoint};accesskey=c2VjcmV0\n"
        )
        bots = run(tmp_path)
        silent.settimeout(PATIENCE)
        connection, _ = silent.accept()

        with connection:
            assert bots.stop() == 0

    assert [json.loads(line)["event"] for line in bots.lines] == ["daemon.stop_requested"]
