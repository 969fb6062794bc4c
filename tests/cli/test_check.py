"""`chatbot check`, in this process: it starts nothing and changes nothing."""

import json
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from chatbot.cli import main
from chatbot.model import ThreadId, UserId
from chatbot.stores import SqliteStore
from chatbot.stores.records import BotRecord, TimerRecord
from chatbot.stores.sqlite_file import StoreLock
from chatbot.stores.writes import SaveBot, SetTimer
from tests.cli.conftest import Demo
from tests.cli.resource import Azure

PLUGIN = """
from chatbot import Context, ParticipantsAdded, Plugin

plugin = Plugin("checked")

@plugin.command("roll")
async def roll(ctx: Context, count: int, sides: int = 6) -> str:
    return "x"

@plugin.on(ParticipantsAdded)
async def welcome(ctx: Context[ParticipantsAdded]) -> str:
    return "x"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with plugins and a bots.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # undone afterwards, which loading a plugin does not do
    (tmp_path / "checked.py").write_text(PLUGIN)
    (tmp_path / "bots.yaml").write_text(
        "version: 1\n"
        "service: ${ACS_CONNECTION_STRING:-emulator}\n"
        "bots:\n"
        "  dice:\n"
        "    display_name: Dice\n"
        "    plugins: [checked]\n"
        "    poll: {interval: 500ms, idle: 1m}\n"
    )
    return tmp_path


def test_a_good_file_is_described_with_the_file_of_every_plugin_and_handler(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check"]) == 0

    assert capsys.readouterr().out.replace(f"{folder}/", "").splitlines() == [
        "bots.yaml: no problems found, 1 bot",
        "",
        "service  the emulator, in the bots' own process",
        "store    sqlite:///chatbot.db",
        "",
        'dice  "Dice"  all threads, history none, ack handled, poll 500ms to 1m',
        "  checked  checked.py",
        "    /roll COUNT [SIDES]          checked.py:6",
        "    ParticipantsAdded → welcome  checked.py:10",
        "",
        "✓ store         chatbot.db: does not exist yet; it is created at the first start",
    ]
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == ["bots.yaml", "checked.py"]


def test_the_service_is_shown_without_its_key(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACS_CONNECTION_STRING", "endpoint=https://my.communication.azure.com/;accesskey=c2VjcmV0")

    assert main(["check"]) == 0

    shown = capsys.readouterr().out
    assert "service  https://my.communication.azure.com, with its access key\n" in shown
    assert "c2VjcmV0" not in shown


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_bad_file_is_78_before_anything_is_started(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    text = (folder / "bots.yaml").read_text()
    (folder / "bots.yaml").write_text(text.replace("poll:", "pol:").replace("Dice", "5"))

    assert main([command]) == 78

    assert capsys.readouterr().err.splitlines() == [
        'chatbot: bots.yaml:5:19: bots.dice.display_name: 5 is not text (put it in quotes: "5")',
        "    5 |     display_name: 5",
        "      |                   ^",
        "bots.yaml:7:5: bots.dice.pol: unknown key (did you mean poll?)",
        "    7 |     pol: {interval: 500ms, idle: 1m}",
        "      |     ^^^",
    ]
    assert not (folder / ".chatbot").exists()


BAD_PLUGINS = {
    "bad_import": ("import nowhere_to_be_found\n", "bad_import.py:1: there is no module 'nowhere_to_be_found'"),
    "bad_syntax": ("def (\n", "bad_syntax.py:1: "),
    "bad_parameter": (
        PLUGIN.replace("sides: int = 6", "shop: ParticipantsAdded"),
        "bad_parameter.py:6: parameter 'shop' of roll ",
    ),
}


@pytest.mark.parametrize("command", ["check", "run"])
def test_plugins_that_cannot_be_used_are_78_with_both_places(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    for name, (code, _) in BAD_PLUGINS.items():
        (folder / f"{name}.py").write_text(code)
    text = (folder / "bots.yaml").read_text()
    (folder / "bots.yaml").write_text(text.replace("[checked]", f"[{', '.join(BAD_PLUGINS)}]"))

    assert main([command]) == 78

    written = capsys.readouterr().err
    first_lines = [line for line in written.splitlines() if "bots.yaml:" in line]
    assert [line.removeprefix("chatbot: ").partition(" ")[0] for line in first_lines] == [
        "bots.yaml:6:15:",
        "bots.yaml:6:27:",
        "bots.yaml:6:39:",
    ]
    for line, (_, sentence) in zip(first_lines, BAD_PLUGINS.values(), strict=True):
        assert sentence in line
    assert "Traceback" not in written


def test_with_json_logs_errors_are_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (folder / "bots.yaml").read_text()
    (folder / "bots.yaml").write_text(text.replace("[checked]", "[nope]") + "log: {format: json}\n")

    assert main(["run", "nope.yaml", "--log-format", "json"]) == 78
    assert main(["run"]) == 78

    problems = [json.loads(line)["problem"] for line in capsys.readouterr().err.splitlines()]
    assert [problem.partition(": ")[0] for problem in problems] == ["nope.yaml", "bots.yaml:6:15"]


DIALOGS = """
import time
from datetime import timedelta

from chatbot import Context, Dialog, Plugin, ScheduleFired, TimerFired

plugin = Plugin("dialogs")

@plugin.command("order")
async def order(talk: Dialog, item: str) -> str:
    count = await talk.ask("How many?", validate=int)
    return f"{count} {item} at {time.time()}"

@plugin.timer
async def remind(ctx: Context[TimerFired], what: str) -> str:
    return what

@plugin.every(timedelta(hours=1))
async def beat(ctx: Context[ScheduleFired]) -> None: ...

@plugin.cron("0 9 * * 1-5", tz="Europe/Paris")
async def morning(ctx: Context[ScheduleFired]) -> None: ...
"""


def test_a_dialog_that_would_not_do_the_same_again_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "checked.py").write_text(DIALOGS)

    assert main(["check"]) == 78

    shown = capsys.readouterr()
    assert "no problems found" not in shown.out
    assert (
        "checked.py:12: time.time() may return something else when the dialog order is replayed for an answer;"
        " use `await talk.now()`" in shown.err
    )


FORGETFUL = """
from chatbot import Context, Dialog, Plugin

plugin = Plugin("forgetful")

@plugin.message()
async def echo(ctx: Context) -> None:
    ctx.log.info("heard")
    ctx.reply(ctx.text)

@plugin.command("order")
async def order(talk: Dialog) -> None:
    await talk.ask("What?")
    talk.say("Done.")
"""


def test_what_is_not_awaited_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "checked.py").write_text(FORGETFUL)

    assert main(["check"]) == 78

    assert capsys.readouterr().err.replace(f"{folder}/", "").splitlines() == [
        "chatbot: checked.py:9: ctx.reply(…) is not awaited, so it does nothing; write `await ctx.reply(…)`",
        "checked.py:14: talk.say(…) is not awaited, so it does nothing; write `await talk.say(…)`",
    ]


def test_a_plugin_without_handlers_is_seen_to_have_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "checked.py").write_text('from chatbot import Plugin\n\nplugin = Plugin("checked")\n')

    assert main(["check"]) == 0

    assert "    no handlers: is a decorator missing?" in capsys.readouterr().out.splitlines()


def test_a_ca_file_that_is_not_there_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACS_CONNECTION_STRING", "endpoint=https://my.communication.azure.com/;accesskey=c2VjcmV0")
    with (folder / "bots.yaml").open("a") as bots:
        bots.write("ca_file: nowhere.pem\n")

    assert main(["check"]) == 78

    shown = capsys.readouterr().out
    assert "bots.yaml:8:10: ca_file: there is no such file; name a PEM file of certificates, or leave it out" in shown


def test_timers_and_schedules_are_listed_with_when_they_are_due(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "checked.py").write_text(DIALOGS.replace("time.time()", "noon"))

    assert main(["check"]) == 0

    lines = capsys.readouterr().out.replace(f"{folder}/", "").splitlines()[-6:-2]
    assert [line.partition("  checked.py")[0].strip() for line in lines] == [
        "/order ITEM",
        "TimerFired → remind",
        "every 3600 s → beat",
        "cron 0 9 * * 1-5 Europe/Paris → morning",
    ]


def test_json_output_says_that_a_file_is_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "nope.yaml", "--format", "json"]) == 78

    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    text = "there is no such file; pass the path of your configuration, or change to its directory"
    assert problem == {"file": "nope.yaml", "line": None, "column": None, "path": "", "text": text}


def test_json_output_lists_bots_plugins_and_handlers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "more.yaml").write_text("bots:\n  other: {plugins: [checked], threads: ['19:a@thread.v2']}\n")
    (folder / "bots.yaml").write_text((folder / "bots.yaml").read_text() + "include: more.yaml\n")

    assert main(["check", "--format", "json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert (found["is_right"], found["problems"]) == (True, [])
    assert found["files"] == ["bots.yaml", "more.yaml"]
    assert [bot["name"] for bot in found["bots"]] == ["other", "dice"]
    assert found["bots"][0]["threads"] == ["19:a@thread.v2"]
    assert found["bots"][1]["plugins"][0]["handlers"][0] == {
        "handler": "checked.roll",
        "what": "/roll COUNT [SIDES]",
        "place": f"{folder}/checked.py:6",
    }
    assert [(one["subject"], one["state"]) for one in found["findings"]] == [("store", "ok")]


# ── the store and the service ─────────────────────────────────────────────────────────────────────────────────────


def everything_in(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


async def _make_store(file: Path) -> None:
    async with SqliteStore(file):
        pass


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda file: file.write_bytes(b"no database at all" * 100), "is not an SQLite database, or it is damaged"),
        (lambda file: spoil_version(file), "run a newer chatbot, or name another file"),
        (lambda file: (file.unlink(), file.mkdir()), "is a directory: name a file in it"),
    ],
)
def test_a_store_that_cannot_be_used_is_69_and_is_left_as_it_is(
    folder: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], object], sentence: str
) -> None:
    anyio.run(_make_store, folder / "chatbot.db")
    spoil(folder / "chatbot.db")
    before = everything_in(folder)

    assert main(["check"]) == 69

    shown = capsys.readouterr().out
    assert "no problems found" not in shown
    assert sentence in next(line for line in shown.splitlines() if line.startswith("✗ store"))
    assert everything_in(folder) == before


def spoil_version(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 99")
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()


def test_a_store_in_use_by_the_running_bots_is_as_it_should_be(demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(demo.directory / "bots.yaml"), "--online"]) == 0

    shown = capsys.readouterr().out
    assert "chatbot.db: in use" in shown
    assert "✓ token         echo: the service accepts its token" in shown


def test_a_store_in_use_by_others_is_said_to_be(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = StoreLock(folder / "chatbot.db")
    anyio.run(_make_store, folder / "chatbot.db")
    lock.acquire()

    assert main(["check"]) == 69

    lock.release()
    assert "is in use by this process already: stop that one first" in capsys.readouterr().out


def test_online_the_service_is_asked_and_nothing_is_made_there(
    resource: Azure, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resource.bots_yaml(folder)
    users = resource.control("GET", "status")["users"]
    before = everything_in(folder)

    assert main(["check", "--online"]) == 0

    shown = capsys.readouterr().out
    assert "✓ access        the service grants access with its access key" in shown
    assert "✓ token         parrot has no known user yet; one is created at its first start" in shown
    assert resource.control("GET", "status")["users"] == users
    assert everything_in(folder) == before


def test_online_a_key_that_is_refused_is_69_and_is_not_shown(
    resource: Azure, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resource.bots_yaml(folder, f'"endpoint={resource.endpoint}/;accesskey=bm90IG91cnM="')

    assert main(["check"]) == 0
    assert main(["check", "--online"]) == 69

    told = capsys.readouterr()
    assert "✗ access" in told.out
    assert "bm90IG91cnM" not in told.out + told.err


def test_without_online_nobody_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACS_CONNECTION_STRING", "endpoint=https://127.0.0.1:1/;accesskey=c2VjcmV0")

    assert main(["check"]) == 0
    assert main(["check", "--online"]) == 69


def test_what_the_store_holds_and_the_code_cannot_go_on_with_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def remember() -> None:
        async with SqliteStore(folder / "chatbot.db") as store:
            user = UserId("8:acs:dice")
            timer = TimerRecord(
                "k1", "checked.ring", 4_000_000_000_000, ThreadId("19:a@thread.v2"), '{"what":"secret"}'
            )
            await store.commit(user, [SaveBot(BotRecord("dice", "resource", user, 0)), SetTimer(timer)])

    anyio.run(remember)

    assert main(["check"]) == 0
    shown = capsys.readouterr().out
    assert "bot dice: 1 timer of 1 thread calls checked.ring, which is gone" in shown
    assert "secret" not in shown


def test_an_address_that_is_taken_is_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (folder / "bots.yaml").open("a") as file:
            file.write(f"server: {{listen: {port}}}\nevent_grid: {{listen: {port}, key: 0123456789abcdef0123}}\n")

        assert main(["check"]) == 0

    shown = capsys.readouterr().out
    assert f"server.listen: nobody can listen at 127.0.0.1:{port} now: Address already in use" in shown
    assert f"event_grid.listen: nobody can listen at 127.0.0.1:{port} now" in shown


def test_a_damaged_store_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def fill() -> None:
        async with SqliteStore(folder / "chatbot.db") as store:
            record = BotRecord("dice", "r", UserId("8:acs:dice"), 0)
            timers = [SetTimer(TimerRecord(str(n), "gone.away", n, ThreadId("19:x"), "{}")) for n in range(2000)]
            await store.commit(record.user, [SaveBot(record), *timers])

    anyio.run(fill)
    content = bytearray((folder / "chatbot.db").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 8192] = b"\xff" * 8192
    (folder / "chatbot.db").write_bytes(content)

    assert main(["check"]) == 69

    shown = capsys.readouterr().out
    assert "chatbot.db is damaged" in shown
    assert "restore a backup" in shown


@pytest.mark.parametrize("written", ["!secret env:ACS", "${ACS}", "!secret file:acs.txt"])
def test_ci_checks_without_the_secrets(folder: Path, capsys: pytest.CaptureFixture[str], written: str) -> None:
    text = (folder / "bots.yaml").read_text().replace("${ACS_CONNECTION_STRING:-emulator}", written)
    (folder / "bots.yaml").write_text(text)

    assert main(["check"]) == 78
    capsys.readouterr()
    assert main(["check", "--without-secrets"]) == 0
    shown = capsys.readouterr().out
    assert "bots.yaml: no problems found, 1 plugin, 2 handlers" in shown
    assert "Not checked, because variables or secret files are missing: service" in shown
    assert main(["check", "--without-secrets", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["unset"] == ["service"]

    (folder / "bots.yaml").write_text(text.replace("interval: 500ms", "interval: 5 sec"))
    assert main(["check", "--without-secrets"]) == 78
    shown = capsys.readouterr().err
    assert '"5 sec" is not a duration' in shown
    assert "service" not in shown


def test_a_store_that_is_secret_is_not_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STORE", "sqlite:///hidden.db")
    with (folder / "bots.yaml").open("a") as file:
        file.write("store: !secret env:STORE\n")

    assert main(["check"]) == 0
    assert "store    (secret)" in capsys.readouterr().out
    assert main(["config"]) == 0
    assert "hidden" not in capsys.readouterr().out


def test_the_code_is_compared_with_a_store_that_bots_hold(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def look() -> None:
        record = BotRecord("dice", "r", UserId("8:acs:dice"), 0)
        async with SqliteStore(folder / "chatbot.db") as store:
            await store.commit(record.user, [SaveBot(record)])
            await store.commit(record.user, [SetTimer(TimerRecord("t", "gone.away", 0, ThreadId("19:x"), "{}"))])
            await anyio.to_thread.run_sync(main, ["check"])

    anyio.run(look)

    assert "calls gone.away, which is gone" in capsys.readouterr().out
