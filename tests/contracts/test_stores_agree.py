"""All stores answer alike, whatever was committed in whatever order: the one in memory is the other's model."""

import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatbot.actions import ActionKey, SendMessage
from chatbot.errors import StateError
from chatbot.events import ThreadLeft
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.stores import records, writes
from chatbot.stores.memory import MemoryStore
from chatbot.stores.postgres import PostgresStore
from chatbot.stores.sqlite import SqliteStore

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
BOTS = [UserId("8:acs:bot"), UserId("8:acs:other")]
PEOPLE = [UserId("8:acs:ann"), UserId("8:acs:bob")]

_schemas = count()

bots = st.sampled_from(BOTS)
threads = st.sampled_from([ThreadId("19:a"), ThreadId("19:b")])
keys = st.sampled_from([ActionKey(key) for key in "abcd"])
dead_letter_ids = st.sampled_from(["x", "y"])
numbers = st.integers(0, 9)
messages = numbers.map(str).map(MessageId)
seen = st.dictionaries(numbers, numbers, max_size=4)
texts = st.sampled_from(["", "hello", "to 8:acs:ann", "to 8:acs:anne", "ü'%_\N{ROBOT FACE}"])
reasons = st.none() | texts
statuses = st.sampled_from(records.RowStatus)

thread_records = st.builds(
    records.ThreadRecord,
    threads,
    numbers,
    numbers,
    seen,
    st.booleans(),
    st.none() | messages,
    st.none() | messages,
    st.none() | numbers,
    st.none() | numbers,
)
rows = st.builds(
    records.OutboxRow,
    keys,
    threads,
    st.builds(SendMessage, texts),
    numbers,
    numbers,
    caused_by=st.none() | st.sampled_from(PEOPLE),
    after_failure=st.booleans(),
)
dead_letters = st.builds(
    records.DeadLetter,
    dead_letter_ids,
    st.builds(ThreadLeft, bot=bots, thread=threads, occurred_on=st.just(NOON), is_deleted=st.booleans(), floor=numbers),
    texts,
    texts,
    numbers,
    numbers,
    st.booleans(),
)
any_write = st.one_of(
    st.builds(writes.SaveBot, st.builds(records.BotRecord, st.just("desk"), st.just("contoso"), bots, numbers)),
    st.builds(writes.MoveHorizon, numbers),
    st.builds(writes.SaveThread, thread_records),
    st.builds(writes.MoveBase, threads, numbers, numbers),
    st.builds(writes.MarkSeen, threads, seen),
    st.builds(writes.LeaveThread, threads, numbers),
    st.builds(writes.EnterThread, threads),
    st.builds(writes.MarkJoined, threads, st.none() | numbers),
    st.builds(writes.MarkReceiptDue, threads, messages),
    st.builds(writes.SettleReceipt, threads, messages),
    st.builds(writes.Enqueue, rows),
    st.builds(writes.SettleRow, keys, statuses, st.none() | messages, reasons),
    st.builds(writes.RetryRow, keys, st.none() | numbers),
    st.builds(writes.SaveDeadLetter, dead_letters),
    st.builds(writes.RequestRetry, dead_letter_ids),
    st.builds(writes.DropDeadLetter, dead_letter_ids),
    st.builds(writes.BeginAttempt, threads, st.builds(records.Attempt, texts, numbers)),
    st.builds(writes.EndAttempt, threads),
    st.builds(writes.Prune, numbers),
)
commits = st.tuples(bots, st.lists(any_write, min_size=1, max_size=8))
steps = st.lists(st.one_of(*[commits] * 6, st.sampled_from(PEOPLE), st.none()), min_size=5, max_size=20)

BEGINNING = [
    writes.SaveThread(records.ThreadRecord(ThreadId("19:a"), 1, 1, {number: number for number in range(10)})),
    *(writes.Enqueue(records.OutboxRow(ActionKey(key), ThreadId("19:a"), SendMessage(key), 1, 5)) for key in "abc"),
]
"""So that most commits have something to change; 19:b is left unknown."""


@settings(max_examples=20, deadline=None)
@given(steps)
def test_all_stores_agree(steps):
    """A step is a commit, a person to forget, or a restart."""
    with tempfile.TemporaryDirectory() as directory:
        story = [(BOTS[0], BEGINNING), *steps]
        answers = [anyio.run(play, store, story) for store in (MemoryStore(), SqliteStore(Path(directory) / "bot.db"))]

    assert answers[0] == answers[1]


@pytest.mark.postgres
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_postgresql_agrees(postgres_server, steps):
    schema = f"agreeing{next(_schemas)}"
    story = [(BOTS[0], BEGINNING), *steps]
    postgres = PostgresStore(f"{postgres_server.url}?schema={schema}")

    answers = [anyio.run(play, store, story) for store in (MemoryStore(), postgres)]
    postgres_server.psql(f"DROP SCHEMA {schema} CASCADE")

    assert answers[0] == answers[1]


async def play(store, steps) -> list[object]:
    answers = []
    async with store:
        for step in steps:
            if step is None:
                break
            answers.append(await take(store, step))
        answers.append(await look(store))
    if len(answers) <= len(steps):
        answers += await play(store, steps[len(answers) :])
    return answers


async def take(store, step) -> object:
    if isinstance(step, str):
        return await store.forget(step)
    try:
        await store.commit(*step)
    except StateError as error:
        return str(error)
    return "committed"


async def look(store) -> list[object]:
    """Everything a store answers; of positions only the order counts."""
    answers: list[object] = [await store.find_bot("desk", "contoso"), await store.bots(), store.was_killed]
    for bot in BOTS:
        answers.append({record.thread: record for record in await store.threads(bot)})
        answers.append([replace(row, position=0) for row in await store.pending(bot)])
        rows = [await store.row(bot, ActionKey(key)) for key in "abcd"]
        answers.append([row and replace(row, position=0) for row in rows])
        answers += [await store.dead_letters(bot), await store.attempts(bot), await store.horizon(bot)]
    return answers
