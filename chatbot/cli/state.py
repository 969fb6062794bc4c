"""`chatbot state`: manage what the bots have stored: states, dialogs, timers, and data about a person."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from cyclopts import Parameter

from chatbot.cli.boundary import EXIT_UNAVAILABLE, EXIT_USAGE
from chatbot.cli.daemon_client import ask_bots
from chatbot.cli.options import BOTS_YAML, ConfigFile, Format, Yes, confirmed_on_terminal
from chatbot.cli.output import others, table
from chatbot.config.source_location import printable

TIMEOUT_SECONDS: Final = 180.0
"""An erasure waits for running handlers, twice, in all processes that share the store."""

Person = Annotated[str, Parameter(help="The person's user id, as threads and logs show it, such as 8:acs:…")]
Entry = Annotated[str, Parameter(help="The id of an entry, as `chatbot state list` shows it.")]


def list_state(
    config: ConfigFile = BOTS_YAML,
    *,
    bot: Annotated[str | None, Parameter(help="Only what this bot has stored.")] = None,
    user: Annotated[str | None, Parameter(help="Only what belongs to this person.")] = None,
    thread: Annotated[str | None, Parameter(help="Only what belongs to this thread.")] = None,
    format: Format = "text",
) -> int:
    """List states, dialogs and timers, without their values."""
    answer = ask_bots(config, {"ask": "state list", "bot": bot, "user": user, "thread": thread})
    print(json.dumps(answer, indent=2) if format == "json" else "\n".join(_listing(answer)))
    return 0


def show_state(id: Entry, /, config: ConfigFile = BOTS_YAML, *, format: Format = "text") -> int:
    """Show one state, dialog or timer with its values."""
    entry = ask_bots(config, {"ask": "state show", "id": id})["entry"]
    print(json.dumps(entry, indent=2) if format == "json" else "\n".join(_details(entry)))
    return 0


def export(user: Person, /, config: ConfigFile = BOTS_YAML) -> int:
    """Print everything that is stored about a person, as JSON."""
    print(json.dumps(ask_bots(config, {"ask": "state export", "user": user}), indent=2))
    return 0


def end_dialog(id: Entry, /, config: ConfigFile = BOTS_YAML, *, format: Format = "text") -> int:
    """End a dialog without a reply."""
    return _ended(ask_bots(config, {"ask": "state end-dialog", "id": id}), "ended", format)


def cancel_timer(id: Entry, /, config: ConfigFile = BOTS_YAML, *, format: Format = "text") -> int:
    """Cancel a timer."""
    return _ended(ask_bots(config, {"ask": "state cancel-timer", "id": id}), "canceled", format)


def forget(user: Person, /, config: ConfigFile = BOTS_YAML, *, yes: Yes = False, format: Format = "text") -> int:
    """Erase a person from the store; messages in the threads themselves stay, as they belong to the service."""
    question = f"Erase everything that the bots have stored about {printable(user)}? This cannot be undone."
    if not confirmed_on_terminal(question, yes=yes):
        return EXIT_USAGE
    answer = ask_bots(config, {"ask": "state forget", "user": user}, TIMEOUT_SECONDS)
    records, is_complete = answer["records"], answer["is_complete"]
    if format == "json":
        print(json.dumps(answer, indent=2))
    else:
        if records:
            print(f"{printable(user)} is erased: {records} record{'s' * (records != 1)} changed or deleted.")
        else:
            print(f"Nothing about {printable(user)} is stored.")
        for line in others(answer, "Erased from the memory of"):
            print(line)
        if not is_complete:
            print("What still runs may store more: run this command again in a moment.")
    return 0 if is_complete else EXIT_UNAVAILABLE


def _ended(answer: Mapping[str, Any], done: str, format: Format) -> int:
    entry = answer["entry"]
    if format == "json":
        print(json.dumps(answer, indent=2))
    else:
        print(f"{entry['id']}: {printable(entry['name'])} of {printable(entry['bot'])} is {done}.")
    return 0


def _listing(answer: Mapping[str, Any]) -> Iterator[str]:
    entries = answer["entries"]
    if not entries:
        yield "Nothing is stored."
        return
    head = ("ID", "BOT", "KIND", "NAME", "USER", "THREAD", "REMARK")
    yield from table(head, [_row(entry) for entry in entries])
    if answer["left_out"]:
        yield f"and {answer['left_out']} more: narrow the list with --bot, --user or --thread"


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    names = (entry["id"], entry["bot"], entry["kind"], entry["name"])
    return (*names, entry["user"] or "-", entry["thread"] or "-", _remark(entry))


def _remark(entry: Mapping[str, Any]) -> str:
    if entry["kind"] == "state":
        return f"{entry['characters']} characters"
    if entry["kind"] == "timer":
        return f"due {_time(entry['due_ms'])}"
    deadline = entry["deadline_ms"]
    return f"since {_time(entry['changed_ms'])}" + (f", until {_time(deadline)}" if deadline is not None else "")


def _details(entry: Mapping[str, Any]) -> Iterator[str]:
    width = max(map(len, entry))
    for name, value in entry.items():
        if value is not None:
            shown = _time(value) if name.endswith("_ms") else value
            text = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False, indent=2)
            for number, line in enumerate(text.splitlines() or [""]):
                yield f"{'' if number else name:<{width}}  {printable(line)}"


def _time(ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}Z"
    except (OverflowError, ValueError, OSError):  # a timer beyond the last year that datetime knows
        return f"{ms} ms"
