"""An Azure Communication Services resource as commands meet it: https, in another process, with a key of its own."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.machine import KEY

PATIENCE: Final = 120.0
"""Seconds until a process counts as hanging: a busy machine takes half a minute to start one."""

PLUGIN = """
from chatbot import Context, Plugin

plugin = Plugin("parrot")

@plugin.message()
async def parrot(ctx: Context) -> str:
    return f"{ctx.text}!"
"""


@dataclass(frozen=True)
class Azure:
    """The resource."""

    endpoint: str
    connection_string: str
    ca_file: str

    def bots_yaml(self, directory: Path, service: str | None = None, bots: str = "") -> Path:
        """Write a bots.yaml for bots on this resource."""
        (directory / "parrot.py").write_text(PLUGIN)
        given = service or json.dumps(self.connection_string)
        file = directory / "bots.yaml"
        file.write_text(
            f"version: 1\nservice: {given}\nca_file: {json.dumps(self.ca_file)}\n"
            f"bots:\n{bots or '  parrot: {plugins: [parrot], display_name: Parrot}'}\n"
        )
        return file

    def control(self, method: str, path: str, body: object = None) -> Any:
        """Ask what only a test can ask: the resource's control API."""
        key = self.connection_string.partition("accesskey=")[2]
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {key}"}
        request = urllib.request.Request(f"{self.endpoint}/emulator/{path}", data, headers, method=method)
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=self.ca_file)) as answer:
            return json.load(answer)

    def transcript(self, thread: str) -> list[dict[str, Any]]:
        """Every message of people and bots in a thread, eldest first."""
        messages: list[dict[str, Any]] = self.control("GET", f"threads/{thread}")["messages"]
        return [message for message in messages if message["type"] in ("text", "html")]

    def said(self, thread: str) -> list[str]:
        """What was said in a thread, eldest first."""
        return [message["text"] for message in self.transcript(thread)]

    def say(self, thread: str, token: str, text: str) -> None:
        """Say something as whoever's token this is."""
        url = f"{self.endpoint}/chat/threads/{thread}/messages?api-version=2024-03-07"
        self.create(url, token, {"content": text})

    def create(self, url: str, token: str, body: object) -> Any:
        """Post something to the service as whoever's token this is."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=self.ca_file)) as answer:
            return json.load(answer)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Look at the resource again and again until something holds."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, "this took too long"
            time.sleep(0.1)


@contextmanager
def azure(directory: Path, *options: str) -> Iterator[Azure]:
    """Serve the resource while the block runs."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "chatbot",
            "emulator",
            "--tls",
            "--json",
            "--entra",
            "--certificates",
            str(directory),
            *options,
        ],
        env={**os.environ, "CHATBOT_EMULATOR_KEY": KEY},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        yield Azure(facts["endpoint"].rstrip("/"), facts["connection_string"], facts["ca_file"])
    finally:
        process.terminate()
        process.communicate()
