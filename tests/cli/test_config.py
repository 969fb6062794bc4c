"""`chatbot config`: every value, where it came from, and no secret."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatbot.cli import main

TEXT = """\
version: 1
service: ${ACS_CONNECTION_STRING:-emulator}
log: {level: warning}
bots:
  desk:
    plugins:
      - plugins.help
      - module: plugins.faq
        settings: {language: "${LANGUAGE:-fr}", api: !secret env:FAQ_API, api_key: plainly, url: "${FAQ_TOKEN_URL}"}
      - module: plugins.ask
        settings:
          text: >
            ${FAQ_TOKEN_URL}
            and more
          tokens: {first: plainly}
server: {listen: 8080}
"""

Found = dict[str, tuple[Any, str]]


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], Found]:
    """The settings: name to value and source."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bots.yaml").write_text(TEXT)
    monkeypatch.setenv("FAQ_API", "hidden1")
    monkeypatch.setenv("FAQ_TOKEN_URL", "hidden2")
    monkeypatch.setenv("ACS_CONNECTION_STRING", "endpoint=https://my.communication.azure.com/;accesskey=aGlkZGVuMw==")

    def ask() -> Found:
        assert main(["config", "--format", "json"]) == 0
        return {one["path"]: (one["value"], one["source"]) for one in json.loads(capsys.readouterr().out)}

    return ask


def test_every_value_is_there_with_its_place_or_as_a_default(found: Callable[[], Found]) -> None:
    values = found()

    assert values["version"] == (1, "bots.yaml:1:10")
    assert values["log.level"] == ("warning", "bots.yaml:3:14")
    assert values["log.format"] == ("auto", "default")
    assert values["store"] == ("sqlite:///chatbot.db", "default")
    assert values["retention"] == ("30d", "default")
    assert values["bots.desk.poll.interval"] == ("300ms", "default")
    assert values["bots.desk.plugins[0].module"] == ("plugins.help", "bots.yaml:7:9")
    assert values["bots.desk.plugins[1].module"] == ("plugins.faq", "bots.yaml:8:17")
    assert values["server.listen"] == ("127.0.0.1:8080", "bots.yaml:16:18")


def test_variables_are_named_where_they_were_used(found: Callable[[], Found]) -> None:
    values = found()

    assert values["bots.desk.plugins[1].settings.language"] == ("fr", "bots.yaml:9:30 ${LANGUAGE}")
    assert values["service"] == (
        "endpoint=https://my.communication.azure.com/;accesskey=************",
        "bots.yaml:2:10 ${ACS_CONNECTION_STRING}",
    )


def test_what_is_secret_or_looks_so_is_not_shown(
    found: Callable[[], Found], capsys: pytest.CaptureFixture[str]
) -> None:
    values = found()
    assert main(["config"]) == 0
    table = capsys.readouterr().out

    faq, ask = "bots.desk.plugins[1].settings", "bots.desk.plugins[2].settings"
    hidden = [f"{faq}.api", f"{faq}.api_key", f"{faq}.url", f"{ask}.text", f"{ask}.tokens.first"]
    assert [values[name][0] for name in hidden] == ["********"] * 5
    for secret in ("hidden1", "hidden2", "aGlkZGVuMw", "plainly"):
        assert secret not in table + json.dumps(values)
    assert "${FAQ_API}" in table
