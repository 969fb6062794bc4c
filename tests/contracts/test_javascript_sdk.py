"""Every public method of the official JavaScript SDK, driven by Node over https against a served emulator.

Needs Node and npm; the packages are installed into a temporary directory.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import anyio
import pytest

from chatbot.emulator import Emulator, serve
from tests.contracts.clients import ran

PACKAGES = ("@azure/communication-chat@1.6.0", "@azure/communication-identity@1.3.1")
PROGRAM = Path(__file__).with_name("javascript_sdk.mjs")

pytestmark = [pytest.mark.node, pytest.mark.timeout(300)]


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the SDK in it."""
    npm = shutil.which("npm")
    assert npm, "the JavaScript SDK is tested with npm, which is not here: install Node.js with npm"
    directory = tmp_path_factory.mktemp("node")
    options = ["--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run([npm, "install", *options, *PACKAGES], cwd=directory, check=True, timeout=240, env=os.environ)
    return directory


async def test_every_public_method_of_the_javascript_clients_works(packages: Path, tmp_path: Path) -> None:
    emulator = Emulator(quotas=False, entra=True)
    entra = emulator.entra_token()
    async with serve(emulator, certificates=tmp_path) as running:
        environment = {**os.environ, "NODE_EXTRA_CA_CERTS": str(running.ca_file), "NODE_NO_WARNINGS": "1"}
        result = await anyio.run_process(
            ["node", str(PROGRAM), running.connection_string, entra], cwd=packages, env=environment, check=False
        )

    assert result.returncode == 0, result.stderr.decode()
    report = json.loads(result.stdout)
    assert report["methods"] >= 23
    assert report["unused"] == []
    for package in PACKAGES:
        name, version = package.rsplit("@", 1)
        ran(f"`{name}`", version, "Node.js", "every public method")
