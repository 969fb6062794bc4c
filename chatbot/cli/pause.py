"""`chatbot pause` and `chatbot resume`: stop one bot for a while, and start it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final

from cyclopts import Parameter

from chatbot.cli.boundary import EXIT_UNAVAILABLE
from chatbot.cli.daemon_client import ask_bots
from chatbot.cli.options import BOTS_YAML, ConfigFile, Format
from chatbot.cli.output import have_all_done, others
from chatbot.config.source_location import printable

TIMEOUT_SECONDS: Final = 3600.0
"""A bot first finishes what it has in hand, for `drain_timeout` at most."""

BotName = Annotated[str, Parameter(help="The bot's name in bots.yaml.")]


def pause(bot: BotName, /, config: ConfigFile = BOTS_YAML, *, format: Format = "text") -> int:
    """Pause a bot until it is resumed, also over restarts."""
    answer = ask_bots(config, {"ask": "pause", "bot": bot}, TIMEOUT_SECONDS)
    if format == "json":
        print(json.dumps(answer, indent=2))
    elif answer["has_changed"]:
        print(f"{printable(bot)} is paused; `chatbot resume {printable(bot)}` starts it again.")
    else:
        print(f"{printable(bot)} is paused already.")
    return _code(answer, "Paused, too", format)


def resume(
    bot: BotName,
    /,
    config: ConfigFile = BOTS_YAML,
    *,
    skip: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Pass over messages that arrived while it was paused."),
    ] = False,
    format: Format = "text",
) -> int:
    """Resume a paused bot."""
    answer = ask_bots(config, {"ask": "resume", "bot": bot, "skip": skip}, TIMEOUT_SECONDS)
    if format == "json":
        print(json.dumps(answer, indent=2))
    elif answer["has_changed"]:
        print(f"{printable(bot)} is resumed" + (", and skips what arrived meanwhile." if skip else "."))
    else:
        print(f"{printable(bot)} is not paused.")
    return _code(answer, "Resumed, too", format)


def _code(answer: Mapping[str, Any], done: str, format: str) -> int:
    """Print what other processes have done, and return the exit code. Those that have not answered follow later."""
    if format == "text":
        for line in others(answer, done):
            print(line)
    return 0 if have_all_done(answer) else EXIT_UNAVAILABLE
