"""kill -9 in the middle of a load: nothing the emulator acknowledged is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import requests

from chatbot.emulator import Emulator, World, persist
from tests.unit.emulator.test_server import start

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

VERSION = {"api-version": "2024-03-07"}
KEY = "a2V5"


class Client:
    """A person who sends as fast as answers come, and notes what was acknowledged."""

    def __init__(self, endpoint: str, token: str) -> None:
        self._endpoint = endpoint
        self._session = requests.Session()
        self._session.headers["authorization"] = f"Bearer {token}"
        self.acknowledged: dict[int, str] = {}

    def talk(self, thread: str, name: str) -> None:
        """Send, and edit every fifth message, until the emulator is dead."""
        path = f"/chat/threads/{thread}/messages"
        number = 0
        while True:
            number += 1
            text = f"{name} {number}"
            try:
                sent = int(self._call("POST", path, {"content": text})["id"])
                self.acknowledged[sent] = text
                if number % 5 == 0:
                    self._call("PATCH", f"{path}/{sent}", {"content": f"{text}!"})
                    self.acknowledged[sent] = f"{text}!"
            except requests.RequestException:
                return

    def _call(self, method: str, path: str, body: Any) -> Any:
        answer = self._session.request(method, self._endpoint + path, params=VERSION, json=body, timeout=10)
        answer.raise_for_status()
        return answer.json() if answer.content else {}


def running(data: Path) -> tuple[subprocess.Popen[str], str]:
    """An emulator over the data file, and its endpoint."""
    process = start("--json", "--data", str(data), "--no-quotas", "--access-key", KEY)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["endpoint"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_what_was_acknowledged_before_kill_9_is_there_after_a_restart(tmp_path: Path) -> None:
    data = tmp_path / "state"
    with persist(World(access_key=KEY), data) as world:
        emulator = Emulator(world)
        user = emulator.create_user()
        thread, token = emulator.create_thread(user, "load"), emulator.issue_token(user).text
    expected: dict[int, str] = {}

    for life in range(5):
        process, endpoint = running(data)
        clients = [Client(endpoint, token) for _ in range(4)]
        talkers = [
            threading.Thread(target=client.talk, args=(thread, f"life {life} client {number}"))
            for number, client in enumerate(clients)
        ]
        for talker in talkers:
            talker.start()
        while sum(len(client.acknowledged) for client in clients) < 60:
            talkers[0].join(0.01)
        os.kill(process.pid, 9)
        for talker in talkers:
            talker.join()
        process.communicate()
        for client in clients:
            expected |= client.acknowledged

    with persist(World(), data) as world:
        transcript = Emulator(world).transcript(thread)
    found = {message.id: message.text for message in transcript if not message.is_system}
    # An edit whose answer the kill swallowed may have taken place.
    wrong = {number: text for number, text in expected.items() if found.get(number) not in {text, f"{text}!"}}
    assert wrong == {}
    assert len(expected) >= 300
    assert [message.sequence for message in transcript if message.edited is None][:2] == [1, 2]
