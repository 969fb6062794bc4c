"""Which libraries a daemon on Azure loads: what it does not use stays out of its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.resource import PATIENCE, Azure

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
    (tmp_path / "sitecustomize.py").write_text(TELLING)
    loaded = tmp_path / "loaded.json"
    environ = os.environ | {"PYTHONPATH": str(tmp_path), "LOADED": str(loaded)}

    finished = subprocess.run(
        [sys.executable, "-m", "chatbot", "run", "--once", "--require-azure", str(config)],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE * 4,
    )

    assert finished.returncode == 0, finished.stderr
    modules = json.loads(loaded.read_text())
    assert "chatbot.service.acs" in modules
    unneeded = (*OF_THE_EMULATOR, *OF_EXTRAS, *OF_COMMANDS, *needless)
    assert [name for name in modules for library in unneeded if f"{name}.".startswith(f"{library}.")] == []
