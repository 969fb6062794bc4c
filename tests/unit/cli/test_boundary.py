import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from chatbot.cli.boundary import DEBUG, guard
from chatbot.errors import (
    ChatbotError,
    ConfigError,
    PluginError,
    StateError,
    StoreInUse,
    Unauthorized,
    Unreachable,
)


def fail(error: BaseException) -> int:
    def command() -> int:
        raise error

    return guard(command)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("bad"), 78),
        (PluginError("bad"), 78),
        (Unreachable("gone"), 69),
        (Unauthorized("no"), 69),
        (StoreInUse("busy"), 69),
        (StateError("not now"), 69),
        (ExceptionGroup("tasks", [ExceptionGroup("more", [Unreachable("gone")])]), 69),
        (ChatbotError("unsorted"), 1),
    ],
)
def test_an_expected_error_is_a_sentence_and_an_exit_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail(error) == code

    written = capsys.readouterr().err
    assert written.startswith("chatbot: ")
    assert "Traceback" not in written


def test_all_problems_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    fail(ConfigError("one", "two"))

    assert capsys.readouterr().err == "chatbot: one\ntwo\n"


def test_a_crash_is_a_sentence_that_names_the_file_of_its_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    assert fail(RuntimeError("boom\nmore")) == 1

    (file,) = tmp_path.iterdir()
    assert capsys.readouterr().err == f"chatbot: crashed: RuntimeError: …; the traceback is in {file}\n"
    assert file.read_text().endswith("RuntimeError: …\n")
    assert file.stat().st_mode & 0o077 == 0


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEBUG, "1")

    assert fail(RuntimeError("boom")) == 1

    written = capsys.readouterr().err
    assert "Traceback (most recent call last)" in written
    assert written.endswith("chatbot: crashed: RuntimeError: boom\n")


def test_a_reader_who_went_away_is_no_crash(capfd: pytest.CaptureFixture[str]) -> None:
    script = """
import os, sys
from chatbot.cli.boundary import guard

def write_on():
    while True:
        print("more", flush=True)

def in_a_group():
    try:
        write_on()
    except OSError as error:
        raise ExceptionGroup("tasks", [error])

sys.exit(guard(COMMAND))
"""
    for command in ("write_on", "in_a_group"):
        writer = subprocess.Popen([sys.executable, "-c", script.replace("COMMAND", command)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.close()
        assert writer.wait(120) == 141

    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_terminal_that_went_away_does_not_keep_work_from_its_end(stream: str) -> None:
    script = """
import sys
from chatbot.cli.boundary import guard, print_text

def work():
    print_text("begun", sys.STREAM)
    print("on the way", file=sys.STREAM, flush=True)
    return 3

sys.exit(guard(work))
""".replace("STREAM", stream)
    terminal, inner = pty.openpty()
    os.close(terminal)
    with subprocess.Popen([sys.executable, "-c", script], stdout=inner, stderr=inner) as work:
        os.close(inner)

    assert work.returncode == 3


def test_what_a_plugin_says_of_its_failure_does_not_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail(PluginError("plugins/x.py:1: oh \x1b[31m no\nsecond line")) == 78

    assert capsys.readouterr().err == "chatbot: plugins/x.py:1: oh \\x1b[31m no\nsecond line\n"


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == ""
