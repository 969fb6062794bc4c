"""`chatbot check`, in this process: it starts nothing."""

import json
from pathlib import Path

import pytest

from chatbot.cli import main

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
        "bots.yaml: all right, 1 bot",
        "",
        "service  the emulator, in the bots' own process",
        "store    sqlite:///chatbot.db",
        "",
        'dice  "Dice"  all threads, history none, ack handled, poll 500ms to 1m',
        "  checked  checked.py",
        "    /roll COUNT [SIDES]          checked.py:6",
        "    ParticipantsAdded → welcome  checked.py:10",
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
        "bots.yaml:7:5: bots.dice.pol: this key is not known (did you mean poll?)",
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


def test_with_json_logs_what_is_wrong_is_told_in_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert "all right" not in shown.out
    assert (
        "checked.py:12: time.time() may come out differently when the dialog order is run again for an answer;"
        " use `await talk.now()`" in shown.err
    )


def test_timers_and_schedules_are_listed_with_when_they_are_due(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "checked.py").write_text(DIALOGS.replace("time.time()", "noon"))

    assert main(["check"]) == 0

    lines = capsys.readouterr().out.replace(f"{folder}/", "").splitlines()[-4:]
    assert [line.partition("  checked.py")[0].strip() for line in lines] == [
        "/order ITEM",
        "TimerFired → remind",
        "every 3600 s → beat",
        "cron 0 9 * * 1-5 Europe/Paris → morning",
    ]
