"""`chatbot send`: what is said as a bot is said once, and nobody answers it who is a bot."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatbot.cli import main
from tests.cli.conftest import Run
from tests.cli.resource import Azure, azure

Out = pytest.CaptureFixture[str]
TWO = """\
  parrot: {plugins: [parrot], display_name: Parrot}
  owl: {plugins: [parrot]}"""


def thread_of(resource: Azure, directory: Path, capsys: Out, bots: str = "") -> tuple[str, str]:
    """A thread of a bot that has a user."""
    file = str(resource.bots_yaml(directory, bots=bots))
    assert main(["identity", "create", file, "--bot", "parrot"]) == 0
    capsys.readouterr()
    assert main(["threads", "create", "Talk", file, "--bot", "parrot"]) == 0
    return file, capsys.readouterr().out.strip()


@pytest.fixture(scope="module")
def resource(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azure]:
    with azure(tmp_path_factory.mktemp("azure"), "--no-quotas") as it:
        yield it


@pytest.fixture(autouse=True)
def no_misfortune_is_left(resource: Azure, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("chatbot.cli.send.PROOF_DELAY_SECONDS", 0.05)
    monkeypatch.setattr("chatbot.cli.send.PAUSE_SECONDS", 0.05)
    yield
    resource.control("DELETE", "faults")


def test_a_text_is_said_as_the_bot_and_its_id_is_printed(resource: Azure, tmp_path: Path, capsys: Out) -> None:
    file, thread = thread_of(resource, tmp_path, capsys)

    assert main(["send", thread, "Hello *people*", file]) == 0

    (message,) = resource.transcript(thread)
    assert capsys.readouterr().out.split() == [str(message["id"])]
    assert (message["text"], message["display_name"]) == ("Hello *people*", "Parrot")


def test_a_text_may_come_through_a_pipe_and_be_longer_than_a_message(
    resource: Azure, tmp_path: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, thread = thread_of(resource, tmp_path, capsys)
    text = "word " * 8000
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{text}\n".encode())))

    assert main(["send", thread, "-", file, "--format", "json"]) == 0

    shown = json.loads(capsys.readouterr().out)
    assert shown["messages"] == [str(message["id"]) for message in resource.transcript(thread)]
    assert len(shown["messages"]) == 2
    assert " ".join(resource.said(thread)).split() == text.split()


def test_a_json_text_that_is_longer_than_a_message_is_refused_rather_than_cut(
    resource: Azure, tmp_path: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, thread = thread_of(resource, tmp_path, capsys)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(["word"] * 8000).encode())))

    assert main(["send", thread, "-", file]) == 2
    assert "chatbot send got JSON text of 64,000 bytes" in capsys.readouterr().err
    assert resource.said(thread) == []


@pytest.mark.parametrize("text", ["", "  \n"])
def test_nothing_is_not_said(
    resource: Azure, tmp_path: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    file, thread = thread_of(resource, tmp_path, capsys)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    assert main(["send", thread, "-", file]) == 2
    assert "the text is empty" in capsys.readouterr().err
    assert resource.said(thread) == []


@pytest.mark.parametrize("fault", ["send_message:503,after=true,times=1", "send_message:503,times=1"])
def test_what_may_have_been_said_is_looked_for_before_it_is_said_again(
    resource: Azure, tmp_path: Path, capsys: Out, fault: str
) -> None:
    file, thread = thread_of(resource, tmp_path, capsys)
    resource.control("PUT", "faults", {"faults": [fault]})

    assert main(["send", thread, "once", file]) == 0

    assert resource.said(thread) == ["once"]
    assert capsys.readouterr().out.split() == [str(resource.transcript(thread)[0]["id"])]


def test_a_service_that_never_answers_is_reported_in_the_end(resource: Azure, tmp_path: Path, capsys: Out) -> None:
    file, thread = thread_of(resource, tmp_path, capsys)
    resource.control("PUT", "faults", {"faults": ["send_message:503"]})

    assert main(["send", thread, "never", file]) == 69

    assert "the service answered 503" in capsys.readouterr().err
    assert resource.said(thread) == []


def test_a_quota_that_is_used_up_is_waited_for(resource: Azure, tmp_path: Path, capsys: Out) -> None:
    file, thread = thread_of(resource, tmp_path, capsys)
    resource.control("PUT", "faults", {"faults": ["send_message:429,times=2"]})

    assert main(["send", thread, "patience", file]) == 0

    assert resource.said(thread) == ["patience"]
    assert "The quota of the thread is used up; waiting" in capsys.readouterr().err


def test_neither_the_bot_nor_another_one_answers_it_and_people_are_answered_once(
    resource: Azure, tmp_path: Path, capsys: Out, run: Run
) -> None:
    file, thread = thread_of(resource, tmp_path, capsys, TWO)
    bots = run(tmp_path)
    bots.event("daemon.started")
    assert main(["identity", "show", file, "--format", "json"]) == 0
    users = {one["bot"]: one["user"] for one in json.loads(capsys.readouterr().out)["identities"]}
    assert main(["threads", "add", thread, users["owl"], file, "--bot", "parrot"]) == 0
    bots.event("thread.joined", bot="owl", thread=thread)
    capsys.readouterr()

    assert main(["send", thread, "hello", file, "--bot", "parrot"]) == 0
    seed_person(resource, thread, file, capsys)

    resource.wait_until(lambda: resource.said(thread).count("hi!") == 2)
    assert bots.stop() == 0
    assert resource.said(thread) == ["hello", "hi", "hi!", "hi!"]


def seed_person(resource: Azure, thread: str, file: str, capsys: Out) -> None:
    """Let somebody who is no bot say hi."""
    capsys.readouterr()
    assert main(["identity", "create", file, "--token", "--format", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert main(["threads", "add", thread, made["user"], file, "--bot", "parrot"]) == 0
    resource.say(thread, made["token"], "hi")
