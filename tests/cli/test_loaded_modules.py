"""Which libraries a daemon loads: what it does not use stays out of its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.resource import PATIENCE, PLUGIN, Azure

OF_THE_EMULATOR = ("trustme", "cryptography", "nh3", "httptools", "wsproto", "chatbot.emulator")
OF_PAGES = (
    "starlette",
    "uvicorn",
    "h11",
    "prometheus_client",
    "chatbot.runtime.status_pages",
    "chatbot.runtime.webhook",
)
OF_COMMANDS = ("cyclopts", "rich", "pygments", "difflib", "chatbot.cli.app")
OF_EXTRAS = ("azure.identity", "msal", "opentelemetry", "asyncpg", "chatbot.stores.postgres")

TELLING = """
import atexit, json, os, sys

atexit.register(lambda: open(os.environ["LOADED"], "w").write(json.dumps(sorted(sys.modules))))
"""


@pytest.mark.parametrize(
    ("server", "needless"),
    [
        pytest.param("", OF_PAGES, id="without a status server"),
        pytest.param("server: {listen: 127.0.0.1:0}\n", (), id="with a status server"),
    ],
)
def test_a_daemon_on_azure_loads_nothing_that_its_configuration_does_not_need(
    resource: Azure, tmp_path: Path, server: str, needless: Sequence[str]
) -> None:
    """With a bot that runs, and an answer to `chatbot run --once`: the whole way of a daemon."""
    config = resource.bots_yaml(tmp_path)
    config.write_text(config.read_text() + server)
    modules = loaded_by(tmp_path, "--require-azure", str(config))

    assert "chatbot.service.acs" in modules
    unneeded = (*OF_THE_EMULATOR, *OF_EXTRAS, *OF_COMMANDS, *needless)
    assert [name for name in modules for library in unneeded if f"{name}.".startswith(f"{library}.")] == []


def test_a_daemon_with_an_emulator_loads_nothing_of_other_commands_before_the_playground_asks(tmp_path: Path) -> None:
    (tmp_path / "parrot.py").write_text(PLUGIN)
    (tmp_path / "bots.yaml").write_text("version: 1\nservice: emulator\nbots: {parrot: {plugins: [parrot]}}\n")

    modules = loaded_by(tmp_path)

    assert "chatbot.emulator" in modules
    unneeded = {*OF_EXTRAS, *OF_COMMANDS, "chatbot.testing", "chatbot.cli.record"} - {"difflib"}
    assert [name for name in modules for library in unneeded if f"{name}.".startswith(f"{library}.")] == []


def loaded_by(directory: Path, *arguments: str) -> list[str]:
    """Run `chatbot run --once`; return the names of the modules that were loaded when it ended."""
    (directory / "sitecustomize.py").write_text(TELLING)
    loaded = directory / "loaded.json"
    finished = subprocess.run(
        [sys.executable, "-m", "chatbot", "run", "--once", *arguments],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(directory), "LOADED": str(loaded)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE * 4,
    )
    assert finished.returncode == 0, finished.stderr
    modules: list[str] = json.loads(loaded.read_text())
    return modules
