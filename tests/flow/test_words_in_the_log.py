"""No word that people say is in the log, in a trace, in the status or in a list, by whichever way it might get in."""

from __future__ import annotations

import gc
import io
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from chatbot.cli.dead_letters import list_lines
from chatbot.errors import ChatbotError
from chatbot.model import UserId
from chatbot.runtime.admin_api import AdminApi
from chatbot.runtime.logs import LogFormat, Redaction, logging_to
from chatbot.runtime.observe.status import StatusMonitor, as_json
from chatbot.stores.sqlite import SqliteStore
from tests.flow.test_traces import Traces
from tests.support.assembled import assembled

OLD_STORE = Path(__file__).parents[1] / "upgrade" / "f8eade2" / "store.sqlite"
"""A store with rows of every kind."""

WORD = "hunter2"

PLUGIN = """
import ast, asyncio, logging, threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from chatbot import *
from chatbot.errors import ServiceError, StateError
from pydantic import BaseModel

plugin = Plugin("leaky")
ONE = Retry(1)
kept = []

class Made:
    pass

@dataclass
class Box:
    things: dict[str, object] = field(default_factory=dict)

class Form(BaseModel):
    number: int

@plugin.provide
async def made(ctx: Context) -> AsyncIterator[Made]:
    if ctx.text.startswith("/providing"):
        raise ValueError(ctx.text)
    yield Made()
    if ctx.text.startswith("/after"):
        raise ValueError(ctx.text)

@plugin.middleware
async def around(ctx: Context[Event], proceed: Proceed) -> Reply:
    reply = await proceed()
    if isinstance(ctx.event, MessageReceived) and ctx.event.message.content.startswith("/around"):
        raise ValueError(ctx.event.message.content)
    return reply

@plugin.error(ZeroDivisionError)
async def worse(ctx: Context[Event], error: ZeroDivisionError) -> str:
    raise RuntimeError(str(error)) from error

@plugin.command("around")
async def calm(ctx: Context, words: Rest) -> None: ...

@plugin.command("providing", retry=ONE)
async def providing(ctx: Context, made: Made, words: Rest) -> None: ...

@plugin.command("after", retry=ONE)
async def after(ctx: Context, made: Made, words: Rest) -> None: ...

@plugin.command("raise", retry=ONE)
async def raises(ctx: Context, words: Rest) -> None:
    error = ValueError(words, [words])
    error.add_note(words)
    raise error

@plugin.command("key", retry=ONE)
async def key(ctx: Context, words: Rest) -> None:
    {}[words]

@plugin.command("parse", retry=ONE)
async def parse(ctx: Context, words: Rest) -> None:
    ast.literal_eval(words + " (")

@plugin.command("run", retry=ONE)
async def run(ctx: Context, words: Rest) -> None:
    exec(compile("def words(): raise ValueError(said)\\nwords()", words, "exec"), {"said": words})

@plugin.command("open", retry=ONE)
async def opens(ctx: Context, words: Rest) -> None:
    raise FileNotFoundError(2, words, words)

@plugin.command("ours", retry=ONE)
async def ours(ctx: Context, words: Rest) -> None:
    raise StateError(words) from ServiceError(words)

@plugin.command("model", retry=ONE)
async def model(ctx: Context, words: Rest) -> None:
    Form(number=words)

@plugin.command("group", retry=ONE)
async def group(ctx: Context, words: Rest) -> None:
    try:
        raise LookupError(words)
    except LookupError:
        raise ExceptionGroup(words, [ValueError(words), ExceptionGroup(words, [KeyError(words)])])

@plugin.command("base", retry=ONE)
async def base(ctx: Context, words: Rest) -> None:
    raise GeneratorExit(words)

@plugin.command("exit", retry=ONE)
async def exits(ctx: Context, words: Rest) -> None:
    raise SystemExit(words)

@plugin.command("worse", retry=ONE)
async def divides(ctx: Context, words: Rest) -> None:
    raise ZeroDivisionError(words)

@plugin.command("box", retry=ONE)
async def boxes(ctx: Context, box: State[Box], words: Rest) -> None:
    box.value.things[words] = {words}

@plugin.command("once", retry=ONE)
async def once(ctx: Context, words: Rest) -> None:
    async def charge() -> None:
        raise ValueError(words)
    await ctx.once("charge", charge)

@plugin.command("unstorable", retry=ONE)
async def unstorable(ctx: Context, words: Rest) -> None:
    await ctx.once("charge", lambda: {words: {words}})

@plugin.command("stream", retry=ONE)
async def streams(ctx: Context, words: Rest) -> None:
    async def tokens() -> AsyncIterator[str]:
        yield "a word "
        raise ValueError(words)
    await ctx.stream(tokens())

@plugin.command("task")
async def task(ctx: Context, words: Rest) -> None:
    async def fails() -> None:
        raise ValueError(words)
    asyncio.create_task(fails(), name=words)
    asyncio.get_running_loop().call_soon(int, words)

@plugin.command("thread")
async def thread(ctx: Context, words: Rest) -> None:
    def fails() -> None:
        raise ValueError(words)
    one = threading.Thread(target=fails)
    one.start()
    one.join()

@plugin.command("finalizer")
async def finalizer(ctx: Context, words: Rest) -> None:
    class Final:
        def __del__(self) -> None:
            raise ValueError(words)
    Final()

@plugin.command("log")
async def logs(ctx: Context, words: Rest) -> None:
    try:
        int("x" + words)
    except ValueError as error:
        ctx.log.exception("number.failed", error=error)
        structlog.get_logger().warning("number.failed", error=error, more=[error], exc_info=True)
        logging.getLogger("a.library").error("failed: %s %r", error, error, exc_info=error)
        logging.getLogger("a.library").error("failed: %d", words)

@plugin.timer
async def ring(ctx: Context[TimerFired], words: str) -> None:
    raise ValueError(words)

@plugin.command("later")
async def later(ctx: Context, words: Rest) -> None:
    await ctx.later(timedelta(seconds=1), ring, words=words)

@plugin.command("payload", retry=ONE)
async def payload(ctx: Context, words: Rest) -> None:
    await ctx.later(timedelta(seconds=1), ring, words={words: words})

@plugin.command("talk", retry=ONE)
async def talks(talk: Dialog, words: Rest) -> None:
    answer = await talk.ask("What?", validate=str)
    raise ValueError(answer)

@plugin.command("refused")
async def refused(ctx: Context, words: Rest) -> str:
    return words

@plugin.message(regex("^(?P<number>.*)$"), retry=ONE)
async def anything(ctx: Context, number: int) -> None: ...

@plugin.message(retry=ONE)
async def rest(ctx: Context) -> None:
    raise ValueError(ctx.text)
"""

COMMANDS = [line.split('"')[1] for line in PLUGIN.splitlines() if line.startswith("@plugin.command")]

HOSTILE = [
    WORD,
    f"one line\n{WORD}\r{WORD}\u2028{WORD}\u2029{WORD}\x85{WORD}\x0b{WORD}",
    f"<p>{WORD}</p><br/>\x1b[31m{WORD}\u202e",
    f'"}}\n{{"event": "{WORD}"}} %s {{0}} \\N{{BELL}} \\{WORD}',
]


@pytest.mark.virtual_time
@pytest.mark.parametrize("format", ["json", "console"])
@pytest.mark.parametrize("said", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_no_message_text_reaches_logs_traces_errors_or_metrics(
    said: str, format: LogFormat, tmp_path: Path
) -> None:
    log, traces = io.StringIO(), Traces()
    with logging_to(log, format=format, level="debug"):
        async with assembled(tmp_path, PLUGIN, traces=traces.provider) as site:
            site.emulator.has_quotas = False
            for command in COMMANDS:
                if command == "refused":
                    site.emulator.faults.add(f"send_message:400,user={site.bot.user}")
                await site.say(f"/{command} {said}")
                if command == "talk":
                    await site.say(said)
            await site.say(said)
            await anyio.sleep(30)
            gc.collect()
            await anyio.sleep(5)
            caretaker = AdminApi(site.store, [site.bot])
            dead_letters = await caretaker.answer({"ask": "dead-letters list"})
            status_monitor = StatusMonitor([site.bot], {"echo": site.counters}, site.store, site.connection)
            status = json.dumps(as_json(await status_monitor.read_status()))

    assert len(dead_letters["letters"]) > 20
    for name, text in {
        "log": log.getvalue(),
        "spans": "".join(span.to_json() for span in traces.spans),
        "list of dead letters": json.dumps(dead_letters) + "\n".join(list_lines(dead_letters)),
        "status": status,
    }.items():
        lines = [line for line in text.splitlines() if WORD in line]
        assert not lines, f"{name}: {lines[:3]}"
    if format == "json":
        for line in log.getvalue().splitlines():
            assert json.loads(line)["event"]
        events = [json.loads(line)["event"] for line in log.getvalue().splitlines()]
        assert {"task.failed", "thread.crashed", "finalizer.failed", "handler.failed", "event.dead_lettered"} <= set(
            events
        )


DAMAGES: list[Callable[[Any], Any]] = [lambda _value: WORD, lambda _value: f"[{WORD}", lambda _value: -1]


@pytest.mark.parametrize("damage", [*range(3), "strings", "keys"])
def test_an_error_of_a_damaged_store_quotes_nothing_that_is_stored(damage: int | str, tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite"
    file.write_bytes(OLD_STORE.read_bytes())
    anyio.run(errors_of, file)  # brings it to the form of this version
    whole, found = file.read_bytes(), 0
    for table, column in columns_of(file):
        file = tmp_path / f"{table}.{column}"
        file.write_bytes(whole)
        with closing(sqlite3.connect(file)) as connection, connection:
            for (value,) in connection.execute(f'SELECT DISTINCT "{column}" FROM "{table}"').fetchall():
                damaged = DAMAGES[damage](value) if isinstance(damage, int) else damaged_json(value, damage)
                with suppress(sqlite3.IntegrityError):
                    connection.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE "{column}" IS ?', (damaged, value))
        for error in anyio.run(errors_of, file):
            found += 1
            name, _, problem = Redaction().summary(error).partition(": ")
            assert WORD not in problem, (table, column)
            assert WORD not in name or column in ("event", "id", "key", "name", "user"), (
                table,
                column,
            )  # the row's key

    assert found > 2
    assert not [path for path in tmp_path.iterdir() if WORD in path.name]


def damaged_json(value: object, part: str) -> object:
    """The same JSON with the word in every text, or in every key."""
    try:
        form = json.loads(value) if isinstance(value, str) else None
    except ValueError:
        form = None

    def damaged(one: Any) -> Any:
        if isinstance(one, dict):
            return {WORD if part == "keys" and key != "v" else key: damaged(inner) for key, inner in one.items()}
        if isinstance(one, list):
            return [damaged(inner) for inner in one]
        return WORD if part == "strings" and isinstance(one, str) else one

    return value if form is None else json.dumps(damaged(form))


def columns_of(file: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {table: connection.execute(f'PRAGMA table_info("{table}")').fetchall() for table in tables}
        holds = 'SELECT 1 FROM "{}" WHERE typeof("{}") = \'text\' LIMIT 1'
        columns = [(table, row[1]) for table, found in rows.items() for row in found]
        return [column for column in columns if connection.execute(holds.format(*column)).fetchone()]


async def errors_of(file: Path) -> list[ChatbotError]:
    """What goes wrong when everything in a store is read."""
    errors: list[ChatbotError] = []
    with suppress_into(errors):
        async with SqliteStore(file) as store:
            users: list[UserId] = []
            with suppress_into(errors):
                users += [bot.user for bot in await store.bots()]
            for user in users:
                for read in (
                    store.threads,
                    store.pending,
                    store.attempts,
                    store.dead_letters,
                    store.dialogs,
                    store.timers,
                ):
                    with suppress_into(errors):
                        await read(user)
            with suppress_into(errors):
                await AdminApi(store).answer({"ask": "dead-letters list"})
    return errors


@contextmanager
def suppress_into(errors: list[ChatbotError]) -> Iterator[None]:
    try:
        yield
    except ChatbotError as error:
        errors.append(error)
