"""From a running bot to a conversation in a file, and back again through other code."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatbot.cli import main
from tests.cli.conftest import Chat, Demo, Run

TALKATIVE = """
from chatbot import Context, Plugin

plugin = Plugin("talkative")

@plugin.message()
async def answer(ctx: Context) -> None:
    for number in range(150):  # the service takes 30 messages a minute: however busy the machine, some are under way
        await ctx.reply(str(number))
"""


@pytest.fixture
def talk(demo: Demo, chat: Chat, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A recorded talk of somebody in a thread of their own."""
    monkeypatch.chdir(demo.directory)
    name = f"Maria {tmp_path.name}"
    said = chat(demo.directory, "--as", name, "--new", "A talk", typed="my address is maria@contoso.com\n")
    assert said.code == 0, said.err
    thread = chat(demo.directory, "--as", name, "--list").out.split()[0]
    file = tmp_path / "talk.chat"
    assert main(["record", "bots.yaml", "--thread", thread, "-o", str(file)]) == 0
    return file


def test_a_recording_masks_people_and_replays_with_the_same_replies(
    talk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = talk.read_text("utf-8")

    assert main(["replay", str(talk)]) == 0, capsys.readouterr()
    assert "no differences" in capsys.readouterr().out
    assert "Ann: my address is person1@example.com" in written
    assert "Echo: my address is person1@example.com" in written
    assert "bot: Echo\nplugins: plugins.echo\n" in written
    assert "\ncompare: replies\n\n" in written
    assert "8:acs:" not in written
    assert "contoso" not in written
    assert "Maria" not in written


def test_leaving_or_recording_before_all_replies_have_come_is_noted(
    run: Run, chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talkative.py").write_text(TALKATIVE)
    (tmp_path / "bots.yaml").write_text("version: 1\nservice: emulator\nbots: {talkative: {plugins: [talkative]}}\n")
    bots = run(tmp_path, "--log-level", "debug")
    bots.event("daemon.started")
    monkeypatch.chdir(tmp_path)

    chat(tmp_path, "--as", "Gus", "--new", "Much", "--wait", "1s", typed="tell me\n")
    bots.event("action.done", action="SendMessage")
    thread = chat(tmp_path, "--as", "Gus", "--list").out.split()[0]
    talk = chat(tmp_path, "--as", "Gus", "--thread", thread, "--wait", "1s", typed="go on\n")
    code = main(["record", "--thread", thread])

    assert (talk.code, code) == (0, 0)
    assert "more replies are pending; `--wait 30s` waits longer, and the next `chatbot chat` shows them" in talk.err
    assert "pending and not in the recording; record again in a moment" in capsys.readouterr().err


def test_a_thread_that_no_bot_is_in_cannot_be_recorded(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo.directory)

    assert main(["record", "--thread", "19:nowhere@thread.v2"]) == 2
    assert "none of the running bots is in this thread" in capsys.readouterr().err


def test_a_file_that_exists_is_not_written_over(talk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "-o", str(talk)]) == 78
    assert "this file already exists; choose another name" in capsys.readouterr().err


def test_nothing_is_recorded_where_no_bots_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["record"]) == 69
    assert "start them with `chatbot run`" in capsys.readouterr().err
