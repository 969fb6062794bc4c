from __future__ import annotations

import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from chatbot.cli import main
from chatbot.testing.chat_files.script import parse_script
from chatbot.testing.replays.child import ReplayJob
from chatbot.testing.replays.processes import ReplayFailed, run_twice

PLUGIN = """
from chatbot import Context, Plugin
plugin = Plugin("answerer")
@plugin.message()
async def answer(ctx: Context) -> str:
    {line}
"""

POLITE = """
from chatbot import Context, Plugin
from pydantic import BaseModel

class Settings(BaseModel):
    title: str

def plugin(settings: Settings) -> Plugin:
    made = Plugin("polite")

    @made.message()
    async def answer(ctx: Context) -> str:
        return f"{settings.title} {ctx.text}"

    return made
"""

TALK = "bot: Bo\nplugins: played.old\nAnn: a\nAnn: b\nBo: a\nBo: draft\n* Bo edits: b\n"


class Replayed(NamedTuple):
    code: int
    out: str
    err: str


Replay = Callable[..., Replayed]

# Two starts of Python for each replay: only what everybody may break is replayed by the suite that everybody runs.
many_processes = pytest.mark.playground


@pytest.fixture
def replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Replay]:
    """Replay a conversation in a project with an old plugin and a few new ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "played").mkdir()
    lines = {
        "old": "return ctx.text",
        "new": "return ctx.text.upper()",
        "broken": "raise RuntimeError('no luck')",
        "leaving": "import os; os._exit(3)",
        "wrong": "return (",
    }
    for name, line in lines.items():
        (tmp_path / "played" / f"{name}.py").write_text(PLUGIN.format(line=line), encoding="utf-8")

    def run(talk: str, *arguments: str) -> Replayed:
        (tmp_path / "talk.chat").write_text(talk, encoding="utf-8")
        return Replayed(main(["replay", "talk.chat", *arguments]), *capsys.readouterr())

    yield run
    for name in [name for name in sys.modules if name.partition(".")[0] == "played"]:
        del sys.modules[name]


@many_processes
def test_the_same_replies_are_no_difference_whenever_they_came_and_however_they_began(replay: Replay) -> None:
    assert replay(TALK) == (0, "talk.chat: 2 replies, no differences\n", "")


def test_other_replies_of_new_code_are_shown_with_the_lines_of_the_file(replay: Replay) -> None:
    done = replay("bot: Bo\nplugins: played.old\nAnn: a\nBo: a\nAnn: 1\nBo: 1\n", "--plugin", "played.new")

    assert done.code == 1
    assert done.out.splitlines() == [
        "talk.chat: Bo answers differently (- before, + now)",
        "  3  Ann: a",
        "- 4  Bo: a",
        "+    Bo: A",
        "  5  Ann: 1",
        "  6  Bo: 1",
    ]


def test_a_handler_that_fails_is_a_difference(replay: Replay) -> None:
    done = replay("bot: Bo\nplugins: played.old\nAnn: a\n", "--plugin", "played.broken")

    assert done.code == 1
    assert "talk.chat: a handler of Bo failed: RuntimeError('no luck')" in done.out


@many_processes
def test_with_several_bots_one_is_chosen(replay: Replay) -> None:
    talk = "bot: Bo\nplugins: played.old\nbot: Cy\nplugins: played.old\nAnn: a\nBo: a\nCy: a\n"

    assert replay(talk, "--plugin", "played.new")[0] == 2
    assert replay(talk, "--plugin", "played.new", "--bot", "Di").err.endswith("select one with --bot: Bo, Cy\n")
    assert "Cy answers differently" in replay(talk, "--plugin", "played.new", "--bot", "Cy").out


@many_processes
def test_a_new_plugin_gets_its_settings_from_a_bots_yaml(replay: Replay, tmp_path: Path) -> None:
    (tmp_path / "played" / "polite.py").write_text(POLITE)
    (tmp_path / "bots.yaml").write_text(
        "version: 1\nservice: emulator\nbots:\n  bo:\n    plugins: [{module: played.polite, settings: {title: Dr.}}]\n"
    )

    without = replay(TALK, "--plugin", "played.polite")
    done = replay(
        "bot: Bo\nplugins: played.old\nAnn: a\nBo: Dr. a\n", "--plugin", "played.polite", "--config", "bots.yaml"
    )
    unknown = replay(TALK, "--plugin", "played.new", "--config", "bots.yaml")

    assert without.code == 78
    assert "settings.title: Field required" in without.err
    assert "--config" in without.err
    assert done == (0, "talk.chat: 1 reply, no differences\n", "")
    assert (unknown.code, unknown.err) == (
        2,
        "chatbot: bots.yaml: no bot has played.new; name a bots.yaml that configures them, or omit --config\n",
    )


@pytest.mark.parametrize(
    ("talk", "arguments", "problem"),
    [
        ("hello\n", (), "talk.chat:1: 'hello' is not a line of a conversation"),
        *(
            pytest.param(*case, marks=many_processes)
            for case in (
                (TALK, ("--plugin", "played.newer"), "plugin played.newer: there is no such module"),
                (TALK.replace("old", "older"), (), "talk.chat:2: plugin played.older: there is no such module"),
                (TALK.replace("old", "wrong"), (), "played/wrong.py:6: '(' was never closed"),
            )
        ),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    replay: Replay, talk: str, arguments: tuple[str, ...], problem: str
) -> None:
    done = replay(talk, *arguments)

    assert done.code == 78
    assert problem in done.err


MIXED = """
import asyncio
import os
import random
import socket
from chatbot import Context, Plugin

plugin = Plugin("mixed")
words = {"red", "green", "blue", "yellow", "black", "white", "pink", "gray"}


@plugin.command("dice")
async def dice(ctx: Context) -> str:
    return f"You rolled {random.randint(1, 1_000_000)}"


@plugin.command("words")
async def in_any_order(ctx: Context) -> str:
    return " ".join(words)


@plugin.command("fetch")
async def fetch(ctx: Context) -> str:
    try:
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    except PermissionError as error:
        return type(error).__name__
    except OSError:
        return "nobody listens"
    return "connected"


@plugin.command("ask")
async def ask(ctx: Context) -> str:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["ANSWERING_PORT"]))
    except PermissionError as error:
        return type(error).__name__
    writer.write(b"question")
    answer = await reader.read(100)
    writer.close()
    return answer.decode()


@plugin.message()
async def echo(ctx: Context) -> str:
    return f"{ctx.text}!"
"""

MIXED_TALK = """bot: Bo
plugins: played.mixed
Ann: hi
Bo: hi!
Ann: /dice
Bo: You rolled 4
Ann: /words
Bo: red green blue yellow black white pink gray
Ann: /fetch
Bo: {}
Ann: /ask
Bo: {}
"""


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server on loopback that answers, after a moment of real time."""

    class Answering(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(100)
            threading.Event().wait(0.2)
            self.request.sendall(b"answer")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answering) as server:
        monkeypatch.setenv("ANSWERING_PORT", str(server.server_address[1]))
        threading.Thread(target=server.serve_forever).start()
        yield
        server.shutdown()


@many_processes
@pytest.mark.usefixtures("answering")
def test_what_is_not_repeatable_is_no_difference_and_the_network_is_refused(replay: Replay, tmp_path: Path) -> None:
    (tmp_path / "played" / "mixed.py").write_text(MIXED)

    refused = replay(MIXED_TALK.format("NetworkRefused", "NetworkRefused"))
    allowed = replay(MIXED_TALK.format("nobody listens", "answer"), "--allow-network")

    assert (refused.code, allowed.code) == (0, 0)
    dice, words, network, asked, summary = refused.out.splitlines()
    assert dice.startswith("talk.chat:6: not repeatable (random numbers, read at played/mixed.py:14): Bo: You rolled ")
    assert words.startswith("talk.chat:8: not repeatable (two runs of this code differ): Bo: ")
    assert network == "talk.chat: played/mixed.py:25 may not look up 127.0.0.1; --allow-network allows it"
    assert asked.startswith("talk.chat: played/mixed.py:36 may not connect to 127.0.0.1:")
    assert summary == "talk.chat: 5 replies, no differences, 2 not repeatable"
    assert "may not" not in allowed.out


@many_processes
def test_a_handler_that_ends_the_process_is_reported(replay: Replay) -> None:
    done = replay(TALK, "--plugin", "played.leaving")

    assert done.code == 69
    assert done.err == (
        "chatbot: the process of the replay ended with exit code 3, at the beginning: a handler or a library ended it\n"
    )


@many_processes
async def test_a_handler_that_blocks_the_event_loop_is_reported_with_its_line(tmp_path: Path) -> None:
    line = "import time; time.sleep(3600 * (ctx.text == 'block')); return ctx.text"
    (tmp_path / "blocking.py").write_text(PLUGIN.format(line=line))
    script = parse_script("bot: Bo\nplugins: blocking\n" + "Ann: a\nBo: a\n" * 10 + "Ann: block\n", "talk.chat")
    reported: list[int] = []

    with pytest.raises(
        ReplayFailed, match=r"blocking\.py:6 in answer: a handler blocks the event loop, after 1\d steps"
    ):
        await run_twice(ReplayJob(script, tmp_path, tmp_path, patience=6), reported.append)

    assert reported[0] == 0
    assert reported[-1] == 11


def test_either_a_file_or_a_thread_is_replayed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay"]) == 2
    assert main(["replay", "talk.chat", "--thread", "19:x"]) == 2
    assert main(["replay", "--thread", "19:x", "--plugin", "played.new"]) == 2
    assert "Name a file, or a thread with --thread" in capsys.readouterr().err


def test_a_thread_is_replayed_only_while_its_bots_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["replay", "--thread", "19:x"]) == 69
    assert "no bots run" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "nowhere.chat"]) == 78
    assert "nowhere.chat: cannot be read: No such file or directory" in capsys.readouterr().err
