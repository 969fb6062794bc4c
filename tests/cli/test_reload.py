"""Plugins and settings change while the bots run: by `run --reload`, by SIGHUP, by `chatbot reload`."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chatbot.cli import main
from chatbot.config import load_config
from chatbot.errors import ConfigError
from tests.cli.conftest import PATIENCE, Chat, Run, Running

PLUGIN = """
from chatbot import Context, Plugin
from reloaded.words import greeting

plugin = Plugin("reloaded")

@plugin.message()
async def answer(ctx: Context) -> str:
    return greeting + "MARK"
"""
BOTS = """\
version: 1
service: emulator
bots:
  echo: {plugins: [reloaded.bot], poll: {interval: 300ms}}
"""


def write(path: Path, text: str) -> None:
    """Put a file in the place of another in one step, as editors do."""
    path.parent.mkdir(exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


def test_files_that_change_are_taken_up_by_themselves_and_broken_ones_change_nothing(
    tmp_path: Path, run: Run, chat: Chat
) -> None:
    plugin, words = tmp_path / "reloaded" / "bot.py", tmp_path / "reloaded" / "words.py"
    write(plugin, PLUGIN.replace("MARK", "one"))
    write(words, 'greeting = "hello "\n')
    (tmp_path / "bots.yaml").write_text(BOTS)
    bots = run(tmp_path, "--reload")
    bots.event("plugins.watched")
    assert "hello one" in chat(tmp_path, typed="hi\n").out

    write(plugin, PLUGIN.replace("MARK", "two"))
    bots.event("plugins.swapped", bot="echo", changed=["bot.py"])
    assert "hello two" in chat(tmp_path, typed="hi\n").out

    write(words, "greeting = (\n")
    problem = bots.event("reload.refused")["problem"]
    assert problem.startswith("bots.yaml:4:")
    assert "words.py:1: '(' was never closed; correct the syntax" in problem
    assert "hello two" in chat(tmp_path, typed="hi\n").out

    write(words, 'greeting = "welcome "\n')
    bots.event("plugins.swapped", changed=["words.py"])
    assert "welcome two" in chat(tmp_path, typed="hi\n").out

    write(tmp_path / "bots.yaml", BOTS.replace("300ms", "400ms"))
    bots.event("reload.finished", restarted=["echo"])
    assert "welcome two" in chat(tmp_path, typed="hi\n").out

    assert bots.stop() == 0


PAIR = """\
version: 1
service: emulator
log: {level: info}
bots:
  first: {plugins: [reloaded.bot], poll: {interval: 300ms}}
  second: {plugins: [reloaded.other], poll: {interval: 300ms}}
"""


@pytest.fixture
def pair(tmp_path: Path, run: Run) -> Running:
    """Two bots that run."""
    write(tmp_path / "reloaded" / "bot.py", PLUGIN.replace("MARK", "one"))
    write(tmp_path / "reloaded" / "words.py", 'greeting = "hello "\n')
    write(tmp_path / "reloaded" / "other.py", 'from chatbot import Plugin\nplugin = Plugin("other")\n')
    write(tmp_path / "bots.yaml", PAIR)
    bots = run(tmp_path)
    bots.event("daemon.started")
    return bots


def test_sighup_restarts_only_what_has_changed_and_a_wrong_file_changes_nothing(
    tmp_path: Path, pair: Running, chat: Chat
) -> None:
    write(tmp_path / "bots.yaml", PAIR.replace("version: 1", "version: 2").replace("second:", "second: 3\n  third:"))
    pair.process.send_signal(signal.SIGHUP)
    problems = [pair.event("reload.refused", problem=problem)["problem"] for problem in told(tmp_path, 2)]
    assert [problem.partition(": ")[0] for problem in problems] == ["bots.yaml:1:10", "bots.yaml:6:11"]

    write(tmp_path / "reloaded" / "words.py", 'greeting = "welcome "\n')
    write(
        tmp_path / "bots.yaml", PAIR.replace("other], ", "other], ack: manual, ").replace("level: info", "level: debug")
    )
    pair.process.send_signal(signal.SIGHUP)
    assert (
        pair.event("reload.finished").items()
        >= {
            "restarted": ["second"],
            "swapped": ["first"],
            "applied": ["log"],
        }.items()
    )
    assert "welcome one" in chat(tmp_path, typed="hi\n").out

    assert pair.stop() == 0
    told_of = [(json.loads(line)["event"], json.loads(line).get("bot")) for line in pair.lines]
    assert sorted(bot for event, bot in told_of if event == "bot.started") == ["first", "second", "second"]


def told(folder: Path, count: int) -> list[str]:
    """The first problems that the configuration has, as the daemon tells them."""
    with pytest.raises(ConfigError) as caught:
        load_config(folder / "bots.yaml", {})
    return [problem.replace(f"{folder}/", "") for problem in caught.value.problems[:count]]


def test_the_command_says_what_was_done_and_everything_that_is_wrong(
    tmp_path: Path, pair: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "bots.yaml")
    assert main(["reload", file]) == 0
    assert capsys.readouterr().out == "Nothing has changed.\n"

    text = PAIR.replace("first:", "third:").replace("interval: 300ms}}\n", "interval: 500ms}}\n")
    write(tmp_path / "bots.yaml", f"{text}store: sqlite:///elsewhere.db\nretention: 3d\n")
    assert main(["reload", file]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "third: started",
        "first: stopped",
        "second: restarted with new settings",
        "Applied now: retention",
        "Applied only after a restart: store",
    ]
    assert not (tmp_path / "elsewhere.db").exists()

    write(tmp_path / "bots.yaml", "version: 2\nbots: {}\n")
    assert main(["reload", file]) == 78
    assert main(["status", file]) == 75
    shown = capsys.readouterr()
    assert "REFUSED a reload" in shown.out
    assert "applied only after a restart: store" in shown.out
    assert "bots.yaml:1:10: version: " in (problems := shown.err)
    assert "bots.yaml:2:7: bots: this is empty" in problems

    assert pair.stop() == 0
    assert main(["reload", file]) == 69
    assert "no bots run in" in capsys.readouterr().err


ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "chatbot", "run"])
"""


def test_bots_do_not_outlive_the_terminal_that_they_were_started_from(tmp_path: Path) -> None:
    write(tmp_path / "reloaded" / "bot.py", PLUGIN.replace("MARK", "one"))
    write(tmp_path / "reloaded" / "words.py", 'greeting = "hello "\n')
    (tmp_path / "bots.yaml").write_text(BOTS)
    terminal, inner = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL],
        cwd=tmp_path,
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
    ) as bots:
        try:
            os.close(inner)
            heard = b""
            while b"Ctrl-C stops" not in heard:
                heard += os.read(terminal, 10_000)
            os.close(terminal)

            assert bots.wait(PATIENCE) == 0
        finally:
            bots.kill()
    assert not (tmp_path / ".chatbot" / "run.json").exists()


def test_files_behind_links_are_watched_too(tmp_path: Path, run: Run, chat: Chat) -> None:
    """A package that is a link, and a config map, whose files are replaced by leading one link elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere / "bot.py", PLUGIN.replace("MARK", "one"))
    place = tmp_path / "etc"
    (place / "..v1").mkdir(parents=True)
    (place / "..v1" / "words.py").write_text('greeting = "hello "\n')
    (place / "..v1" / "bots.yaml").write_text(BOTS)
    (place / "..data").symlink_to("..v1")
    for name in ("words.py", "bots.yaml"):
        (place / name).symlink_to(f"..data/{name}")
    (place / "reloaded").symlink_to(elsewhere)
    (elsewhere / "words.py").write_text("from words import greeting\n")
    bots = run(place, "--reload")
    bots.event("plugins.watched")
    assert "hello one" in chat(place, typed="hi\n").out

    (place / "..v2").mkdir()
    (place / "..v2" / "words.py").write_text('greeting = "welcome "\n')
    (place / "..v2" / "bots.yaml").write_text(BOTS)
    (place / "..tmp").symlink_to("..v2")
    (place / "..tmp").replace(place / "..data")
    bots.event("plugins.swapped", changed=["words.py"])
    assert "welcome one" in chat(place, typed="hi\n").out

    write(elsewhere / "bot.py", PLUGIN.replace("MARK", "two"))
    bots.event("plugins.swapped", changed=["bot.py"])
    assert "welcome two" in chat(place, typed="hi\n").out
    assert bots.stop() == 0


STUCK_PLUGIN = """
import threading
import anyio
from chatbot import Context, Plugin, ThreadJoined

plugin = Plugin("stuck")

@plugin.on(ThreadJoined)
async def hang(ctx: Context[ThreadJoined]) -> None:
    ctx.log.info("handler.begun")
    await anyio.to_thread.run_sync(threading.Event().wait)
"""


def test_a_reload_does_not_wait_for_a_handler_that_is_stuck_and_names_it(tmp_path: Path, run: Run, chat: Chat) -> None:
    settings = f"{PAIR}drain_timeout: 100ms\n".replace("reloaded.other", "reloaded.stuck")
    write(tmp_path / "reloaded" / "bot.py", PLUGIN.replace("MARK", "one"))
    write(tmp_path / "reloaded" / "words.py", 'greeting = "hello "\n')
    write(tmp_path / "reloaded" / "stuck.py", STUCK_PLUGIN)
    write(tmp_path / "bots.yaml", settings)
    bots = run(tmp_path)
    bots.event("daemon.started")
    bots.event("handler.begun")

    write(tmp_path / "bots.yaml", settings.replace("300ms", "400ms"))
    bots.process.send_signal(signal.SIGHUP)

    assert "reloaded.stuck.hang" in bots.event("bots.cut", bots=["second"])["running"]
    assert bots.event("handler.abandoned")["handler"] == "reloaded.stuck.hang"
    assert sorted(bots.event("reload.finished")["restarted"]) == ["first", "second"]
    assert "hello one" in chat(tmp_path, typed="hi\n").out
    assert bots.stop() == 1
    assert sum(json.loads(line)["event"] == "handler.begun" for line in bots.lines if line.startswith("{")) == 1
