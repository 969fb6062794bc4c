"""The pages of limits and of polling say what the code holds to."""

from __future__ import annotations

from pathlib import Path

from chatbot.bot import BotSettings
from chatbot.bot.read_receipts import MAX_PEOPLE
from chatbot.config import PollConfig
from chatbot.config.file import MAX_SECRET_BYTES
from chatbot.dispatch.outcome import Retry
from chatbot.durations import format_duration
from chatbot.message_size import MAX_ACTIONS, MAX_MESSAGE_BYTES, MAX_TEXT_BYTES
from chatbot.polling.eventgrid import MAX_EVENTS
from chatbot.runtime.status_pages import MOST_CONNECTIONS
from chatbot.service.budget import PARTS, QUOTAS, SHARED_QUOTAS, Operation, Window
from chatbot.service.failures import MAX_RETRY_AFTER
from chatbot.stores.serialization import MAX_RECORD_BYTES

DOCS = Path(__file__).parents[2] / "docs"
LIMITS = DOCS / "reference" / "limits.md"
POLLING = DOCS / "concepts" / "polling.md"


def rows(page: Path = LIMITS) -> dict[str, list[str]]:
    lines = [line for line in page.read_text("utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {cell[0]: cell[1:] for cell in cells}


def test_every_limit_of_our_own_has_the_value_of_the_code() -> None:
    values = {name: cells[0] for name, cells in rows().items()}
    attempts, settings = Retry().attempts, BotSettings()

    assert settings.timeout is not None
    assert values["a message's text"] == f"{MAX_MESSAGE_BYTES:,} bytes"
    assert (
        f"({MAX_RECORD_BYTES:,} bytes of JSON)"
        in values["a state, a timer's arguments, a result of `ctx.once` or `talk.run`"]
    )
    assert f"({MAX_TEXT_BYTES:,} bytes)" in values["a text of `reply`, `stream` or an edit, in all its messages"]
    assert values["actions in a thread, timers, of one event"] == f"{MAX_ACTIONS:,}"
    assert values["an attempt of a handler"] == f"{settings.timeout / 60:.0f} minutes (`timeout`)"
    assert values["attempts of a handler"] == f"{attempts} (`retry`)"
    assert values["events that handlers work on at the same time"] == f"{settings.max_handlers} (`max_handlers`)"
    assert values["people in a thread with read receipts"].startswith(f"{MAX_PEOPLE} ")
    assert values["`Retry-After`"] == f"{MAX_RETRY_AFTER / 60:.0f} minutes"
    assert f"{MAX_EVENTS:,} events" in values["a delivery of Event Grid"]
    assert values["connections to the status server"] == str(MOST_CONNECTIONS)
    assert f"{MAX_SECRET_BYTES:,} bytes" in values["an included file; a secret file"]


def test_the_quotas_of_the_service_are_those_that_the_bots_keep() -> None:
    def said(operation: Operation, quotas: dict[Operation, tuple[Window, ...]]) -> str:
        shown = [(window.limit, window.seconds) for window in quotas.get(operation, ())]
        return ", ".join(f"{limit} {'a minute' if seconds == 60 else f'in {seconds:g} s'}" for limit, seconds in shown)

    page = rows()
    assert page["list messages"] == [
        said(Operation.LIST_MESSAGES, QUOTAS),
        said(Operation.LIST_MESSAGES, SHARED_QUOTAS),
    ]
    assert page["send, edit, delete a message"][-1] == said(Operation.WRITE_MESSAGE, SHARED_QUOTAS)
    assert page["typing"] == [said(Operation.SEND_TYPING, QUOTAS), said(Operation.SEND_TYPING, SHARED_QUOTAS)]


def test_the_parts_of_the_quota_of_the_list_are_those_that_the_bots_keep() -> None:
    page = rows(POLLING)
    parts = {
        "the first page of the list, evenly spaced": Operation.POLL_THREADS,
        "further pages of the list": Operation.WALK_THREADS,
        "a single thread": Operation.GET_THREAD,
        "together": Operation.LIST_THREADS,
    }
    windows = {name: QUOTAS[operation][-1] for name, operation in parts.items()}

    assert page["Requests"] == ["In 10 s"]
    assert {name: page[name] for name in parts} == {name: [str(window.limit)] for name, window in windows.items()}
    assert {window.seconds for window in windows.values()} == {10}
    assert set(PARTS) == set(parts.values()) - {Operation.LIST_THREADS}
    assert "Listing threads and getting a thread together: 50 in 10 s per user." in LIMITS.read_text("utf-8")


def test_documents_name_the_default_settings_of_polling() -> None:
    poll = PollConfig()
    interval, idle = format_duration(poll.interval), format_duration(poll.idle)
    polling = POLLING.read_text("utf-8")
    example = (DOCS.parent / "bots.yaml").read_text("utf-8")

    assert f"`poll.interval` ({interval.replace('ms', ' ms')})" in polling
    assert f"`poll.idle` ({idle.replace('s', ' s')})" in polling
    assert f"`poll.rate` ({poll.rate})" in polling
    assert f"# poll: {{interval: {interval}, idle: {idle}, rate: {poll.rate}}}" in example
