"""Talking to running bots from a second terminal: through a pipe, and through a real terminal."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chatbot.cli import main
from tests.cli.conftest import PATIENCE, Chat, Demo, Run, copy_of_the_clone
from tests.cli.resource import Azure


def test_through_a_pipe_people_send_see_answers_receipts_and_leave(demo: Demo, chat: Chat) -> None:
    talk = chat(demo.directory, "--as", "Ann", typed="hi\n/help\n\x1b[31mred [bold]x\nlast, without newline")

    assert talk.code == 0
    assert talk.err == ""
    lines = talk.out.splitlines()
    assert {"Help desk: Welcome, Ann!", "Ann: hi", "Echo: hi", "Echo: last, without newline"} <= set(lines)
    assert "Echo: \\x1b[31mred [bold]x" in lines
    assert any(line.startswith("Help desk: /help") for line in lines)
    assert {"✓ read by Echo", "✓ read by Help desk"} <= set(lines)
    assert talk.out.replace("\n", "").isprintable()


def test_the_same_name_is_the_same_user_and_threads_can_be_chosen(demo: Demo, chat: Chat) -> None:
    first = chat(demo.directory, "--as", "Cleo", "--new", "About x", typed="one\n").out

    listed = chat(demo.directory, "--as", "Cleo", "--list").out
    again = chat(demo.directory, "--as", "Cleo", "--thread", listed.split()[0]).out

    assert "Echo: one" in first
    assert re.fullmatch(r"19:\S+@thread\.v2  About x\n", listed)
    assert "Cleo: one" in again


def test_a_thread_without_the_user_and_the_bot_is_refused(demo: Demo, chat: Chat) -> None:
    refused = chat(demo.directory, "--as", "Bob", "--thread", "19:" + "x" * 43 + "1@thread.v2")

    assert refused.code == 69
    assert "Bob is not in this thread, and none of the running bots could add them" in refused.err


def test_without_running_bots_the_command_to_start_them_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["chat"]) == 69

    sentence = f"chatbot: no bots run in {tmp_path}; start them with `chatbot run` in another terminal\n"
    assert capsys.readouterr().err == sentence


def test_on_a_terminal_the_prompt_stays_below_what_arrives(demo: Demo) -> None:
    terminal = Terminal(demo.directory, "chat", "--as", "Ann")
    terminal.expect("Ann> ")

    terminal.type(b"helo\x7flo\r")
    terminal.expect("Ann: \x1b[0mhello")
    terminal.type(b"half a line")
    terminal.expect("Echo: \x1b[0mhello")
    terminal.expect("Ann> half a line")
    terminal.type(b"\x15\x04")

    assert terminal.ended() == 0


def test_at_the_prompt_people_change_stories_are_read_and_faults_and_time_are_at_hand(demo: Demo) -> None:
    terminal = Terminal(demo.directory, "chat", "--as", "Ann", "--new", "Tools")
    terminal.expect("Ann> ")
    terminal.type(b"hi there\r")
    terminal.expect("Echo: \x1b[0mhi there")

    terminal.type(b"/inspect\r")
    terminal.expect("Echo hi there: handled")
    terminal.expect("  handler plugins.echo.echo, plugins/echo.py:")
    terminal.expect("  action SendMessage: content=hi there")
    terminal.expect("  called send_message")
    terminal.expect("  not echo.echo_command: the message does not begin with /echo")

    terminal.type(b"/as Ben\r")
    terminal.expect("you are Ben")
    terminal.expect("Ben> ")
    terminal.type(b"//as I was saying\r")
    terminal.expect("Ben: \x1b[0m/as I was saying")
    terminal.expect("Echo: \x1b[0m/as I was saying")

    terminal.type(b"/fault send_message:503,times=1,user=echo\r")
    terminal.expect("faults in force: send_message:503,times=1,user=Echo")
    terminal.type(b"/fault off\r")
    terminal.expect("faults no fault is in force")
    terminal.type(b"/fault nonsense\r")
    terminal.expect("write OPERATION:KIND")
    terminal.type(b"/advance soon\r")
    terminal.expect("write for example /advance 1h")
    terminal.type(b"/advance 1s\r")
    terminal.expect("clock advanced by 1s")
    terminal.type(b"/help\r")
    terminal.expect("here /as NAME")
    terminal.expect("Help desk: ")
    terminal.type(b"\x04")
    assert terminal.ended() == 0

    later = Terminal(demo.directory, "chat", "--as", "Ann")
    later.expect("Ann> ")
    later.type(b"\x1b[A\x1b[A")
    later.expect("Ann> /advance 1s")
    later.type(b"\x15\x04")
    assert later.ended() == 0
    history = demo.directory / ".chatbot" / "chat_history.json"
    assert "hi there" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_on_azure_nothing_typed_is_stored_and_the_tools_are_refused(resource: Azure, tmp_path: Path, run: Run) -> None:
    resource.bots_yaml(tmp_path)
    run(tmp_path).event("daemon.started")
    terminal = Terminal(tmp_path, "chat", "--as", "Ann")
    terminal.expect("Ann> ")
    terminal.type(b"secret words\r")
    terminal.expect("Parrot: \x1b[0msecret words!")
    for tool in (b"/inspect", b"/fault *:503", b"/advance 1h"):
        terminal.type(tool + b"\r")
        terminal.expect("(not done: these bots run on Azure")
    terminal.type(b"\x1b[A" * 4)
    terminal.expect("Ann> secret words")
    terminal.type(b"\x15\x04")

    assert terminal.ended() == 0
    for file in (tmp_path / ".chatbot").glob("*.json"):
        assert "secret" not in file.read_text()


def test_ctrl_c_leaves_with_130_and_gives_the_terminal_back(demo: Demo) -> None:
    terminal = Terminal(demo.directory, "chat", "--as", "Ann")
    terminal.expect("Ann> ")

    terminal.type(b"\x03")

    assert terminal.ended() == 130


def test_the_end_of_the_bots_is_reported(tmp_path: Path, run: Run) -> None:
    bots = run(copy_of_the_clone(tmp_path))
    bots.event("daemon.started")
    terminal = Terminal(tmp_path, "chat", "--as", "Ann")
    terminal.expect("Ann> ")

    bots.stop(signal.SIGKILL)
    terminal.expect("the bots may have stopped: check the terminal of `chatbot run`")

    assert terminal.ended() == 69


ON_ITS_OWN_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # now Ctrl-C typed there is a signal here
signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell has what it starts in the background ignore it
os.execv(sys.executable, [sys.executable, "-m", "chatbot", *sys.argv[1:]])
"""


class Terminal:
    """A command on a pseudo terminal of its own, as a person would have it."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._fd, child = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", ON_ITS_OWN_TERMINAL, *arguments],
            cwd=directory,
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
        )
        os.close(child)
        self._shown = ""

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def expect(self, text: str) -> None:
        """Wait until this is shown; what was shown before it does not count again."""
        deadline = time.monotonic() + PATIENCE
        while text not in self._shown:
            ready, _, _ = select.select([self._fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} does not come; shown: {self._shown!r}"
            try:
                self._shown += os.read(self._fd, 65536).decode()
            except OSError:
                pytest.fail(f"{text!r} did not come before the end; shown: {self._shown!r}")
        self._shown = self._shown.partition(text)[2]

    def ended(self) -> int:
        try:
            return self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._fd)
