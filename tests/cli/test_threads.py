"""`chatbot threads`: as a bot, on the emulator of running bots and on a resource without them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatbot.cli import main
from tests.cli.conftest import Demo
from tests.cli.resource import Azure

Out = pytest.CaptureFixture[str]


@pytest.fixture
def parrot(resource: Azure, tmp_path: Path, capsys: Out) -> str:
    """The bots.yaml of a bot that has a user, and does not run."""
    file = str(resource.bots_yaml(tmp_path))
    assert main(["identity", "create", file, "--bot", "parrot"]) == 0
    capsys.readouterr()
    return file


def made(capsys: Out, *words: str) -> str:
    assert main([*words]) == 0
    return capsys.readouterr().out.strip()


def listed(capsys: Out, *words: str) -> list[dict[str, object]]:
    found = json.loads(made(capsys, "threads", "list", *words, "--format", "json"))["threads"]
    assert isinstance(found, list)
    return found


def test_a_thread_is_created_people_come_and_go_and_the_bot_leaves_it(parrot: str, capsys: Out) -> None:
    ann = made(capsys, "identity", "create", parrot)
    ben = made(capsys, "identity", "create", parrot)

    thread = made(capsys, "threads", "create", "About parrots", parrot, "--add", ann)
    made(capsys, "threads", "add", thread, ben, parrot, "--name", "Ben")
    text = made(capsys, "threads", "list", parrot)
    (seen,) = listed(capsys, parrot)
    made(capsys, "threads", "remove", thread, ann, parrot)
    (later,) = listed(capsys, parrot)
    made(capsys, "threads", "leave", thread, parrot, "--yes")
    (left,) = listed(capsys, parrot)

    assert text.splitlines()[0].startswith(thread)
    assert text.splitlines()[0].endswith("About parrots")
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["WHO", "parrot", "-", "Ben"]
    assert f"Ben     {ben}" in text
    assert seen["topic"] == "About parrots"
    assert [one["name"] for one in seen["people"]] == ["Parrot", None, "Ben"]  # type: ignore[attr-defined]
    assert [one["name"] for one in later["people"]] == ["Parrot", "Ben"]  # type: ignore[attr-defined]
    assert (left["is_in"], left["people"]) == (False, [])
    assert "the bot is no longer in it" in made(capsys, "threads", "list", parrot)


def test_only_the_most_recent_threads_are_listed_with_a_note_that_there_are_more(parrot: str, capsys: Out) -> None:
    for topic in ("one", "two", "three"):
        made(capsys, "threads", "create", topic, parrot)

    shown = made(capsys, "threads", "list", parrot, "--most", "2")

    assert [line.split()[-1] for line in shown.splitlines() if line.startswith("19:")] == ["three", "two"]
    assert "More threads exist" in shown


def test_hostile_topics_and_names_do_not_reach_the_terminal(parrot: str, capsys: Out) -> None:
    ann = made(capsys, "identity", "create", parrot)
    thread = made(capsys, "threads", "create", "\x1b[31mred\u202e", parrot)
    made(capsys, "threads", "add", thread, ann, parrot, "--name", "\x1b]0;Ann\x07")

    shown = made(capsys, "threads", "list", parrot)

    assert "\x1b" not in shown
    assert "\\x1b[31mred\\u202e" in shown
    assert "\\x1b]0;Ann\\x07" in shown


def test_a_thread_that_the_bot_cannot_see_is_an_error_that_says_where_to_look(parrot: str, capsys: Out) -> None:
    ann = made(capsys, "identity", "create", parrot)

    assert main(["threads", "add", "19:nowhere@thread.v2", ann, parrot]) == 2
    assert "`chatbot threads list --bot parrot` shows the threads" in capsys.readouterr().err


def test_a_user_who_cannot_be_added_is_named_with_the_reason(parrot: str, capsys: Out) -> None:
    teams = "8:orgid:11111111-1111-1111-1111-111111111111"

    assert main(["threads", "create", "With Teams", parrot, "--add", teams]) == 69

    shown = capsys.readouterr()
    assert shown.out.startswith("19:")
    assert f"{teams} could not be added: 403" in shown.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["create", " "], "the topic is empty"),
        (["add", "19:x@thread.v2", "ann"], "'ann' is not a user's id: expected an id such as 8:acs:…"),
        (["leave", "19:x@thread.v2"], "not a terminal, so nobody can confirm; add --yes"),
        (["list", "--most", "0"], "--most must be at least 1"),
    ],
)
def test_mistakes_are_refused(parrot: str, capsys: Out, words: list[str], sentence: str) -> None:
    position = {"create": 2, "add": 3, "leave": 2, "list": 1}[words[0]]

    assert main(["threads", *words[:position], parrot, *words[position:]]) == 2
    assert sentence in capsys.readouterr().err


def test_a_bot_that_never_started_has_no_threads_and_the_remedy_is_named(
    resource: Azure, tmp_path: Path, capsys: Out
) -> None:
    assert main(["threads", "list", str(resource.bots_yaml(tmp_path))]) == 69
    assert "the bot parrot has no user yet: start it once with `chatbot run`" in capsys.readouterr().err


def test_while_bots_run_their_own_emulator_is_asked(demo: Demo, capsys: Out) -> None:
    file = str(demo.directory / "bots.yaml")

    thread = made(capsys, "threads", "create", "Beside", file, "--bot", "helpdesk")
    shown = listed(capsys, file, "--bot", "helpdesk")

    assert thread in {one["thread"] for one in shown}
    assert "Lobby" in {one["topic"] for one in shown}
    assert main(["threads", "list", file]) == 2
    assert "which bot? Name one with --bot: echo, helpdesk" in capsys.readouterr().err
