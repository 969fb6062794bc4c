"""Every command works where its output is in another encoding, closed, or missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from chatbot.cli import main
from tests.cli.conftest import Run

BOTS = """\
version: 1
service: emulator
bots:
  bot: {display_name: "Bot \U0001f916", plugins: [robots.of_the_world]}
"""
PLUGIN = """\
from chatbot import Context, Plugin

plugin = Plugin("p")

@plugin.message()
async def answer(ctx: Context) -> str:
    return "\U0001f916 → " + ctx.text
"""
COMMANDS = (
    ["check"],
    ["check", "--format", "json"],
    ["config"],
    ["config", "--format", "json"],
    ["schema"],
    ["status"],
    ["status", "--format", "json"],
    ["doctor"],
    ["doctor", "--format", "json"],
    ["threads", "list"],
    ["identity", "show"],
    ["dead-letters", "list"],
    ["reload"],
    ["chat", "--wait", "5s"],
    ["record"],
    ["emulator", "--list-quirks"],
    ["--help"],
    ["chat", "--thread", "\U0001f916"],
    ["nonsense-\U0001f916"],
)


def in_this_process(words: Sequence[str], encoding: str, typed: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command here, with standard streams of this encoding."""
    read, write = os.pipe()
    os.write(write, typed.encode())
    os.close(write)
    out, err = BytesIO(), BytesIO()
    with open(read, encoding=encoding) as stdin, pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdin", stdin)
        patched.setattr(sys, "stdout", TextIOWrapper(out, encoding))
        patched.setattr(sys, "stderr", TextIOWrapper(err, encoding))
        code = main([*words])
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        return subprocess.CompletedProcess([*words], code, out.getvalue(), err.getvalue())


def command(directory: Path, *words: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    line = [sys.executable, "-m", "chatbot", *words]
    return subprocess.run(line, cwd=directory, capture_output=True, timeout=120, check=False, **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "robots").mkdir()
    (tmp_path / "robots" / "of_the_world.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "bots.yaml").write_text(BOTS, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("encoding", "commands"), [("cp1252", COMMANDS), ("gbk", COMMANDS[::6]), ("ascii", COMMANDS[::4])]
)
def test_every_command_writes_what_an_encoding_has_and_escapes_the_rest(
    directory: Path, run: Run, monkeypatch: pytest.MonkeyPatch, encoding: str, commands: Sequence[Sequence[str]]
) -> None:
    bots = run(directory)
    bots.event("daemon.started")
    monkeypatch.chdir(directory)
    for words in commands:
        done = in_this_process(words, encoding, "hello \U0001f916\n")

        check_written(words, done)


def test_a_command_takes_the_encoding_that_the_environment_says(directory: Path, run: Run) -> None:
    bots = run(directory)
    bots.event("daemon.started")
    words, environ = ["chat", "--wait", "5s"], {**os.environ, "PYTHONIOENCODING": "cp1252"}

    done = command(directory, *words, env=environ, input="hello \U0001f916\n".encode())

    check_written(words, done)


def check_written(words: Sequence[str], done: subprocess.CompletedProcess[bytes]) -> None:
    assert b"UnicodeEncodeError" not in done.stderr, words
    assert done.returncode != 1, (words, done.stderr)
    if "json" in words or list(words) == ["schema"]:
        assert done.stdout.isascii()
        assert json.loads(done.stdout)
    if words[0] == "record":
        assert "\U0001f916 → " in done.stdout.decode("utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors are closed by a shell of POSIX here")
@pytest.mark.parametrize(
    ("closed", "commands"),
    [(">&-", ["schema"]), ("2>&-", ["nonsense"]), (">&- 2>&-", ["status"]), ("<&- >&- 2>&-", ["schema", "nonsense"])],
)
def test_closed_streams_change_nothing_but_what_is_shown(directory: Path, closed: str, commands: Sequence[str]) -> None:
    for command in commands:
        shell = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "chatbot", command]
        done = subprocess.run(shell, cwd=directory, capture_output=True, timeout=120, check=False)

        assert done.returncode == {"schema": 0, "status": 69, "nonsense": 2}[command], (command, done.stderr)
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "gone",
    [
        "sys.stdout = sys.stderr = None",
        "sys.stdin = sys.stdout = sys.stderr = None",
        "sys.stdout.close(); sys.stderr.close()",
        "os.close(0); os.close(1); os.close(2); sys.stdin = sys.stdout = sys.stderr = None",
    ],
)
@pytest.mark.parametrize("words", [["check"], ["chat"]])
def test_commands_work_without_standard_streams(directory: Path, gone: str, words: Sequence[str]) -> None:
    """As under pythonw, or inside a service; and no file gets the number of a standard stream."""
    code = f"""
import os, sys
{gone}
from chatbot.cli import main
code = main({list(words)!r})
kept = os.open({str(directory / "bots.yaml")!r}, os.O_RDONLY)
os._exit(code if kept > 2 else 99)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=directory, capture_output=True, timeout=120, check=False)

    assert done.returncode == {"check": 0, "chat": 69}[words[0]], done


def test_bots_greet_a_terminal_of_another_encoding(directory: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    line = [sys.executable, "-m", "chatbot", "run", "--once", "--log-format", "console"]

    done = subprocess.run(line, cwd=directory, capture_output=True, timeout=120, check=False)

    assert done.returncode == 0, done.stderr
    assert rb"Bot \U0001f916" in done.stdout
