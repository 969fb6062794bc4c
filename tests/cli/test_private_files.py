"""What a daemon keeps can be read by its owner alone, and its secrets are nowhere else."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from chatbot.cli import main
from tests.cli.conftest import Chat, Run, copy_of_the_clone

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps rights in another way than modes")


def test_everything_that_a_daemon_keeps_is_its_owners_alone(tmp_path: Path, run: Run, chat: Chat) -> None:
    bots = run(copy_of_the_clone(tmp_path))
    bots.event("daemon.started")
    assert chat(tmp_path, "--as", "Ann", typed="hello\n").code == 0

    kept = [tmp_path / ".chatbot", *(tmp_path / ".chatbot").rglob("*"), *tmp_path.glob("chatbot.db*")]
    open_to_others = {str(one.relative_to(tmp_path)) for one in kept if stat.S_IMODE(one.stat().st_mode) & 0o077}

    assert len(kept) > 6
    assert open_to_others == set()


def test_the_access_key_of_a_resource_is_in_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "c2VjcmV0LWtleS1vZi10aGUtcmVzb3VyY2U="
    (tmp_path / "quiet.py").write_text("from chatbot import Plugin\nplugin = Plugin('quiet')\n")
    (tmp_path / "bots.yaml").write_text(
        "version: 1\nservice: ${ACS_CONNECTION_STRING}\nbots: {quiet: {plugins: [quiet]}}\n"
    )
    service = f"endpoint=https://127.0.0.1:9/;accesskey={key}"  # nobody listens there
    monkeypatch.setenv("ACS_CONNECTION_STRING", service)
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    for command in (["run"], ["run", "--log-format", "json", "--log-level", "debug"]):
        words = [sys.executable, "-m", "chatbot", *command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        said.append(done.stdout + done.stderr)
    for command in (["config"], ["check"], ["status"]):
        main(command)
        shown = capsys.readouterr()
        said.append(shown.out + shown.err)
    for text in said:
        assert key[:12] not in text
        assert text
