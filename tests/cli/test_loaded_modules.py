"""Which libraries a daemon on Azure loads: what only the emulator needs stays out of its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.cli.resource import PATIENCE, Azure

OF_THE_EMULATOR = ("trustme", "cryptography", "nh3", "httptools", "wsproto", "chatbot.emulator")
OF_EXTRAS = ("azure.identity", "msal", "opentelemetry", "asyncpg", "chatbot.stores.postgres")

TELLING = """
import atexit, json, os, sys

atexit.register(lambda: open(os.environ["LOADED"], "w").write(json.dumps(sorted(sys.modules))))
"""


def test_a_daemon_on_azure_loads_nothing_of_the_emulator_nor_of_extras_that_it_does_not_use(
    resource: Azure, tmp_path: Path
) -> None:
    """With a bot that runs, a status server and an answer to `chatbot run --once`: the whole way of a daemon."""
    config = resource.bots_yaml(tmp_path)
    config.write_text(config.read_text() + "server: {listen: 127.0.0.1:0}\n")
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
    unwanted = [
        name for name in modules for library in (*OF_THE_EMULATOR, *OF_EXTRAS) if f"{name}.".startswith(f"{library}.")
    ]
    assert unwanted == []
