"""`chatbot dead-letters`: list, show, retry and drop events that the bots could not handle."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from cyclopts import Parameter

from chatbot.cli.boundary import EXIT_UNAVAILABLE, EXIT_USAGE
from chatbot.cli.daemon_client import ask_bots
from chatbot.cli.options import BOTS_YAML, ConfigFile, Format, Yes, confirmed_on_terminal
from chatbot.cli.output import table
from chatbot.config.source_location import printable

Letter = Annotated[str, Parameter(help="The id of a dead letter, as `chatbot dead-letters list` shows it.")]
Letters = Annotated[str, Parameter(help="The id of a dead letter, or all.")]
BotName = Annotated[str | None, Parameter(help="Only dead letters of this bot.")]

ALL: Final = "all"

_OUTCOMES = {
    "now": "is retried now",
    "at the next start": "will be retried at the next start",
    "not in the thread": "cannot be retried: the bot is not in its thread; drop it, or add the bot again and retry",
}


def list_letters(config: ConfigFile = BOTS_YAML, *, bot: BotName = None, format: Format = "text") -> int:
    """List dead letters."""
    answer = ask_bots(config, {"ask": "dead-letters list", "bot": bot})
    _show(answer, format, list_lines(answer))
    return 0


def show_letter(id: Letter, /, config: ConfigFile = BOTS_YAML, *, bot: BotName = None, format: Format = "text") -> int:
    """Show one dead letter."""
    answer = ask_bots(config, {"ask": "dead-letters show", "id": id, "bot": bot})
    _show(answer["letter"], format, _detail_lines(answer["letter"]))
    return 0


def retry_letters(
    id: Letters, /, config: ConfigFile = BOTS_YAML, *, bot: BotName = None, format: Format = "text"
) -> int:
    """Retry dead letters."""
    answer = ask_bots(config, {"ask": "dead-letters retry", "id": id, "bot": bot})
    _show(answer, format, _sentences(answer, lambda letter: _OUTCOMES[letter["outcome"]]))
    is_stuck = any(letter["outcome"] == "not in the thread" for letter in answer["letters"])
    return EXIT_UNAVAILABLE if is_stuck else 0


def drop_letters(
    id: Letters,
    /,
    config: ConfigFile = BOTS_YAML,
    *,
    bot: BotName = None,
    yes: Yes = False,
    format: Format = "text",
) -> int:
    """Delete dead letters."""
    whose = f" of {printable(bot)}" if bot is not None else ""
    question = f"Delete all dead letters{whose}? They cannot be retried any more."
    if id == ALL and not confirmed_on_terminal(question, yes=yes):
        return EXIT_USAGE
    answer = ask_bots(config, {"ask": "dead-letters drop", "id": id, "bot": bot})
    _show(answer, format, _sentences(answer, lambda _letter: "is deleted"))
    return 0


def _show(answer: Mapping[str, Any], format: str, lines: Iterable[str]) -> None:
    print(json.dumps(answer, indent=2) if format == "json" else "\n".join(lines))


def list_lines(answer: Mapping[str, Any]) -> Iterator[str]:
    letters = answer["letters"]
    if not letters:
        yield "No dead letters."
        return
    if answer["left_out"]:
        yield f"({answer['left_out']} older ones are not shown; select one bot with --bot)"
    rows = [_row(letter) for letter in letters]
    yield from table(("ID", "BOT", "DIED (UTC)", "TRIES", "EVENT", "HANDLER", "ERROR", "THREAD"), rows)


def _row(letter: Mapping[str, Any]) -> tuple[str, ...]:
    waits = " (to be retried)" if letter["is_revived"] else ""
    return (
        letter["id"],
        letter["bot"],
        _time(letter["died_ms"]),
        str(letter["attempts"]),
        letter["event"],
        letter["handler"] or "-",
        letter["error"] + waits,
        letter["thread"] or "-",
    )


def _detail_lines(letter: Mapping[str, Any]) -> Iterator[str]:
    """Return one line for each fact, then the lines of the message text."""
    waits = "; it waits to be retried" if letter["is_revived"] else ""
    facts = {
        "letter": letter["id"],
        "bot": f"{letter['bot']}  {letter['user']}  at {letter['resource']}",
        "died": f"{_time(letter['died_ms'])} UTC, tries: {letter['attempts']}{waits}",
        "thread": letter["thread"],
        "event": letter["event"],
        "message": letter.get("message"),
        "from": " ".join(filter(None, (letter.get("sender"), letter.get("sender_name")))),
        "wish": letter.get("wish"),
        "handler": letter["handler"],
        "error": letter["error"],
    }
    for name, fact in facts.items():
        if fact:
            yield f"{name:<8} {printable(fact)}"
    for number, line in enumerate((letter.get("text") or "").splitlines()):
        yield f"{'text' if number == 0 else '':<8} {printable(line)}"


def _sentences(answer: Mapping[str, Any], describe: Callable[[Mapping[str, Any]], str]) -> Iterator[str]:
    for letter in answer["letters"]:
        where = f" (thread {letter['thread']})" if letter["thread"] else ""
        yield f"{printable(letter['id'])} of {printable(letter['bot'])}{printable(where)} {describe(letter)}"
    if not answer["letters"]:
        yield "No dead letters."


def _time(epoch_ms: int) -> str:
    return f"{datetime.fromtimestamp(epoch_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
