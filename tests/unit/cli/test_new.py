"""A bot more in a bots.yaml, and nothing else changed."""

from __future__ import annotations

import pytest
import yaml

from chatbot.cli.new import with_bot
from chatbot.errors import ConfigError

LINES = ["display_name: New", "plugins: [plugins.new]"]


def added(text: str) -> str:
    return with_bot(text, "new", LINES, file="bots.yaml")


def test_the_bot_comes_behind_the_last_one_with_its_indentation() -> None:
    text = "version: 1\nbots:\n    old:\n        plugins:\n            - a\n            - b\nlog: {level: info}\n"

    assert added(text) == (
        "version: 1\nbots:\n    old:\n        plugins:\n            - a\n            - b\n"
        "    new:\n      display_name: New\n      plugins: [plugins.new]\nlog: {level: info}\n"
    )


def test_comments_and_blank_lines_stay_where_they_are() -> None:
    text = (
        "# top\nbots: # all\n  first:\n    plugins: [a] # one\n\n  old: # two\n    plugins: [a]\n"
        "    # about old\n\n# about the log\nlog: {level: info}\n"
    )

    assert added(text) == (
        "# top\nbots: # all\n  first:\n    plugins: [a] # one\n\n  old: # two\n    plugins: [a]\n"
        "    # about old\n\n  new:\n    display_name: New\n    plugins: [plugins.new]\n\n# about the log\n"
        "log: {level: info}\n"
    )


@pytest.mark.parametrize(
    "last",
    [
        "plugins: [a,\n      b]",
        "plugins: [a]\n    display_name: |\n      Two\n      lines",
        'plugins: [a]\n    display_name: "a\n      b"',
        "plugins:\n    - module: a\n      settings: {}",
        "plugins:\n    - module: a\n      settings:\n        deep:\n          - {x: 1}",
        "plugins: &p [a]",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\nlog: {level: info}\n", "\n\n\n"])
def test_a_bot_added_below_any_last_bot_leaves_the_others_unchanged(last: str, end: str) -> None:
    text = f"version: 1\nbots:\n  old:\n    {last}{end}"
    before, after = yaml.safe_load(text), yaml.safe_load(added(text))

    assert after["bots"].pop("new") == {"display_name": "New", "plugins": ["plugins.new"]}
    assert after == before


def test_a_file_without_a_last_line_break_gets_one() -> None:
    assert added("bots:\n  old:\n    plugins: [a]").endswith(
        "[a]\n  new:\n    display_name: New\n    plugins: [plugins.new]\n"
    )


def test_where_all_bots_are_in_other_files_the_new_one_begins_a_list_of_its_own() -> None:
    assert added("version: 1\ninclude: conf.d/*.yaml # all bots\n") == (
        "version: 1\ninclude: conf.d/*.yaml # all bots\n\n"
        "bots:\n  new:\n    display_name: New\n    plugins: [plugins.new]\n"
    )


def test_bots_on_one_line_are_left_to_their_author() -> None:
    with pytest.raises(ConfigError, match="add the entry yourself"):
        added("bots: {old: {plugins: [a]}}\n")
