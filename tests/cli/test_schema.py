"""`chatbot schema`, judged by a validator of JSON Schema."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from chatbot.cli import main
from tests.cli.conftest import ROOT

FAQ = """
from typing import Literal

from pydantic import BaseModel

from chatbot import Plugin

class Shelf(BaseModel):
    depth: int

class Settings(BaseModel):
    language: Literal["en", "fr"] = "en"
    shelf: Shelf | None = None

def plugin(settings: Settings) -> Plugin:
    return Plugin("faq")
"""
PLAIN = "from chatbot import Plugin\nplugin = Plugin('plain')\n"
START = "version: 1\nservice: emulator\n"
BOTS = "bots: {desk: {plugins: [plain, {module: faq, settings: {language: fr}}]}}\n"

Problems = Callable[[str], list[str]]


@pytest.fixture
def problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Problems:
    """What the schema finds wrong in a text: the paths of the wrong values."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "faq.py").write_text(FAQ)
    (tmp_path / "plain.py").write_text(PLAIN)
    (tmp_path / "bots.yaml").write_text(START + BOTS)
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    Draft202012Validator.check_schema(schema)

    def found(text: str) -> list[str]:
        errors: Iterable[object] = Draft202012Validator(schema).iter_errors(yaml.safe_load(text))
        return sorted("/".join(map(str, error.absolute_path)) for error in errors)

    return found


GOOD = [
    START + BOTS,
    (ROOT / "bots.yaml").read_text(),
    START + BOTS + "server: {listen: 8080}\nretention: 30d\ndrain_timeout: 1h 30m\n",
    START + BOTS + "server: {listen: '[::1]:8080'}\nx-anchors: {a: 1}\nlog: {level: '${LEVEL:-info}'}\n",
    "version: 1\nservice: {endpoint: 'https://a.example', entra: managed-identity}\n" + BOTS,
    "version: 1\nservice: {endpoint: 'https://a.example', entra: {credential: cli}}\n" + BOTS,
    "version: 1\nservice: {endpoint: 'https://a.example', token_endpoint: {url: 'https://t.example'}}\n" + BOTS,
    START + "emulator: {port: '${PORT}'}\nbots: {a: {plugins: [plain], threads: ['19:a'], history: 2h}}\n",
    "version: 1\ninclude: conf.d/*.yaml\n",
    "version: 1\ninclude: [a.yaml, conf.d/*.yaml]\nservice: emulator\n" + BOTS,
    START + "bots: {a: {plugins: [{module: faq, settings: {shelf: {depth: 3}}}], history: none, threads: all}}\n",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_chatbot_takes_the_schema_takes(problems: Problems, text: str) -> None:
    assert problems(text) == []


BAD = [
    (START + BOTS + "retention: 1 sec\n", "retention"),
    (START + BOTS + "log: {level: loud}\n", "log/level"),
    (START + BOTS + "emulator: {port: 0}\n", "emulator/port"),
    (START + BOTS.replace("plugins:", "plugin:"), "bots/desk"),
    (START + BOTS.replace("language: fr", "language: de"), "bots/desk/plugins/1"),
    (START + BOTS.replace("language", "langage"), "bots/desk/plugins/1"),
    (START + BOTS.replace("[plain,", "[{module: plain, settings: {a: 1}},"), "bots/desk/plugins/0"),
    (BOTS, ""),
    (START, ""),
    (START + BOTS + "include: {a: b}\n", "include"),
    ("version: 1\nservice: {endpoint: 'https://a.example', entra: {credential: cloud}}\n" + BOTS, "service"),
    ("version: 1\nservice: {entra: cli}\n" + BOTS, "service"),
]


@pytest.mark.parametrize(("text", "place"), BAD)
def test_what_chatbot_refuses_the_schema_refuses_at_the_same_place(problems: Problems, text: str, place: str) -> None:
    assert place in problems(text)


def test_the_schema_describes_every_setting_and_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["schema"]) == 0

    schema = json.loads(capsys.readouterr().out)
    poll = schema["$defs"]["PollConfig"]["properties"]
    assert poll["interval"]["default"] == "300ms"
    assert poll["interval"]["description"].startswith("between polls while people talk in it;")
    assert poll["rate"]["default"] == 100
    assert [name for name, value in schema["properties"].items() if not value.get("description")] == []


def test_in_a_file_that_is_included_nothing_must_be_but_what_is_there_must_be_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["schema", "--part"]) == 0

    validator = Draft202012Validator(json.loads(capsys.readouterr().out))
    assert list(validator.iter_errors(yaml.safe_load(BOTS))) == []
    assert list(validator.iter_errors(yaml.safe_load(BOTS.replace("plugins:", "plugin:")))) != []
