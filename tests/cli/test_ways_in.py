"""`chatbot run` on a resource whose key it does not have: with Entra, with a token endpoint, with tokens."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chatbot.cli import main
from tests.cli.conftest import Run, Running
from tests.cli.resource import Azure
from tests.support.loopback import site
from tests.support.machine import metadata, needs_azure_identity

Out = pytest.CaptureFixture[str]
SERVER = Path(__file__).with_name("token_server.py")
SHARED = "Bearer the secret that the endpoint and the daemon share"


@pytest.fixture
def holder(resource: Azure, tmp_path: Path) -> str:
    """The bots.yaml of whoever holds the key."""
    (tmp_path / "holder").mkdir()
    return str(resource.bots_yaml(tmp_path / "holder"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the daemon runs."""
    (tmp_path / "daemon").mkdir()
    return tmp_path / "daemon"


@contextmanager
def token_server(resource: Azure, *bots: str) -> Iterator[str]:
    """The endpoint's address, served by a process of its own, which has the key."""
    secrets = {"ACS_CONNECTION_STRING": resource.connection_string, "TOKEN_ENDPOINT_AUTHORIZATION": SHARED}
    process = subprocess.Popen(
        [sys.executable, str(SERVER)],
        env=os.environ | secrets | {"BOTS": " ".join(bots), "REQUESTS_CA_BUNDLE": resource.ca_file},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def bot(user: str, more: str = "") -> str:
    return f"  parrot: {{plugins: [parrot], display_name: Parrot, user: '{user}'{more}}}"


def converse(resource: Azure, holder: str, bots: Running, user: str, capsys: Out) -> str:
    """Somebody comes into a thread with the bot, and is answered; returns the thread."""
    bots.event("daemon.started")
    capsys.readouterr()
    assert main(["identity", "create", holder, "--token", "--format", "json"]) == 0
    ann = json.loads(capsys.readouterr().out)
    threads = f"{resource.endpoint}/chat/threads?api-version=2024-03-07"
    people = [{"communicationIdentifier": {"rawId": user, "communicationUser": {"id": user}}}]
    thread = resource.create(threads, ann["token"], {"topic": "Talk", "participants": people})["chatThread"]["id"]
    resource.say(thread, ann["token"], "polly")
    resource.wait_until(lambda: resource.said(thread) == ["polly", "polly!"])
    return str(thread)


def test_with_a_token_endpoint_the_daemon_needs_no_key_and_has_none(
    resource: Azure, holder: str, place: Path, capsys: Out, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["identity", "create", holder]) == 0
    user = capsys.readouterr().out.strip()
    monkeypatch.setenv("SHARED", SHARED)
    with token_server(resource, user) as url:
        own = f"{{url: '{url}', authorization: !secret env:SHARED}}"
        file = resource.bots_yaml(place, f"{{endpoint: '{resource.endpoint}', token_endpoint: {own}}}", bot(user))
        bots = run(place)
        thread = converse(resource, holder, bots, user, capsys)

        assert main(["identity", "show", str(file)]) == 0
        assert f"parrot  {user}  bots.yaml  for 23h" in capsys.readouterr().out
        assert main(["send", thread, "beside", str(file)]) == 0
        assert main(["chat", str(file)]) == 69
        assert "needs a user of your own" in capsys.readouterr().err
        assert main(["identity", "revoke", str(file), "--yes"]) == 78
        assert "that needs the access key" in capsys.readouterr().err
        assert main(["identity", "revoke", holder, "--bot", "parrot", "--yes"]) == 69  # whose bot has no user
        assert bots.stop() == 0

    key = resource.connection_string.partition("accesskey=")[2]
    kept = "".join(file.read_text(errors="replace") for file in place.rglob("*") if file.is_file())
    assert key not in kept + "".join(bots.lines)
    assert SHARED not in kept + "".join(bots.lines)
    assert resource.said(thread) == ["polly", "polly!", "beside"]


def test_a_token_endpoint_that_refuses_ends_the_start_with_what_it_said(
    resource: Azure, holder: str, place: Path, capsys: Out, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["identity", "create", holder]) == 0
    user = capsys.readouterr().out.strip()
    monkeypatch.setenv("SHARED", "Bearer something else")
    with token_server(resource, user) as url:
        own = f"{{url: '{url}', authorization: !secret env:SHARED}}"
        resource.bots_yaml(place, f"{{endpoint: '{resource.endpoint}', token_endpoint: {own}}}", bot(user))
        bots = run(place)

        assert bots.ended() == 69

    problem = json.loads(bots.lines[-1])["problem"]
    assert "bots.yaml:2:10: service:" in problem
    assert "This is not the secret that we share." in problem
    assert "ask the operator of the token endpoint" in problem


@needs_azure_identity
def test_with_microsoft_entra_id_the_daemon_makes_its_users_and_has_no_key(
    resource: Azure, holder: str, place: Path, capsys: Out, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site(metadata) as machine:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{machine.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "the machine's own secret")
        file = resource.bots_yaml(place, f"{{endpoint: '{resource.endpoint}', entra: managed-identity}}")
        bots = run(place)
        user = bots.event("bot.created")["user_id"]

        thread = converse(resource, holder, bots, user, capsys)

        assert main(["chat", str(file), "--as", "Ben", "--list"]) == 0  # a user of Ben's is made by Entra, too
        assert main(["identity", "revoke", str(file), "--yes"]) == 0
        assert main(["send", thread, "beside", str(file)]) == 0
        assert bots.stop() == 0

    assert json.loads((place / ".chatbot" / "people.json").read_text())
    assert "machine's own secret" not in "".join(bots.lines)


def test_a_token_for_each_bot_is_enough_for_an_hour(
    resource: Azure, holder: str, place: Path, capsys: Out, run: Run
) -> None:
    assert main(["identity", "create", holder, "--token", "--lifetime", "1h", "--format", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    (place / "token").write_text(made["token"])
    service = f"{{endpoint: '{resource.endpoint}'}}"
    file = resource.bots_yaml(place, service, bot(made["user"], ", token: !secret file:token"))
    bots = run(place)

    converse(resource, holder, bots, made["user"], capsys)

    assert main(["identity", "show", str(file)]) == 0
    assert f"{made['user']}  bots.yaml  for 59m" in capsys.readouterr().out
    assert bots.stop() == 0


def test_a_token_that_has_expired_ends_the_start_with_what_to_do(resource: Azure, place: Path, run: Run) -> None:
    claims = base64.urlsafe_b64encode(b'{"exp": 1700000000}').decode().rstrip("=")
    (place / "token").write_text(f"e30.{claims}.c2ln")
    service = f"{{endpoint: '{resource.endpoint}'}}"
    resource.bots_yaml(place, service, bot("8:acs:a_b", ", token: !secret file:token"))
    bots = run(place)

    assert bots.ended() == 69

    assert "the access token expired at 2023-11-14 22:13:20Z" in bots.lines[-1]
    assert "get new tokens (`chatbot identity show --token`, run with a key)" in bots.lines[-1]
