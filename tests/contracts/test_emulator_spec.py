"""Schemathesis on the published specifications: what it makes of them never gets a 5xx, and answers fit the schema.

Schemathesis is installed into an environment of its own, because its pytest plugin would watch every test here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import anyio
import pytest

from chatbot.emulator import Emulator, Quirks, World, serve

SPECIFICATIONS = Path(__file__).parent / "spec"
CHECKS = "not_a_server_error,response_schema_conformance"

pytestmark = [pytest.mark.spec, pytest.mark.timeout(600)]


@pytest.fixture(scope="session")
def schemathesis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program."""
    directory = tmp_path_factory.mktemp("schemathesis")
    venv.create(directory, with_pip=True)
    bin_directory = directory / ("Scripts" if sys.platform == "win32" else "bin")
    subprocess.run([bin_directory / "pip", "install", "-q", "schemathesis>=4.32,<5"], check=True, timeout=240)
    return bin_directory / "schemathesis"


async def test_chat_is_as_its_specification_says_whatever_is_sent(schemathesis: Path, tmp_path: Path) -> None:
    # The real envelope, the empty 401, and the 500 that a removed user got are not what the specification says.
    quirks = Quirks(error_envelope="error", unauthorized_body="envelope", removed_removal="forbidden")
    emulator = Emulator(World(quirks=quirks), quotas=False)
    ann, bob = emulator.create_user(), emulator.create_user()
    thread = emulator.create_thread(ann, "topic", [bob])
    message = emulator.send(thread, ann, "hello")
    specification = json.loads((SPECIFICATIONS / "chat-2025-03-15.json").read_text())
    _offer(specification, {"chatThreadId": thread, "chatMessageId": str(message), "api-version": "2025-03-15"})
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(specification))
    emulator.faults.add("delete_thread:403")  # or there would soon be nothing left to talk about

    report = await _run(schemathesis, emulator, file, f"Authorization: Bearer {emulator.issue_token(ann).text}")

    assert "16 selected / 16 total" in report
    assert len(emulator.calls) > 500
    assert {call.status for call in emulator.calls} >= {200, 201, 204, 400}


async def test_identity_is_as_its_specification_says_whatever_is_sent(schemathesis: Path, tmp_path: Path) -> None:
    emulator = Emulator(quotas=False)
    user = emulator.create_user()
    specification = json.loads((SPECIFICATIONS / "identity-2023-10-01.json").read_text())
    _offer(specification, {"id": user, "api-version": "2023-10-01"})
    file = tmp_path / "identity.json"
    file.write_text(json.dumps(specification))
    emulator.faults.add("delete_user:403")

    report = await _run(schemathesis, emulator, file, f"Authorization: Bearer {emulator.issue_token(user).text}")

    assert "5 selected / 5 total" in report


async def _run(program: Path, emulator: Emulator, file: Path, header: str) -> str:
    async with serve(emulator, tls=False) as running:
        options = ["--url", running.endpoint, "-H", header, "--checks", CHECKS, "--max-examples", "25", "--seed", "1"]
        result = await anyio.run_process(
            [str(program), "run", str(file), *options, "--phases", "examples,coverage,fuzzing"],
            check=False,
            cwd=file.parent,  # it keeps a cache where it runs
        )
    report = result.stdout.decode() + result.stderr.decode()
    assert result.returncode == 0, report
    return report


def _offer(specification: Any, values: dict[str, str]) -> None:
    """Let generated requests name what exists."""
    if isinstance(specification, dict):
        if specification.get("in") in {"path", "query"} and specification.get("name") in values:
            specification["enum"] = [values[specification["name"]]]
        for value in specification.values():
            _offer(value, values)
    elif isinstance(specification, list):
        for value in specification:
            _offer(value, values)
