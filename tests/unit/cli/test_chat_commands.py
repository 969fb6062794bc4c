"""Which lines at `chatbot chat` are for the command itself, and which are for the bots."""

import pytest

from chatbot.cli.chat_commands import ChatCommand, command_of, help_text, text_for_bots


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("/as Ann Lee", ChatCommand("as", "Ann Lee")),
        (" /inspect ", ChatCommand("inspect", "")),
        ("/fault *:503,times=1", ChatCommand("fault", "*:503,times=1")),
        ("/assist me", None),
        ("/roll 3", None),
        ("//fault", None),
        ("as usual", None),
        ("/", None),
        ("", None),
    ],
)
def test_only_the_commands_of_chat_itself_are_kept_from_the_bots(line: str, command: ChatCommand | None) -> None:
    assert command_of(line) == command


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("//fault x", "/fault x"),
        ("//help", "/help"),
        ("//server/share", "//server/share"),
        ("/roll", "/roll"),
        ("hi", "hi"),
    ],
)
def test_a_second_slash_gives_a_command_to_the_bots_and_changes_no_other_text(line: str, text: str) -> None:
    assert text_for_bots(line) == text


def test_every_command_is_explained() -> None:
    for name in ("/as", "/inspect", "/fault", "/advance", "/help"):
        assert f"{name} " in help_text()
