import sys
from pathlib import Path

import pytest

from chatbot.cli.running import greeting, program
from chatbot.config import load_config
from chatbot.model import UserId
from chatbot.runtime.run_directory import RunInfo, RunningBot

INFO = RunInfo(
    pid=1,
    endpoint="http://127.0.0.1:1",
    connection_string="endpoint=https://127.0.0.1:2/;accesskey=c2VjcmV0",
    resource="guid",
    ca_file="/somewhere/ca.pem",
    bots=(RunningBot("echo", UserId("8:acs:1"), "Echo\x1b[31m"),),
)


def text_for(path: Path, service: str, user: str = "") -> str:
    path.write_text(f"version: 1\nservice: {service}\nbots: {{echo: {{plugins: [plugins.echo]{user}}}}}\n")
    return greeting(INFO, load_config(path, {}))


def test_the_output_lists_the_bots_and_the_command_to_chat_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [".venv/bin/chatbot"])

    text = text_for(Path("bots.yaml"), "emulator")

    assert "Running: Echo\\x1b[31m.  Ctrl-C stops." in text
    assert "\n      .venv/bin/chatbot chat\n" in text
    assert INFO.connection_string in text
    assert "/somewhere/ca.pem" in text


def test_another_file_is_named_in_the_command_and_a_real_resource_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/venv/chatbot/__main__.py"])
    monkeypatch.setattr("sys.executable", "/venv/bin/python")

    text = text_for(tmp_path / "my bots.yaml", "endpoint=https://my.communication.azure.com/;accesskey=c2VjcmV0")

    assert f"\n      /venv/bin/python -m chatbot chat '{tmp_path}/my bots.yaml'\n" in text
    assert "c2VjcmV0" not in text


def test_without_the_right_to_create_users_no_chat_is_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/venv/chatbot/__main__.py"])
    own = "{endpoint: https://my.communication.azure.com, token_endpoint: {url: https://t.example}}"

    text = text_for(tmp_path / "bots.yaml", own, user=", user: '8:acs:a_b'")

    assert "chatbot chat" not in text
    assert f"\n      {sys.executable} -m chatbot identity show {tmp_path}/bots.yaml\n" in text


def test_the_bare_name_is_given_only_where_the_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "chatbot"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(script)])

    monkeypatch.setenv("PATH", str(tmp_path))
    assert program() == "chatbot"
    monkeypatch.setenv("PATH", "/nowhere")
    assert program() == str(script)
