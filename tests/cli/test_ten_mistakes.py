"""Ten mistakes in one bots.yaml, told as the documentation shows them."""

import json
from pathlib import Path

import pytest

from chatbot.cli import main

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "bots-yaml.md"


def blocks(language: str) -> list[str]:
    return [part.split("```")[0] for part in DOCS.read_text().split(f"```{language}\n")[1:]]


TEN_PLUGINS = {
    "faq": (
        "from pydantic import BaseModel\n\nfrom chatbot import Plugin\n\n\nclass Settings(BaseModel):\n"
        "    language: str = 'en'\n\n\ndef plugin(settings: Settings) -> Plugin:\n    return Plugin('faq')\n"
    ),
    "echo": "from chatbot import Plugin\n\nplugin = Plugin('echo')\n",
    "dice": "from chatbot import Plugin\nimport shop\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # undone afterwards, which loading a plugin does not do
    return tmp_path


@pytest.fixture
def ten_mistakes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write the documentation's file to the working directory, and return the output that the documentation shows."""
    (folder / "plugins").mkdir()
    for name, code in TEN_PLUGINS.items():
        (folder / "plugins" / f"{name}.py").write_text(code)
    monkeypatch.delenv("LEVEL", raising=False)
    text, told = next(block for block in blocks("yaml") if "ten mistakes" in block), blocks("console")[0]
    (folder / "bots.yaml").write_text(text)
    return told.splitlines()[1:]


def as_documented(folder: Path, text: str) -> str:
    return text.replace(f"{folder}/", "").replace(str(folder), "/srv/bots")


def test_ten_mistakes_are_reported_at_once_with_their_places_as_the_documentation_shows(
    ten_mistakes: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check"]) == 78

    told = as_documented(folder, capsys.readouterr().err).splitlines()
    assert told == ten_mistakes
    assert sum(": " in line and "yaml:" in line for line in told) == 10


def test_json_output_has_the_parts_of_each_mistake(
    ten_mistakes: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--format", "json"]) == 78

    found = json.loads(capsys.readouterr().out)
    assert found["is_right"] is False
    assert len(found["problems"]) == 10
    shown = [line for line in ten_mistakes if "bots.yaml:" in line]
    for problem, line in zip(found["problems"], shown, strict=True):
        place = f"{problem['file']}:{problem['line']}:{problem['column']}"
        named = f"{place}: {problem['path']}: {problem['text']}" if problem["path"] else f"{place}: {problem['text']}"
        assert as_documented(folder, named) in line
