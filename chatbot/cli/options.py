"""Parameters that several commands share."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter, Token

from chatbot.cli import boundary
from chatbot.durations import parse_duration

ConfigFile = Annotated[Path, Parameter(help="The configuration of the bots.")]
RunningConfig = Annotated[Path, Parameter(help="The configuration of the running bots.")]
AsBot = Annotated[str | None, Parameter(name="--bot", help="The name of the bot; required if there are several.")]
Format = Annotated[Literal["text", "json"], Parameter(help="Output for people (text) or for programs (json).")]
Yes = Annotated[bool, Parameter(name="--yes", negative="", show_default=False, help="Do not ask for confirmation.")]

AllowNewUsers = Annotated[
    bool,
    Parameter(
        name="--allow-new-users",
        negative="",
        show_default=False,
        help="Start a bot as a new user although the store was lost or the bot renamed; refused otherwise.",
    ),
]

BOTS_YAML: Final = Path(boundary.BOTS_YAML)


def confirmed(question: str, *, yes: bool, command: str) -> bool:
    """Ask the person at the terminal for confirmation; without a terminal, `--yes` is required.

    Args:
        question: what is about to happen, and the question.
        yes: `--yes` was given.
        command: the command, for the error message.
    """
    if yes:
        return True
    if sys.stdin is None or not sys.stdin.isatty():
        print(f"{command}: not a terminal, so nobody can confirm; add --yes to continue", file=sys.stderr)
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    print("Canceled; nothing was changed.", file=sys.stderr)
    return False


def confirmed_on_terminal(question: str, *, yes: bool) -> bool:
    """Whether the person at the terminal agrees; a script is not asked.

    Args:
        question: what is about to happen, and the question.
        yes: `--yes` was given.
    """
    if yes or sys.stdin is None or not sys.stdin.isatty():
        return True
    return confirmed(question, yes=False, command="chatbot")


def percentage(_type: Any, tokens: Sequence[Token]) -> float:
    """Convert the value of an option that takes a percentage to a share from 0 to 1, both excluded."""
    text = tokens[0].value.strip()
    found = re.fullmatch(r"(\d{1,2}(?:\.\d+)?) ?%", text, re.ASCII)
    if found is None or not float(found[1]):
        message = f"{text!r} is not a percentage between 0% and 100%, such as 5%"
        raise ValueError(message)
    return float(found[1]) / 100


def duration(_type: Any, tokens: Sequence[Token]) -> timedelta:
    """Convert the value of an option that takes a duration."""
    return parse_duration(tokens[0].value)
