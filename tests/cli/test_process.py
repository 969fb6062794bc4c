"""The daemon under a supervisor, and as one run of many: systemd, cron, CI."""

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from chatbot.cli import main
from chatbot.model import Participant, ThreadId, UserId
from chatbot.service.acs import AcsResource
from tests.cli.conftest import PATIENCE, Demo, Run, copy_of_the_clone


@pytest.fixture
def ear(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket of a supervisor, as systemd has it, in the environment of what is started now."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path_factory.mktemp("run") / "notify"))
        listening.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", listening.getsockname())
        yield listening


def test_systemd_hears_ready_then_signs_of_life_then_stopping(
    ear: socket.socket, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    bots = run(copy_of_the_clone(tmp_path))

    assert ear.recv(1000) == b"READY=1\nSTATUS=Running 2 bots"
    assert [ear.recv(1000) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    bots.process.send_signal(signal.SIGTERM)
    heard = b"WATCHDOG=1"
    while heard == b"WATCHDOG=1":
        heard = ear.recv(1000)

    assert heard.startswith(b"STOPPING=1")
    assert bots.ended() == 0


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


async def say(service: str, bot: UserId, *texts: str) -> ThreadId:
    """A person opens a thread with the bot and speaks."""
    async with AcsResource.from_connection_string(service) as resource:
        person = await resource.create_user()
        chat = resource.chat(person, resource.minted_tokens(person))
        thread = (await chat.create_thread("Talk", [Participant(bot, "Bot")])).thread.id
        for text in texts:
            await chat.send_message(thread, text)
        return thread


async def heard(service: str, bot: UserId, thread: ThreadId) -> list[str]:
    """What the bot has said in a thread, oldest first."""
    async with AcsResource.from_connection_string(service) as resource:
        page = await resource.chat(bot, resource.minted_tokens(bot)).list_messages(thread)
        return [message.content for message in reversed(page.messages) if message.sender == bot and message.is_said]


def test_once_handles_what_is_waiting_second_tries_included_and_ends_by_itself(
    demo: Demo, tmp_path: Path, run: Run
) -> None:
    published = json.loads((demo.directory / ".chatbot" / "run.json").read_text())
    key = published["connection_string"].partition(";")[2]
    service = f"endpoint={published['endpoint']};{key}"
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


def test_require_azure_refuses_the_emulator_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copy_of_the_clone(tmp_path))

    assert main(["run", "--require-azure"]) == 78

    said = capsys.readouterr().err
    assert "bots.yaml:10:10: service: this is the emulator, and --require-azure was given" in said
    assert not (tmp_path / ".chatbot").exists()
