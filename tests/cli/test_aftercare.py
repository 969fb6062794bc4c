"""`chatbot dead-letters` and `chatbot state`, beside a daemon and without one."""

from __future__ import annotations

import io
import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from chatbot.cli import main
from chatbot.errors import ChatbotError
from chatbot.runtime.control_client import ask, find_daemon
from chatbot.runtime.run_directory import ControlDirectory
from tests.cli.conftest import Chat, Run, Running

PLUGIN = """
from pathlib import Path
from chatbot import Context, Plugin, Retry

plugin = Plugin("picky")

@plugin.message(retry=Retry(1))
async def answer(ctx: Context) -> str:
    if ctx.text.startswith("bad") and not Path("fixed").exists():
        raise ValueError(f"cannot digest {ctx.text}")
    return f"echo {ctx.text}"
"""
BOTS = """
version: 1
service: emulator
bots:
  picky: {plugins: [picky], apology: off, poll: {interval: 300ms}}
"""


Chatbot = Callable[..., tuple[int, str]]


@pytest.fixture
def chatbot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Chatbot:
    """Run a command, in this process, where the bots are; its exit code, and what it said."""

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        code = main(list(words))
        return code, capsys.readouterr().out

    return run


@pytest.fixture
def bots(tmp_path: Path, run: Run, chat: Chat, chatbot: Chatbot) -> Running:
    """A bot that has given up one message."""
    (tmp_path / "picky.py").write_text(PLUGIN)
    (tmp_path / "bots.yaml").write_text(BOTS)
    running = run(tmp_path)
    running.event("daemon.started")
    chat(tmp_path, "--as", "Ann", "--wait", "0s", typed="hello\nbad \x1b[2J luck\n")
    running.event("event.dead_lettered")
    while not dead_letters(chatbot):  # it is kept a moment after it was said
        pass
    return running


def dead_letters(chatbot: Chatbot) -> list[dict[str, str]]:
    code, listed = chatbot("dead-letters", "list", "--format", "json")
    assert code == 0
    found: list[dict[str, str]] = json.loads(listed)["letters"]
    return found


def test_dead_letters_are_seen_shown_and_retried_while_the_daemon_runs(
    bots: Running, tmp_path: Path, chatbot: Chatbot
) -> None:
    _, listed = chatbot("dead-letters", "list")
    (letter,) = dead_letters(chatbot)
    _, shown = chatbot("dead-letters", "show", letter["id"])

    head = ["ID", "BOT", "DIED", "(UTC)", "TRIES", "EVENT", "HANDLER", "ERROR", "THREAD"]
    assert listed.splitlines()[0].split() == head
    assert letter["id"] in listed
    assert "ValueError" in listed
    assert "luck" not in listed
    assert "luck" not in json.dumps(letter)
    assert "text     bad \\x1b[2J luck\n" in shown
    assert "error    ValueError: cannot digest bad \\x1b[2J luck\n" in shown
    assert "\x1b" not in shown

    (tmp_path / "fixed").touch()
    code, retried = chatbot("dead-letters", "retry", letter["id"])
    bots.event("dead_letter.retried", letter=letter["id"])

    assert code == 0
    assert retried.endswith("is retried now\n")
    assert chatbot("dead-letters", "list") == (0, "No dead letters.\n")


HOSTILE = [
    "hunter2",
    "hunter2\nhunter2\r\x1b[31mhunter2\u2028\u202e",
    '"}\n{"event": "hunter2"} %s {0}',
    "hunter2 \udce9",
]


def test_words_in_questions_to_the_daemon_reach_neither_its_log_nor_a_terminal_unescaped(
    bots: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, shown = str(tmp_path / "bots.yaml"), ""
    address = find_daemon(ControlDirectory(tmp_path), tmp_path / "bots.yaml")
    assert address is not None
    for words in HOSTILE:
        for command in (
            ("dead-letters", "show", words, file),
            ("dead-letters", "retry", words, file),
            ("dead-letters", "list", file, "--bot", words),
            ("state", "forget", words, file, "--yes"),
            ("send", words, "hello", file),
        ):
            assert main(list(command)) in (2, 69), command
        shown += "".join(capsys.readouterr())
        for question in ({"ask": words}, {"ask": "unsent", "thread": words}, {"ask": "state forget", "user": [words]}):
            with suppress(ChatbotError):
                anyio.run(ask, address, question)
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(address.path)
            raw.sendall(json.dumps(words).encode() + b"\n" + words.encode(errors="replace") + b"\n")
            raw.recv(4096)

    assert bots.stop() == 0
    assert "hunter2" not in "".join(bots.lines)
    assert not [line for line in shown.splitlines() if not line.isprintable()]


@pytest.mark.chaos  # two starts
def test_a_dead_letter_marked_while_no_daemon_runs_is_retried_at_the_next_start(
    bots: Running, tmp_path: Path, run: Run, chatbot: Chatbot
) -> None:
    assert bots.stop() == 0
    (letter,) = dead_letters(chatbot)

    code, retried = chatbot("dead-letters", "retry", "all", "--bot", "picky")

    assert code == 0
    assert retried.endswith("will be retried at the next start\n")
    assert "(to be retried)" in chatbot("dead-letters", "list")[1]
    (tmp_path / "fixed").touch()
    run(tmp_path).event("dead_letter.retried", letter=letter["id"])


def test_a_dead_letter_is_dropped_with_and_without_a_daemon(bots: Running, chatbot: Chatbot) -> None:
    (letter,) = dead_letters(chatbot)

    assert chatbot("dead-letters", "drop", letter["id"])[1].endswith("is deleted\n")
    assert dead_letters(chatbot) == []
    assert bots.stop() == 0
    assert dead_letters(chatbot) == []
    assert chatbot("dead-letters", "drop", "all") == (0, "No dead letters.\n")


def test_a_user_is_erased_while_the_daemon_runs(bots: Running, tmp_path: Path, chatbot: Chatbot) -> None:
    (letter,) = dead_letters(chatbot)
    ann: str = json.loads(chatbot("dead-letters", "show", letter["id"], "--format", "json")[1])["sender"]

    assert chatbot("state", "forget", ann) == (0, f"{ann} is erased: 2 records changed or deleted.\n")

    assert dead_letters(chatbot) == []
    assert chatbot("state", "forget", ann) == (0, f"Nothing about {ann} is stored.\n")
    assert bots.stop() == 0
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("chatbot.db*"))
    assert ann.encode() not in kept
    assert b"hello" not in kept


@pytest.mark.chaos  # two starts
def test_after_a_kill_commands_read_the_store_and_reach_the_next_daemon(
    bots: Running, tmp_path: Path, run: Run, chatbot: Chatbot
) -> None:
    bots.process.kill()
    bots.ended()

    (letter,) = dead_letters(chatbot)

    (tmp_path / "fixed").touch()
    again = run(tmp_path)
    again.event("bot.started")  # it knows its threads from here on
    assert chatbot("dead-letters", "retry", letter["id"])[1].endswith("is retried now\n")
    again.event("dead_letter.retried")


def test_a_bot_is_paused_and_resumed_while_the_daemon_runs_and_over_a_restart(
    bots: Running, tmp_path: Path, run: Run, chat: Chat, chatbot: Chatbot
) -> None:
    def status() -> dict[str, object]:
        code, shown = chatbot("status", "--format", "json")
        assert code == 0
        (bot,) = json.loads(shown)["bots"]
        return dict(bot)

    assert chatbot("pause", "picky")[1].startswith("picky is paused; ")
    assert status()["paused_seconds"] is not None
    assert "picky: PAUSED for" in chatbot("status")[1]
    assert bots.stop() == 0

    assert chatbot("pause", "picky") == (0, "picky is paused already.\n")
    again = run(tmp_path)
    again.event("bot.paused", bot="picky")
    again.event("daemon.started")
    assert chatbot("resume", "picky", "--config", "bots.yaml") == (0, "picky is resumed.\n")
    again.event("bot.started", bot="picky")
    asked = again.event("command.answered", command="resume", bot="picky", outcome="done")
    assert (asked["uid"], asked["pid"]) == (os.geteuid(), os.getpid())
    assert status()["paused_seconds"] is None
    assert chatbot("resume", "picky", "--skip")[0] == 69
    assert chatbot("pause", "hunter2")[0] == 2
    refused = again.event("command.answered", command="pause", outcome="UnknownName")
    assert "bot" not in refused
    assert "echo hello" in chat(tmp_path, "--as", "Ann", typed="hello\n").out
    assert again.stop() == 0


@pytest.mark.chaos  # three starts
def test_a_limited_run_stops_in_order_and_says_if_something_was_left(tmp_path: Path, run: Run) -> None:
    (tmp_path / "picky.py").write_text(PLUGIN)
    (tmp_path / "bots.yaml").write_text(BOTS)

    assert run(tmp_path, "--once", "--for", "1m").ended() == 0
    limited = run(tmp_path, "--for", "10ms")
    assert limited.ended() == 0
    assert limited.event("daemon.limit_reached")
    assert run(tmp_path, "--once", "--for", "0s").ended() == 75


def test_on_a_terminal_what_cannot_be_undone_is_asked_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = io.StringIO("n\nyes\n\n")
    monkeypatch.setattr(typed, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", typed)

    assert main(["dead-letters", "drop", "all"]) == 2
    assert main(["dead-letters", "drop", "all"]) == 0
    assert main(["state", "forget", "8:acs:ann"]) == 2
    assert main(["state", "forget", "8:acs:ann", "--yes"]) == 0

    asked = capsys.readouterr().err
    assert "Delete all dead letters? They cannot be retried any more. [y/N]" in asked
    assert "Erase everything that the bots have stored about 8:acs:ann?" in asked
    assert asked.count("Canceled; nothing was changed.") == 2


# ── in this process ───────────────────────────────────────────────────────────────────────────────────────────


PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"


def commands_for_an_incident() -> list[list[str]]:
    """What the documentation says to type in an incident, line by line."""
    chapter = PAGE.read_text(encoding="utf-8").split("\n## Commands for an incident\n")[1].split("\n## ")[0]
    block = chapter.split("```sh\n")[1].split("```")[0]
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def test_the_commands_for_an_incident_can_be_typed_as_the_readme_has_them(
    bots: Running, tmp_path: Path, chatbot: Chatbot
) -> None:
    (letter,) = dead_letters(chatbot)
    ann: str = json.loads(chatbot("dead-letters", "show", letter["id"], "--format", "json")[1])["sender"]
    named = {"3f2a1b9c0d": letter["id"], "8:acs:…": ann}

    typed = []
    for program, *words in commands_for_an_incident():
        assert program == "chatbot"
        own = [named.get(word, word) for word in words if word != "--watch"]  # which would not end
        # These bots keep their store in a file, which no other process can share.
        assert (chatbot(*own)[0], own) == (69 if own[0] == "cluster" else 0, own)
        typed.append(" ".join(own[:2]))
        while own[1:2] == ["retry"] and not dead_letters(chatbot):  # it is given up once more
            pass

    assert typed[:3] == ["status", "doctor", "dead-letters list"]
    assert "reload" in typed
    assert dead_letters(chatbot) == []
    assert bots.stop() == 0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bots.yaml").write_text(BOTS)
    return tmp_path


def test_looking_where_nothing_was_ever_kept_makes_no_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dead-letters", "list"]) == 0

    assert capsys.readouterr().out == "No dead letters.\n"
    assert [path.name for path in folder.iterdir()] == ["bots.yaml"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["dead-letters", "show", "nope"], "there is no dead letter 'nope'; `chatbot dead-letters list` shows all"),
        (["dead-letters", "list", "--bot", "nope"], "the store knows no bot 'nope'; it knows: none"),
        (["state", "forget", "Ann"], "'Ann' is not a user's id: expected one like 8:acs:…"),
    ],
)
def test_a_name_that_nothing_has_is_a_mistake_of_usage(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert main(words) == 2

    assert capsys.readouterr().err.startswith(f"chatbot: {sentence}")


def test_a_store_that_somebody_else_has_open_is_said_in_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holder = "import anyio, sys; from chatbot.stores import SqliteStore\n"
    holder += (
        "async def hold():\n async with SqliteStore('chatbot.db'):\n  print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", f"{holder}anyio.run(hold)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()

        assert main(["dead-letters", "list"]) == 69

        sentence = f"is in use by another process (pid {process.pid}): stop that one first, or name another file"
        assert sentence in capsys.readouterr().err
        process.communicate("")


def test_a_directory_without_a_configuration_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["dead-letters", "list"]) == 78

    assert "bots.yaml: there is no such file" in capsys.readouterr().err
