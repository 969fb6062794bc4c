"""`chatbot schema` in the YAML language server that editors use (npm: yaml-language-server).

Needs Node and npm; the package is installed into a temporary directory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

from chatbot.cli import main
from tests.cli.conftest import copy_of_the_clone
from tests.cli.language_server import Editor

PACKAGE: Final = "yaml-language-server@2.0.0"
MODELINE: Final = "# yaml-language-server: $schema=bots.schema.json\n"
DOCS: Final = Path(__file__).parents[2] / "docs" / "reference" / "bots-yaml.md"
FAQ = """
from typing import Literal

from pydantic import BaseModel, Field

from chatbot import Plugin

class Settings(BaseModel):
    language: Literal["en", "fr"] = Field("en", description="Which language it speaks.")

def plugin(settings: Settings) -> Plugin:
    return Plugin("faq")
"""
FILE = (
    MODELINE
    + """\
version: 1
service: ${ACS_CONNECTION_STRING:-emulator}
store: !secret env:STORE
retention: 30d
bots:
  desk:

    plugins:
      - plugins.help
      - module: plugins.own
        settings:
          language: fr
log:
  level: info
"""
)

pytestmark = [pytest.mark.node, pytest.mark.timeout(300)]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs the language server."""
    npm = shutil.which("npm")
    assert npm, "the schema is tested in an editor's language server, with npm, which is not here: install Node.js"
    directory = tmp_path_factory.mktemp("language_server")
    options = ["--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run([npm, "install", *options, PACKAGE], cwd=directory, check=True, timeout=240, env=os.environ)
    return [
        "node",
        str(directory / "node_modules" / "yaml-language-server" / "bin" / "yaml-language-server"),
        "--stdio",
    ]


def settings_in_docs() -> dict[str, object]:
    """What the documentation tells people to put into their editor's settings."""
    block = DOCS.read_text().split("```json\n")[1].split("```")[0]
    return {"validate": True, "completion": True, "customTags": yaml.safe_load(block)["yaml.customTags"]}


@pytest.fixture
def editor(
    server: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Editor]:
    """An editor in a directory of bots, where the schemas were written as the documentation says."""
    folder = copy_of_the_clone(tmp_path)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("STORE", "memory:")
    (folder / "plugins" / "own.py").write_text(FAQ)
    (folder / "bots.yaml").write_text(FILE)
    assert main(["schema"]) == 0
    (folder / "bots.schema.json").write_text(capsys.readouterr().out)
    assert main(["schema", "--part"]) == 0
    (folder / "part.schema.json").write_text(capsys.readouterr().out)
    with Editor.with_server(server, folder, settings_in_docs()) as editing:
        yield editing


def test_nothing_is_wrong_in_files_that_chatbot_takes(editor: Editor) -> None:
    clone = (Path(__file__).parents[2] / "bots.yaml").read_text()

    assert editor.open("bots.yaml", FILE) == []
    assert editor.open("clone.yaml", MODELINE + clone) == []
    assert editor.open("parted.yaml", f"{MODELINE}version: 1\ninclude: [part.yaml]\n") == []
    part = MODELINE.replace("bots.", "part.") + "bots:\n  echo: {plugins: [plugins.echo]}\n"
    assert editor.open("part.yaml", part) == []


def test_every_mistake_is_marked_where_it_is(editor: Editor) -> None:
    text = (
        FILE.replace("version: 1", "version: 2")
        .replace("retention: 30d", "retention: 1 month")
        .replace("  desk:\n", "  desk:\n    ack: handld\n    display_name: 5")
        .replace("plugins.help", "5")
        .replace("language: fr", "language: de")
        .replace("level: info", "levl: info")
    )

    found = editor.open("bots.yaml", text)

    assert [problem.partition(" ")[0] for problem in found] == sorted(
        ["2:10", "5:12", "8:10", "9:19", "11:9", "14:21", "16:3"]
    )
    assert any("Property levl is not allowed" in problem for problem in found)
    assert any('"received", "handled", "manual"' in problem for problem in found)


def test_a_file_without_its_bots_is_marked(editor: Editor) -> None:
    (problem,) = editor.open("bots.yaml", MODELINE + "version: 1\nservice: emulator\n")

    assert 'Missing property "bots"' in problem


def test_settings_are_offered_with_what_they_mean(editor: Editor) -> None:
    editor.open("bots.yaml", FILE.replace("desk:\n\n", "desk:\n    \n"))

    of_bot = editor.complete("bots.yaml", 8, 5)
    of_plugin = editor.complete("bots.yaml", 13, 21)
    of_log = editor.complete("bots.yaml", 15, 10)

    assert {"display_name", "threads", "history", "ack", "admins", "rate_limit"} <= of_bot.keys()
    assert "people see" in of_bot["display_name"]
    assert {"en", "fr"} <= of_plugin.keys()
    assert {"debug", "info", "warning", "error"} <= of_log.keys()
