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


async def test_chat_conforms_to_its_specification_for_generated_requests(schemathesis: Path, tmp_path: Path) -> None:
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


async def test_images_conform_to_their_specification_for_generated_requests(schemathesis: Path, tmp_path: Path) -> None:
    quirks = Quirks(error_envelope="error", unauthorized_body="envelope", removed_removal="forbidden")
    emulator = Emulator(World(quirks=quirks), quotas=False)
    ann = emulator.create_user()
    thread = emulator.create_thread(ann, "topic")
    image = emulator.upload_image(thread, ann, b"GIF89a", "cat.gif")
    message = emulator.send(thread, ann, "hello", images=[image])
    specification = json.loads((SPECIFICATIONS / "chat-2025-03-15.json").read_text())
    _add_images(specification)
    known = {"chatThreadId": thread, "chatMessageId": str(message), "imageId": image, "api-version": PREVIEW}
    _offer(specification, known)
    file = tmp_path / "images.json"
    file.write_text(json.dumps(specification))
    for operation in ("delete_thread", "delete_image", "delete_message"):
        emulator.faults.add(f"{operation}:403")

    report = await _run(schemathesis, emulator, file, f"Authorization: Bearer {emulator.issue_token(ann).text}")

    assert "6 selected / 6 total" in report
    answered = {(call.operation, call.status) for call in emulator.calls}
    assert answered >= {("upload_image", 400), ("get_image", 200), ("send_message", 201), ("get_message", 200)}


async def test_identity_conforms_to_its_specification_for_generated_requests(
    schemathesis: Path, tmp_path: Path
) -> None:
    emulator = Emulator(quotas=False)
    user = emulator.create_user()
    specification = json.loads((SPECIFICATIONS / "identity-2023-10-01.json").read_text())
    _offer(specification, {"id": user, "api-version": "2023-10-01"})
    file = tmp_path / "identity.json"
    file.write_text(json.dumps(specification))
    emulator.faults.add("delete_user:403")

    report = await _run(schemathesis, emulator, file, f"Authorization: Bearer {emulator.issue_token(user).text}")

    assert "5 selected / 5 total" in report


PREVIEW = "2024-06-05-preview"


def _add_images(specification: Any) -> None:
    """Leave of chat what images have to do with, and add what the preview has and the later version lacks."""
    paths, definitions = specification["paths"], specification["definitions"]
    thread = "/chat/threads/{chatThreadId}"
    for path in list(paths):
        if path not in {f"{thread}/messages", f"{thread}/messages/{{chatMessageId}}"}:
            del paths[path]
    for path, method in ((f"{thread}/messages", "get"), (f"{thread}/messages/{{chatMessageId}}", "delete")):
        del paths[path][method]
    for name in ("SendChatMessageRequest", "UpdateChatMessageRequest"):
        attachments = {"type": "array", "items": {"$ref": "#/definitions/ChatAttachment"}}
        definitions[name]["properties"]["attachments"] = attachments
    definitions["UploadChatImageResult"] = {
        "type": "object",
        "required": ["id"],
        "properties": {
            "id": {"type": "string"},
            "attachmentType": {"$ref": "#/definitions/ChatAttachmentType"},
            "name": {"type": "string"},
        },
    }
    refusal = {"description": "Error", "schema": {"$ref": "#/definitions/CommunicationErrorResponse"}}
    version = {"$ref": "#/parameters/ApiVersionParameter"}

    def operation(name: str, status: str, schema: Any, *parameters: Any, **more: Any) -> dict[str, Any]:
        answer = {"description": "Success", **({"schema": schema} if schema else {})}
        named = [{"in": "path", "name": "chatThreadId", "required": True, "type": "string"}, version, *parameters]
        return {"operationId": name, "parameters": named, "responses": {status: answer, "default": refusal}, **more}

    image = {"in": "path", "name": "imageId", "required": True, "type": "string"}
    view = {"in": "path", "name": "imageViewType", "required": True, "type": "string", "enum": ["original", "small"]}
    file = {"in": "body", "name": "chatImageFile", "required": True, "schema": {"type": "string", "format": "binary"}}
    name = {"in": "header", "name": "image-filename", "type": "string"}
    result = {"$ref": "#/definitions/UploadChatImageResult"}
    binary = {"consumes": ["application/octet-stream"], "produces": ["application/json"]}
    pictures = {"produces": ["image/gif", "image/jpeg", "image/png"]}
    paths[f"{thread}/images"] = {"post": operation("UploadChatImage", "201", result, name, file, **binary)}
    paths[f"{thread}/images/{{imageId}}/view/{{imageViewType}}"] = {
        "get": operation("GetChatImage", "200", None, image, view, **pictures)
    }
    paths[f"{thread}/images/{{imageId}}"] = {"delete": operation("DeleteChatImage", "204", None, image)}


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
