"""`chatbot doctor --probe` and `--cleanup`, against a resource in another process."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from chatbot.cli import main
from chatbot.cli.embedded_emulator import load_world
from chatbot.config import load_config
from chatbot.emulator import Quirks
from chatbot.runtime.run_directory import ControlDirectory
from tests.cli.resource import Azure

Out = pytest.CaptureFixture[str]

QUICK = ["--only", "answers", "--only", "deletion"]
"""Groups that wait for nothing."""


def counts(resource: Azure) -> list[int]:
    status = resource.control("GET", "status")
    return [status["users"], status["threads"]]


def test_a_probe_writes_quirks_and_a_report_without_secrets(resource: Azure, tmp_path: Path, capsys: Out) -> None:
    file = resource.bots_yaml(tmp_path)
    resource.control("PATCH", "quirks", {"deleted-thread": "properties", "www-authenticate": False})
    written, report = tmp_path / "quirks.yaml", tmp_path / "report.json"

    code = main(["doctor", str(file), "--probe", "--yes", *QUICK, "--quirks", str(written), "--report", str(report)])

    resource.control("PATCH", "quirks", {"deleted-thread": "not-found", "www-authenticate": True})
    shown = capsys.readouterr()
    assert code == 0, shown.err
    quirks = Quirks.load(written)
    assert quirks == Quirks(deleted_thread="properties", www_authenticate=False)
    assert "deleted-thread: properties (emulator: not-found)" in shown.out
    assert "www-authenticate: false (emulator: true)" in shown.out
    assert "creates 2 throw-away users and 2 threads" in shown.err
    document: dict[str, Any] = json.loads(report.read_text())
    assert document["quirks"]["deleted-thread"]["differs"]
    assert document["not_probed"]["start-time"] == "not probed: its group was skipped or not reached"
    for text in (report.read_text(), shown.out):
        for secret in ("8:acs:", "19:", "eyJ", resource.endpoint.partition("://")[2]):
            assert secret not in text
    assert not (tmp_path / ".chatbot" / "probe.jsonl").exists()


def test_nothing_is_sent_before_the_answer_yes(
    resource: Azure, tmp_path: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = resource.bots_yaml(tmp_path)
    before = counts(resource)

    for answer, code in (("y\n", 69), ("no\n", 69)):
        main_end, terminal = pty.openpty()
        with open(terminal) as stdin, monkeypatch.context() as patched:
            patched.setattr(sys, "stdin", stdin)
            os.write(main_end, answer.encode())
            assert main(["doctor", str(file), "--probe", *QUICK]) == code
        os.close(main_end)
        assert "Nothing was done." in capsys.readouterr().err

    assert counts(resource) == before


def test_where_nobody_can_be_asked_only_yes_agrees(
    resource: Azure, tmp_path: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)

    assert main(["doctor", str(resource.bots_yaml(tmp_path)), "--probe"]) == 69

    assert "give --yes to probe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (
            ["--probe", "--yes", "--only", "everything"],
            78,
            "there is no group 'everything' of the probe; there are: id",
        ),
        (["--probe", "--yes", "--only", "quotas", "--skip", "quotas"], 78, "no group of the probe is left"),
        (["--yes"], 2, "belong to --probe"),
    ],
)
def test_what_is_wrong_with_the_options_is_said(
    options: list[str], code: int, text: str, resource: Azure, tmp_path: Path, capsys: Out
) -> None:
    assert main(["doctor", str(resource.bots_yaml(tmp_path)), *options]) == code

    assert text in capsys.readouterr().err


def test_a_wrong_key_is_said_and_leaves_nothing_to_clean_up(resource: Azure, tmp_path: Path, capsys: Out) -> None:
    wrong = resource.connection_string.partition("accesskey=")[0] + "accesskey=d3Jvbmc="
    file = resource.bots_yaml(tmp_path, json.dumps(wrong))

    assert main(["doctor", str(file), "--probe", "--yes", *QUICK]) == 69

    assert "cannot create a user: the identity service answered 401 Denied" in capsys.readouterr().err
    assert main(["doctor", str(file), "--cleanup"]) == 0


def test_the_emulator_of_bots_that_do_not_run_cannot_be_probed(tmp_path: Path, capsys: Out) -> None:
    (tmp_path / "bots.yaml").write_text("version: 1\nservice: emulator\nbots: {b: {plugins: [b]}}\n")

    assert main(["doctor", str(tmp_path / "bots.yaml"), "--probe", "--yes"]) != 0

    assert "start `chatbot run`" in capsys.readouterr().err


def test_a_cleanup_deletes_what_a_killed_probe_has_left(resource: Azure, tmp_path: Path, capsys: Out) -> None:
    file = resource.bots_yaml(tmp_path)
    journal = tmp_path / "journal"
    command = [sys.executable, "-m", "chatbot", "doctor", str(file), "--probe", "--yes", "--only", "quotas"]
    with subprocess.Popen([*command, "--journal", str(journal)], cwd=tmp_path, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"quotas: what" in line:
                break
        process.kill()
    assert journal.exists()

    assert main(["doctor", str(file), "--cleanup", "--journal", str(journal)]) == 0

    assert "Everything that the probe created is deleted" in capsys.readouterr().out
    assert not journal.exists()
    assert main(["doctor", str(file), "--cleanup", "--journal", str(journal)]) == 0
    assert "There is nothing to clean up" in capsys.readouterr().out
    threads = resource.control("GET", "threads")["threads"]
    assert all("deleted" in resource.control("GET", f"threads/{thread}")["thread"] for thread in threads)


def test_quirks_of_bots_yaml_are_checked(tmp_path: Path, capsys: Out) -> None:
    (tmp_path / "parrot.py").write_text("from chatbot import Plugin\nplugin = Plugin('parrot')\n")
    file = tmp_path / "bots.yaml"
    file.write_text(
        "version: 1\nservice: emulator\nemulator: {quirks: quirks.yaml}\nbots: {parrot: {plugins: [parrot]}}\n"
    )
    (tmp_path / "quirks.yaml").write_text(yaml.safe_dump({"start-time": "exclusively"}))

    assert main(["check", str(file)]) == 78

    assert "quirk start-time cannot be 'exclusively'; it can be: inclusive | exclusive" in capsys.readouterr().out


def test_the_bots_own_emulator_has_the_quirks_of_bots_yaml(tmp_path: Path) -> None:
    file = tmp_path / "bots.yaml"
    file.write_text("version: 1\nservice: emulator\nemulator: {quirks: quirks.yaml}\nbots: {b: {plugins: [b]}}\n")
    (tmp_path / "quirks.yaml").write_text(
        "start_time: exclusive\nwww-authenticate: false\ndeletion-delay-seconds: 60\n"
    )

    with load_world(load_config(file, {}), ControlDirectory(tmp_path)) as world:
        assert world.quirks == Quirks(start_time="exclusive", www_authenticate=False, deletion_delay_seconds=60)
