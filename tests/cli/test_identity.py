"""`chatbot identity`, with bots that run on the emulator, and on a resource whether they run or not."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from chatbot.cli import main
from tests.cli.conftest import Demo, Run
from tests.cli.resource import Azure
from tests.support.loopback import Answered, site


def test_a_user_is_made_and_its_id_is_all_that_is_printed(
    resource: Azure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(resource.bots_yaml(tmp_path))

    assert main(["identity", "create", file]) == 0

    shown = capsys.readouterr()
    assert shown.out.startswith("8:acs:")
    assert len(shown.out.split()) == 1
    assert shown.err == ""
    assert not (tmp_path / "chatbot.db").exists()


def test_a_token_is_printed_only_when_it_is_asked_for_and_with_a_warning(
    resource: Azure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["identity", "create", str(resource.bots_yaml(tmp_path)), "--token", "--lifetime", "1h"]) == 0

    shown = capsys.readouterr()
    user, token = shown.out.split()
    assert user.startswith("8:acs:")
    assert token.count(".") == 2
    assert f"Anybody with this token can act as {user} until" in shown.err
    assert token not in shown.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--lifetime", "1h"], "--lifetime requires --token"),
        (["--token", "--lifetime", "59m"], "59m is not a valid lifetime; use 1h to 24h"),
        (["--bot", "nobody"], "there is no bot 'nobody'; there are: parrot"),
    ],
)
def test_what_cannot_be_is_refused(
    resource: Azure, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    assert main(["identity", "create", str(resource.bots_yaml(tmp_path)), *options]) == 2
    assert sentence in capsys.readouterr().err


def test_a_bots_user_is_made_before_its_first_start_and_is_the_one_that_it_runs_as(
    resource: Azure, tmp_path: Path, capsys: pytest.CaptureFixture[str], run: Run
) -> None:
    file = str(resource.bots_yaml(tmp_path))

    assert main(["identity", "show", file]) == 0
    assert "nowhere yet: created at the first start" in capsys.readouterr().out
    assert main(["identity", "create", file, "--bot", "parrot"]) == 0
    user = capsys.readouterr().out.strip()
    assert main(["identity", "show", file]) == 0
    assert f"parrot  {user}  the store, since 20" in capsys.readouterr().out
    assert main(["identity", "create", file, "--bot", "parrot"]) == 69
    assert f"already has a user: {user}" in capsys.readouterr().err

    bots = run(tmp_path)
    bots.event("daemon.started")
    assert main(["identity", "show", file, "--format", "json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["identities"]
    assert (shown["bot"], shown["user"], shown["trouble"]) == ("parrot", user, None)
    assert bots.stop() == 0


def test_revoked_tokens_are_refused_and_a_running_bot_gets_a_new_one(
    demo: Demo, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(demo.directory / "bots.yaml")
    assert main(["threads", "create", "Before", file, "--bot", "echo"]) == 0
    thread = capsys.readouterr().out.strip()

    assert main(["identity", "revoke", file, "--bot", "echo", "--yes"]) == 0

    assert "A running bot gets a new one by itself." in capsys.readouterr().out
    assert main(["send", thread, "after", file, "--bot", "echo"]) == 0


def test_nothing_is_revoked_unless_somebody_says_so(
    demo: Demo, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(demo.directory / "bots.yaml")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # a pipe is nobody

    assert main(["identity", "revoke", file, "--bot", "echo"]) == 2
    assert "not a terminal, so nobody can confirm; add --yes" in capsys.readouterr().err

    class Person(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Person("n\n"))
    assert main(["identity", "revoke", file, "--bot", "echo"]) == 2
    assert (
        "become invalid, whoever holds them. Continue? [y/N] Canceled; nothing was changed." in capsys.readouterr().err
    )


def test_without_a_key_or_entra_nobody_can_make_users(
    resource: Azure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service = f"{{endpoint: '{resource.endpoint}', token_endpoint: {{url: 'http://127.0.0.1:9/'}}}}"
    bots = "  parrot: {plugins: [parrot], user: '8:acs:a_b'}"

    assert main(["identity", "create", str(resource.bots_yaml(tmp_path, service, bots))]) == 78
    assert "that needs the access key of https://127.0.0.1" in capsys.readouterr().err


def test_the_emulator_is_there_only_while_the_bots_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bots.yaml").write_text("version: 1\nservice: emulator\nbots: {a: {plugins: [p]}}\n")

    for command in (["identity", "show"], ["threads", "list"], ["send", "19:x@thread.v2", "hi"]):
        assert main([*command, str(tmp_path / "bots.yaml")]) == 69
        assert "the emulator runs only while the bots do" in capsys.readouterr().err


def test_an_id_that_would_move_the_cursor_is_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = Answered(201, {"identity": {"id": "8:acs:\x1b[2J"}})
    with site(lambda _: hostile) as service:
        text = f"version: 1\nservice: endpoint={service.url}/;accesskey=c2VjcmV0\nbots: {{a: {{plugins: [p]}}}}\n"
        (tmp_path / "bots.yaml").write_text(text)

        assert main(["identity", "create", str(tmp_path / "bots.yaml")]) == 0

    assert capsys.readouterr().out == "8:acs:\\x1b[2J\n"
