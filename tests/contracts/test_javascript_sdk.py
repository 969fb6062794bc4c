"""Every public method of the official JavaScript SDKs, driven by Node over https against a served emulator.

Needs Node and npm; the packages are installed into a cache outside the clone, once for each version.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import anyio
import pytest

from chatbot.emulator import Emulator, serve
from tests.contracts.clients import CHAT, IDENTITY, javascript_sdk, ran

VERSIONS = [
    ("1.6.0", "1.3.1"),
    ("1.5.4", "1.3.0"),
    ("1.4.0", "1.2.0"),
    ("1.3.2", "1.1.0"),
    ("1.2.1", "1.0.0"),
    ("1.1.1", "1.0.0"),
    ("1.0.0", "1.0.0"),
]
"""The newest of each minor version of chat, and identity's of its time."""

PROGRAM = Path(__file__).with_name("javascript_sdk.mjs")

pytestmark = [pytest.mark.node, pytest.mark.timeout(300)]


@pytest.mark.parametrize(("chat", "identity"), VERSIONS, ids=lambda version: version)
async def test_every_public_method_of_the_javascript_clients_works(chat: str, identity: str, tmp_path: Path) -> None:
    packages = await anyio.to_thread.run_sync(javascript_sdk, chat, identity)
    command, minors = ["node", str(PROGRAM)], [version.split(".")[1] for version in (identity, chat)]
    emulator = Emulator(quotas=False, entra=True)
    entra = emulator.entra_token()
    async with serve(emulator, certificates=tmp_path) as running:
        environment = {**os.environ, "NODE_EXTRA_CA_CERTS": str(running.ca_file), "NODE_NO_WARNINGS": "1"}
        result = await anyio.run_process(
            [*command, running.connection_string, entra, *minors],
            cwd=packages,
            env=environment,
            check=False,
        )

    assert result.returncode == 0, result.stderr.decode()
    report = json.loads(result.stdout)
    assert report["methods"] >= (23 if chat == "1.6.0" else 20)
    assert report["unused"] == []
    for name, version in ((CHAT, chat), (IDENTITY, identity)):
        ran(f"`{name}`", version, "Node.js", "every public method")
