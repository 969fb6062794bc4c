"""A client of a language server, as an editor is one: speaks LSP over the server's stdin and stdout."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

Message = dict[str, Any]


class Editor:
    """An editor with a folder open.

    Args:
        server: the process.
        folder: where the files are.
        settings: the answer to the server's request for the section `yaml`.
    """

    def __init__(self, server: subprocess.Popen[bytes], folder: Path, settings: Message) -> None:
        self._server = server
        self._folder = folder
        self._settings = settings
        self._asked = 0
        self._diagnostics: dict[str, list[Message]] = {}

    @classmethod
    @contextmanager
    def with_server(cls, command: Sequence[str], folder: Path, settings: Message) -> Iterator[Self]:
        """Run the server while the block runs."""
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            editor = cls(server, folder, settings)
            try:
                uri = folder.as_uri()
                capabilities = {"workspace": {"configuration": True}, "textDocument": {"publishDiagnostics": {}}}
                editor.ask("initialize", processId=None, rootUri=uri, capabilities=capabilities)
                editor._send({"method": "initialized", "params": {}})
                yield editor
            finally:
                server.kill()

    def open(self, name: str, text: str) -> list[str]:
        """Open a file; what the server finds wrong in it, each as `LINE:COLUMN message`, counted from 1."""
        uri = (self._folder / name).as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        while uri not in self._diagnostics:
            self._receive()
        found = self._diagnostics.pop(uri)
        return sorted(f"{_place(one['range']['start'])} {one['message']}" for one in found)

    def complete(self, name: str, line: int, column: int) -> dict[str, str]:
        """What can be written at this place of an open file, and what it means."""
        document, position = {"uri": (self._folder / name).as_uri()}, {"line": line - 1, "character": column - 1}
        result = self.ask("textDocument/completion", textDocument=document, position=position)
        return {item["label"]: _text(item.get("documentation")) for item in result["items"]}

    def ask(self, method: str, **params: Any) -> Any:
        """Ask the server; its answer."""
        self._asked += 1
        self._send({"id": self._asked, "method": method, "params": params})
        while True:
            message = self._receive()
            if message.get("id") == self._asked and "method" not in message:
                return message["result"]

    def _send(self, message: Message) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._server.stdin is not None
        self._server.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._server.stdin.flush()

    def _receive(self) -> Message:
        """One message; what the server asks of its client is answered on the way."""
        assert self._server.stdout is not None
        length = 0
        while line := self._server.stdout.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        message: Message = json.loads(self._server.stdout.read(length))
        match message:
            case {"method": "textDocument/publishDiagnostics", "params": {"uri": uri, "diagnostics": found}}:
                self._diagnostics[uri] = found
            case {"method": "workspace/configuration", "id": id, "params": {"items": items}}:
                wanted = [self._settings if item.get("section") == "yaml" else None for item in items]
                self._send({"id": id, "result": wanted})
            case {"method": _, "id": id}:
                self._send({"id": id, "result": None})
        return message


def _place(position: Message) -> str:
    return f"{position['line'] + 1}:{position['character'] + 1}"


def _text(documentation: str | Message | None) -> str:
    return str(documentation["value"]) if isinstance(documentation, dict) else documentation or ""
